"""The file of streamline ends, lengths and samples."""

import copy
import os
import resource
import signal
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from difftract_bids.errors import DifftractError, InputError
from difftract_bids.io import summaries
from difftract_bids.io.summaries import (
    StreamlineSummary,
    SummaryWriter,
    count_summary,
    iter_summary,
    join_summaries,
    read_summary,
    write_summary,
)

IMAGES = ("fa", "md")


def some_summary(n, seed=0, images=IMAGES):
    rng = np.random.default_rng(seed)
    return StreamlineSummary(
        np.sort(rng.integers(0, 1 << 40, n)),
        rng.normal(size=(n, 2, 3)).astype(np.float32) * 60,
        rng.random(n).astype(np.float32) * 200,
        {name: rng.random(n).astype(np.float32) for name in images},
    )


def arrays_of(summary):
    seeds, ends_mm, lengths_mm, samples = summary
    return [seeds, ends_mm, lengths_mm, *samples.values()]


def assert_same(one, other):
    assert list(one.samples) == list(other.samples)
    for array, expected in zip(arrays_of(one), arrays_of(other), strict=True):
        assert array.shape == expected.shape
        np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("n", [0, 1, 1000])
def test_what_is_written_is_read_back(tmp_path, n):
    summary = some_summary(n)
    back = read_summary(write_summary(tmp_path / "new" / "a.parquet", *summary))
    assert_same(back, summary)
    assert [array.dtype for array in arrays_of(back)] == [np.int64, *[np.float32] * 4]


def test_images_are_optional(tmp_path):
    summary = some_summary(3, images=())
    path = write_summary(tmp_path / "a.parquet", *summary)
    assert_same(read_summary(path), summary)
    assert count_summary(path) == (3, ())


def test_any_reader_of_parquet_finds_plain_columns(tmp_path):
    summary = some_summary(3)
    table = pq.read_table(write_summary(tmp_path / "a.parquet", *summary))
    assert table.column_names == [
        "seed_index",
        *("first_x_mm", "first_y_mm", "first_z_mm"),
        *("last_x_mm", "last_y_mm", "last_z_mm"),
        "length_mm",
        *IMAGES,
    ]
    assert count_summary(tmp_path / "a.parquet") == (3, IMAGES)
    np.testing.assert_array_equal(table["last_y_mm"].to_numpy(), summary.ends_mm[:, 1, 1])


def test_chunks_and_batches_keep_the_order(tmp_path, monkeypatch):
    monkeypatch.setattr(summaries, "_GROUP_ROWS", 100)
    summary = some_summary(1000)
    with SummaryWriter(tmp_path / "a.parquet", IMAGES) as writer:
        for first, last in [(0, 0), (0, 7), (7, 150), (150, 999), (999, 1000)]:
            *arrays, fa, md = (array[first:last] for array in arrays_of(summary))
            writer.append(StreamlineSummary(*arrays, {"fa": fa, "md": md}))
    parts = list(iter_summary(writer.path, 64))
    assert max(len(part.seed_index) for part in parts) <= 64
    assert_same(join_summaries(parts), summary)
    groups = pq.ParquetFile(writer.path).metadata
    assert max(groups.row_group(i).num_rows for i in range(groups.num_row_groups)) <= 100


@pytest.mark.parametrize("n", [1, 10])
def test_arrays_may_be_used_again_after_they_were_appended(tmp_path, n):
    summary = some_summary(n)
    with SummaryWriter(tmp_path / "a.parquet", IMAGES) as writer:
        writer.append(summary)
        expected = copy.deepcopy(summary)
        for array in arrays_of(summary):
            array[:] = 0
    assert_same(read_summary(writer.path), expected)


def write_and_be_interrupted(path):
    with SummaryWriter(path, IMAGES) as writer:
        writer.append(some_summary(5))
        raise KeyboardInterrupt


def test_an_exception_leaves_what_was_there(tmp_path):
    path = write_summary(tmp_path / "a.parquet", *some_summary(3))
    with pytest.raises(KeyboardInterrupt):
        write_and_be_interrupted(path)
    assert list(tmp_path.iterdir()) == [path]
    assert_same(read_summary(path), some_summary(3))


KILLED = """
import os, signal, sys
from test_summaries import SummaryWriter, some_summary
with SummaryWriter(sys.argv[1], ("fa", "md")) as writer:
    for _ in range(3):
        writer.append(some_summary(200_000))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_half_way_nothing_has_the_final_name(tmp_path):
    here = os.path.dirname(__file__)  # noqa: PTH120
    done = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path / "a.parquet"],
        env=dict(os.environ, PYTHONPATH=here),
        capture_output=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".a.parquet.")


def test_a_full_disk_is_told_and_cleaned_up(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(DifftractError, match=r"a\.parquet"):
            write_summary(tmp_path / "a.parquet", *some_summary(300_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_arrays_of_different_lengths_are_refused(tmp_path):
    seeds, ends_mm, lengths_mm, samples = some_summary(3)
    with pytest.raises(ValueError, match="belong together"):
        write_summary(tmp_path / "a.parquet", seeds, ends_mm, lengths_mm[:2])
    with pytest.raises(ValueError, match="belong together"):
        write_summary(tmp_path / "a.parquet", seeds[:2], ends_mm[:2], lengths_mm[:2], samples)


def test_samples_of_other_images_than_those_named_at_first_are_refused(tmp_path):
    with (
        pytest.raises(ValueError, match="belong together"),
        SummaryWriter(tmp_path / "a.parquet", ["fa"]) as writer,
    ):
        writer.append(some_summary(3))
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_no_summary_are_refused_by_name(tmp_path):
    import pyarrow as pa

    path = tmp_path / "a.parquet"
    with pytest.raises(InputError, match=r"a\.parquet"):
        read_summary(path)
    path.write_bytes(b"PAR1 but no more")
    with pytest.raises(InputError, match=r"a\.parquet"):
        read_summary(path)
    pq.write_table(pa.table({"seed_index": [1]}), path)
    with pytest.raises(InputError, match="first_x_mm"):
        read_summary(path)
