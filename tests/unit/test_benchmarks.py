"""The benchmark runs and its figures are possible; what they are is for `make bench` to say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).resolve().parents[1] / "benchmarks" / "run.py"


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    words = ["--output", folder, "--phantom", "--seeds", 150, "--repeats", 1, "--threads", 1]
    words += ["--contenders", "forward", "gradient", "--skip", "growth", "lmax", "first-call"]
    done = subprocess.run(
        [sys.executable, RUN, *map(str, words)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_a_benchmark_of_a_tiny_phantom_gives_figures_that_are_possible(output):
    report = json.loads((output / "benchmark.json").read_text())
    rows = {row["name"]: row for row in report["contenders"]}
    assert set(rows) == {"forward", "gradient"}
    assert rows["forward"]["vertices"] == rows["gradient"]["vertices"]
    for row in rows.values():
        assert row["n_seeds"] == 150
        assert 0 < row["streamlines"] <= 150
        # The shortest kept has 51 vertices, the longest 1003.
        assert 51 <= row["vertices"] / row["streamlines"] <= 1003
        assert row["vertices_per_second"] == pytest.approx(row["vertices"] / row["seconds"])
        assert 0 < row["seconds"] < 60
        # Of so little the system may not see a peak at all.
        assert row["peak_mib"] >= 0
        assert row["points_mib"] > 0
    assert 0 < rows["gradient"]["backward_seconds"] < rows["gradient"]["seconds"]
    assert report["machine"]["cores"] >= 1
    assert report["scene"]["voxels_in_mask"] > 1000


def test_its_table_tells_every_contender_and_the_machine(output):
    text = (output / "benchmark.md").read_text()
    assert "| forward | 1 | 150 |" in text
    assert "| forward + gradient | 1 | 150 |" in text
    assert "phantom" in text
