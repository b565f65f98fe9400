"""The benchmark runs and its figures are possible; what they are is for `make bench` to say."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from training_scans import simulated_scan

RUN = Path(__file__).resolve().parents[1] / "benchmarks" / "run.py"
ONCE = ("--repeats", 1, "--threads", 1, "--phantom")
N_SEEDS = 400
COARSE = ("--voxels", 300, "--phantom-voxel-size-mm", 6)


def run(folder, *words, **environment):
    done = subprocess.run(
        [sys.executable, RUN, "--output", folder, *map(str, words)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def rows_of(report):
    return {row["name"]: row for row in report["contenders"]}


@pytest.fixture(scope="module")
def of_streamlines(tmp_path_factory):
    """Three parts in one run: a program takes seconds to be loaded."""
    folder = tmp_path_factory.mktemp("streamlines")
    words = ("--seeds", N_SEEDS, "--skip", "growth", "lmax", "memory", "first-calls")
    ours = ("--contenders", "forward", "gradient", "connectome", "weights")
    run(folder, "tracking", "connectome", "sift2", *ONCE, *words, *ours)
    return folder


@pytest.fixture(scope="module")
def deconvolution(tmp_path_factory):
    """What a machine gets that has no programs of MRtrix: there are none in an empty folder."""
    folder = tmp_path_factory.mktemp("deconvolution")
    words = ("--contenders", "dwi2fod", "gradient")
    skipped = ("--skip", "growth", "lmax", "first-calls")
    empty = tmp_path_factory.mktemp("empty")
    said = run(folder, "deconvolution", *ONCE, *COARSE, *words, *skipped, PATH=str(empty))
    return folder, said


@pytest.fixture(scope="module")
def problems(deconvolution):
    report = json.loads((deconvolution[0] / "deconvolution.json").read_text())
    return {problem["name"]: problem for problem in report["problems"]}


def test_a_benchmark_of_a_tiny_phantom_gives_figures_that_are_possible(of_streamlines):
    report = json.loads((of_streamlines / "tracking.json").read_text())
    rows = rows_of(report)
    assert set(rows) == {"forward", "gradient"}
    assert rows["forward"]["vertices"] == rows["gradient"]["vertices"]
    for row in rows.values():
        assert row["n_seeds"] == N_SEEDS
        assert 0 < row["streamlines"] <= N_SEEDS
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


def test_its_table_tells_every_contender_and_the_machine(of_streamlines):
    text = (of_streamlines / "tracking.md").read_text()
    assert f"| forward | 1 | {N_SEEDS} |" in text
    assert f"| forward + gradient | 1 | {N_SEEDS} |" in text
    assert "phantom" in text


def test_only_the_parts_that_are_asked_for_are_run(of_streamlines):
    assert not list(of_streamlines.glob("deconvolution*"))


def test_deconvolution_of_coarse_phantoms_gives_figures_that_are_possible(problems):
    assert set(problems) == {"csd", "msmt_csd"}
    assert problems["csd"]["scene"]["tissues"] == ["WM"]
    assert problems["msmt_csd"]["scene"]["tissues"] == ["WM", "GM", "CSF"]
    for problem, n_voxels, n_coefficients in (("csd", 300, 45), ("msmt_csd", 100, 45 + 2)):
        (row,) = problems[problem]["contenders"]
        assert (row["name"], row["voxels"]) == ("gradient", n_voxels)
        assert row["voxels_per_second"] == pytest.approx(n_voxels / row["seconds"])
        assert row["ms_per_voxel_and_core"] == pytest.approx(1e3 * row["seconds"] / n_voxels)
        assert 0 < row["backward_seconds"] < row["seconds"] < 60
        # The gradient by the signal is as large as the image.
        fodf_mib = n_voxels * n_coefficients * 4 / 2**20
        assert row["result_mib"] == pytest.approx(fodf_mib + row["image_mib"])


def test_connectomes_of_a_few_streamlines_give_figures_that_are_possible(of_streamlines):
    report = json.loads((of_streamlines / "connectome.json").read_text())
    assert [rule["name"] for rule in report["rules"]] == ["radial", "all_voxels"]
    for rule in report["rules"]:
        row = rows_of(rule)["connectome"]
        assert 50 < row["assigned"] <= row["streamlines"] == report["scene"]["streamlines"]
        assert row["streamlines"] < N_SEEDS
        assert row["streamlines_per_second"] == pytest.approx(row["streamlines"] / row["seconds"])
    text = (of_streamlines / "connectome.md").read_text()
    assert "| read, assign and count | 1 |" in text


def test_weights_of_the_same_streamlines_give_figures_that_are_possible(of_streamlines):
    report = json.loads((of_streamlines / "sift2.json").read_text())
    counted = json.loads((of_streamlines / "connectome.json").read_text())
    assert report["scene"] == counted["scene"]
    (row,) = report["contenders"]
    assert (row["name"], row["streamlines"]) == ("weights", report["scene"]["streamlines"])
    assert row["iterations"] >= 1
    steps = [row[f"{step}_seconds"] for step in ("segmentation", "mapping", "fit")]
    assert 0 < min(steps) < sum(steps) <= row["seconds"] < 60
    assert row["streamlines_per_second"] == pytest.approx(row["streamlines"] / row["seconds"])
    text = (of_streamlines / "sift2.md").read_text()
    assert f"| weights | 1 | {row['streamlines']:,.0f} |" in text


@pytest.fixture
def in_this_process(monkeypatch):
    """Run jobs of learning here: a program takes seconds to be loaded."""
    monkeypatch.syspath_prepend(RUN.parent)
    import measure
    from learning.jobs import JOBS, Job

    def contender(part, name, scene, threads, **options):
        assert (part, threads) == ("learning", 1)
        return JOBS[name](Job.load({"scene": str(scene)} | options))

    monkeypatch.setattr(measure, "contender", contender)


@pytest.mark.usefixtures("in_this_process")
def test_steps_of_learning_a_coarse_phantom_give_figures_that_are_possible(tmp_path):
    import run as program

    words = ("learning", *ONCE, "--phantom-voxel-size-mm", 6, "--seeds", 200)
    ours = ("--contenders", "fodf_step", "kernel_step")
    program.main([*map(str, words), *ours, "--output", str(tmp_path)])
    report = json.loads((tmp_path / "learning.json").read_text())
    assert report["scene"]["voxels_in_mask"] > 5000
    rows = rows_of(report)
    assert rows["fodf_step"]["vertices"] == rows["fodf_step"]["streamlines"] == 0
    assert 10 < rows["kernel_step"]["streamlines"] <= 200
    # The shortest kept has 51 vertices.
    assert rows["kernel_step"]["vertices"] >= 51 * rows["kernel_step"]["streamlines"]
    for row in rows.values():
        assert 0 < row["backward_seconds"] < row["seconds"] < 60
        assert row["steps_per_second"] == pytest.approx(1 / row["seconds"])
    (ratio,) = report["ratios"]
    assert ratio["what"] == "step: with streamlines / fODF alone"
    text = (tmp_path / "learning.md").read_text()
    assert f"| 1 | 200 | {rows['kernel_step']['streamlines']:.0f} |" in text


def test_both_propagators_take_the_same_step_of_learning(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(RUN.parent)
    from learning.jobs import Job, kernel_step, reference_step
    from learning.scene import write

    write(simulated_scan("01", n_directions=60, lmax=8), tmp_path)
    ours, reference = (step(Job(tmp_path, 150)) for step in (kernel_step, reference_step))
    assert ours["streamlines"] > 10
    assert ours["vertices"] == reference["vertices"]
    assert ours["loss"] == pytest.approx(reference["loss"], rel=1e-3)


def test_ratios_are_of_rates_core_count_by_core_count_and_with_one_core(monkeypatch):
    monkeypatch.syspath_prepend(RUN.parent)
    from compare import Ratio, ratios

    rates = {("a", 1): 6.0, ("a", 2): 9.0, ("b", 1): 2.0}
    rows = [
        {"name": name, "label": name.upper(), "threads": threads, "per_second": rate}
        for (name, threads), rate in rates.items()
    ]
    found = ratios(
        rows, [Ratio("a / b", "a", "b", ">= 1"), Ratio("a / c", "a", "c")], "per_second"
    )
    assert [(row["what"], row["threads"], row["value"]) for row in found] == [
        ("a / b", 1, 3.0),
        ("A: more cores / one", 2, 1.5),
    ]


def test_contenders_take_turns_and_slow_ones_run_once(monkeypatch):
    monkeypatch.syspath_prepend(RUN.parent)
    from compare import Contender, alternate

    turns = []

    def running(name):
        def run(threads, amount):
            turns.append((name, threads, amount))
            return {"seconds": float(len(turns)), "things": amount}

        return run

    both = [
        Contender("fast", "fast", running("fast")),
        Contender("slow", "slow", running("slow"), share=0.5, once=True),
    ]
    rows = alternate(both, 1000, repeats=3, threads=[1], rates={"rate": "things"})
    one, half = ("fast", 1, 1000), ("slow", 1, 500)
    assert turns == [one, half, one, one]
    assert [row["all_seconds"] for row in rows] == [[1.0, 3.0, 4.0], [2.0]]
    assert [row["rate"] for row in rows] == [1000 / 3, 500 / 2]


def test_without_mrtrix_its_comparison_is_left_out_and_that_is_said(deconvolution, problems):
    folder, said = deconvolution
    assert "dwi2fod is not installed" in said
    assert not any("agreement" in problem for problem in problems.values())
    text = (folder / "deconvolution.md").read_text()
    assert "| forward + gradient | 1 | 300 |" in text
    assert "no MRtrix3" in text


@pytest.mark.external
@pytest.mark.skipif(shutil.which("dwi2fod") is None, reason="MRtrix3 is not on the PATH")
def test_beside_dwi2fod_rates_are_compared_and_coefficients_are_the_same(deconvolution, tmp_path):
    cache = ("--cache", deconvolution[0] / "scene")
    words = ("--contenders", "dwi2fod", "forward", "--skip", "growth", "lmax", "first-calls")
    run(tmp_path, "deconvolution", *ONCE, *COARSE, *cache, *words)
    report = json.loads((tmp_path / "deconvolution.json").read_text())
    for problem in report["problems"]:
        rows = rows_of(problem)
        # The last row of the image that it reads is not cut short.
        assert rows["dwi2fod"]["voxels"] % 20 == 0
        (ratio,) = problem["ratios"]
        assert ratio["what"] == f"voxels/s: forward / dwi2fod {problem['name']}"
        assert problem["agreement"]["voxels"] > 90
        assert problem["agreement"]["median"] < 1e-6
