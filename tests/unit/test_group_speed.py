"""The group level of a thousand participants: time and memory."""

import subprocess
import sys

import pandas as pd
import pyarrow.parquet as pq
import pytest
from groups import write_large_group

MEASURED = """
import sys, time
from pathlib import Path

started = time.monotonic()
from difftract_bids.cli.group import run_group
from difftract_bids.config import GroupConfig

out = Path(sys.argv[1])
run_group(out, GroupConfig(consistency_threshold=0.6), None, None, work_dir=out / "work")
seconds = time.monotonic() - started
# Not getrusage: its peak includes that of the process that forked this one.
lines = Path("/proc/self/status").read_text().splitlines()
peak_kib = int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
print(seconds, peak_kib / 2**20)
"""


def measured(out):
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(out)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return map(float, done.stdout.split())


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_thousand_participants_take_less_than_a_minute_and_a_gigabyte(tmp_path):
    write_large_group(tmp_path, 1000, n_nodes=116, shape=(96, 96, 60))
    seconds, peak_gib = measured(tmp_path)
    table = pq.ParquetFile(tmp_path / "group" / "edges.parquet")
    assert table.metadata.num_rows == 1000 * 116 * 117 // 2
    quality = pd.read_csv(tmp_path / "group" / "quality.tsv", sep="\t")
    assert len(quality) == 1000
    assert quality[["fa_mean", "sigma_median", "similarity_A"]].notna().all(axis=None)
    assert (tmp_path / "group.html").is_file()
    assert seconds < 60
    assert peak_gib < 1


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_does_not_grow_with_the_participants(tmp_path):
    peaks = []
    for n_participants in (100, 600):
        out = tmp_path / str(n_participants)
        write_large_group(out, n_participants, n_nodes=116, shape=(12, 12, 12))
        peaks.append(list(measured(out))[1])
    # What 500 more have in their matrices alone: 500 x 4 x 6786 float64, 0.1 GiB.
    assert peaks[1] - peaks[0] < 0.04
