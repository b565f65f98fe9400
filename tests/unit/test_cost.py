"""What steps took: measured around each, kept beside its result, and told by stage."""

from __future__ import annotations

import gzip
import json
import pickle
import re
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from nipype.interfaces.base import Bunch
from nipype.interfaces.base.support import InterfaceResult
from nipype.interfaces.utility import Function, Merge
from nipype.pipeline import engine as pe

from difftract_bids import cost as measuring
from difftract_bids.cli.plugins.multiproc import run_noted
from difftract_bids.cost import COST_FILE, Cost, Meter
from difftract_bids.interfaces.reportlets.cost import SummariseCost
from difftract_bids.io.step_costs import StepCost, read_noted, read_step_costs
from difftract_bids.reports.page.cost import duration, stages_of, started_at, write_cost_html

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
needs_peaks = pytest.mark.skipif(
    Meter().read().peak_memory_gb is None, reason="the system does not tell peaks of memory"
)


def fill(n_mb):
    return len(b"x" * n_mb * 10**6)


def fail():
    raise ValueError


def step_of(folder, name, function=fill, **inputs):
    interface = Function(function=function, output_names=["out"])
    return pe.Node(interface, name=name, base_dir=str(folder), **inputs)


def run(node, tmp_path):
    return run_noted(node, updatehash=False, taskid=1, note=tmp_path / "note")["traceback"]


@needs_peaks
def test_the_memory_of_a_step_is_its_own_and_not_that_of_one_before(tmp_path):
    for name, n_mb in (("large", 300), ("small", 1)):
        node = step_of(tmp_path, name)
        node.inputs.n_mb = n_mb
        assert run(node, tmp_path) is None
    large, small = (Cost.load(tmp_path / name) for name in ("large", "small"))
    assert large.peak_memory_gb - large.held_memory_gb == pytest.approx(0.3, abs=0.03)
    assert small.peak_memory_gb - small.held_memory_gb < 0.03
    assert large.peak_memory_gb - small.peak_memory_gb == pytest.approx(0.3, abs=0.03)


@needs_peaks
@pytest.mark.parametrize(
    ("last_mb", "is_known"), [(500, True), (200, False)], ids=["a larger one", "a smaller one"]
)
def test_the_memory_of_a_program_counts_where_it_can_be_told_from_that_of_others(
    last_mb, is_known
):
    # In a process of its own: the system remembers the largest program that a process ever ran.
    script = """if True:
        import subprocess, sys
        from difftract_bids.cost import Meter
        def use(n_mb):
            subprocess.run([sys.executable, "-c", f"b'x' * {n_mb} * 10**6"], check=True)
        for n_mb in (350, int(sys.argv[1])):
            meter = Meter()
            use(n_mb)
            print(meter.read().peak_memory_gb, meter.read().held_memory_gb)
    """
    done = subprocess.run(
        [sys.executable, "-c", script, str(last_mb)], capture_output=True, text=True, check=True
    )
    first, last = (line.split() for line in done.stdout.splitlines())
    assert float(first[0]) == pytest.approx(0.36, abs=0.03)
    assert first[1] == "0.0"
    if is_known:
        assert float(last[0]) == pytest.approx(0.51, abs=0.03)
    else:
        assert last == ["None", "None"]


def test_where_peaks_cannot_begin_anew_memory_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "_CLEAR_REFS", tmp_path / "no" / "such" / "file")
    node = step_of(tmp_path, "one")
    node.inputs.n_mb = 1
    assert run(node, tmp_path) is None
    content = json.loads((tmp_path / "one" / COST_FILE).read_text())
    assert "PeakMemoryGB" not in content
    assert content["CPUs"] == 1
    assert Cost.load(tmp_path / "one").peak_memory_gb is None


def test_cpu_time_counts_programs_and_is_not_that_of_the_clock():
    meter = Meter()
    subprocess.run([sys.executable, "-c", "sum(range(10**7))"], check=True)
    subprocess.run(["sleep", "0.3"], check=True)
    programs = meter.read().cpu_seconds
    begun = time.process_time()
    while time.process_time() < begun + 0.2:
        pass
    before = datetime.now(UTC)
    cost = meter.read(n_cpus=3)
    assert 0.05 < programs < cost.cpu_seconds - 0.2 < cost.seconds - 0.4
    assert cost.n_cpus == 3
    assert before <= cost.ended <= datetime.now(UTC)


def test_a_reused_step_keeps_what_it_took_and_one_that_runs_again_does_not(tmp_path):
    for n_mb, is_new in ((1, True), (1, False), (2, True)):
        node = step_of(tmp_path, "one")
        node.inputs.n_mb = n_mb
        kept = Cost.load(tmp_path / "one")
        assert run(node, tmp_path) is None
        assert (Cost.load(tmp_path / "one") != kept) == is_new
    # Nor does it get that of being looked at, if an earlier version did not measure.
    (tmp_path / "one" / COST_FILE).unlink()
    assert run(node, tmp_path) is None
    assert not (tmp_path / "one" / COST_FILE).exists()


def test_what_cannot_be_kept_fails_no_step(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Cost, "save", full)
    node = step_of(tmp_path, "one")
    node.inputs.n_mb = 1
    assert run(node, tmp_path) is None
    assert "ValueError" in "".join(run(step_of(tmp_path, "two", fail), tmp_path))


def test_a_cost_comes_back_from_its_file_as_it_was_and_nothing_is_left_beside_it(tmp_path):
    for cost in (Cost(NOON, 1.5, 2.25, 0.75, 0.5, 4), Cost(NOON, 0.0)):
        cost.save(tmp_path)
        assert Cost.load(tmp_path) == cost
    assert [path.name for path in tmp_path.iterdir()] == [COST_FILE]


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", "{}", '{"Began": "noon", "Seconds": 1}',
        '{"Began": 5, "Seconds": 1}', '{"Began": "2026-03-04T12:00:00", "Seconds": 1}',
        '{"Began": "2026-03-04T12:00:00+00:00", "Seconds": -1}',
        '{"Began": "2026-03-04T12:00:00+00:00", "Seconds": NaN}', "\udcff",
    ],
)  # fmt: skip
def test_a_broken_file_is_none(tmp_path, text):
    (tmp_path / COST_FILE).write_bytes(text.encode(errors="surrogateescape"))
    assert Cost.load(tmp_path) is None


def test_a_figure_that_makes_no_sense_is_left_out_alone(tmp_path):
    began = NOON.isoformat()
    content = {"Began": began, "Seconds": 2, "CPUSeconds": "x", "PeakMemoryGB": -1, "CPUs": True}
    (tmp_path / COST_FILE).write_text(json.dumps(content))
    assert Cost.load(tmp_path) == Cost(NOON, 2)


@pytest.fixture
def folder(tmp_path):
    """A workflow that Nipype ran alone, step by step in its own process."""
    workflow = pe.Workflow("dwi_wf", base_dir=str(tmp_path))
    inner = pe.Workflow("fodf_wf")
    step, merge = step_of(tmp_path, "response"), pe.Node(Merge(1), name="notes")
    step.inputs.n_mb = 1
    inner.add_nodes([step])
    workflow.connect([(inner, merge, [("response.out", "in1")])])
    workflow.run()
    return tmp_path / "dwi_wf"


def test_of_steps_that_nipype_ran_alone_its_results_tell_the_time(folder):
    before, *after = read_step_costs(folder)
    assert (before.step, [one.step for one in after]) == ("fodf_wf.response", ["notes"])
    assert 0 < before.cost.seconds < 60
    assert abs(before.cost.ended - datetime.now(UTC)) < timedelta(minutes=1)
    assert before.cost.cpu_seconds is before.cost.peak_memory_gb is None
    assert [one.step for one in read_step_costs(folder, ["notes", "gone"])] == ["notes"]


def test_what_the_app_measured_counts_more_than_what_nipype_noted(folder):
    measured = Cost(NOON, 9.0, 12.0, 0.5, 0.25, 2)
    measured.save(folder / "fodf_wf" / "response")
    assert read_step_costs(folder)[0] == StepCost("fodf_wf.response", measured)


def write_result(path, **noted):
    times = {"startTime": NOON.isoformat(), "endTime": NOON.isoformat(), "duration": 4.0}
    result = InterfaceResult(Merge, Bunch(**times | noted), inputs={}, outputs=Merge(2).inputs)
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wb") as stream:
        pickle.dump(result, stream)


def test_what_nipypes_monitor_knows_of_memory_is_taken_in_units_of_1000(tmp_path):
    path = tmp_path / "one" / "result_one.pklz"
    write_result(path, mem_peak_gb=np.float64(2.0))
    assert read_noted(path) == Cost(NOON, 4.0, peak_memory_gb=2 * 1.073741824)
    Cost(NOON, 5.0, 6.0).save(path.parent)
    (step,) = read_step_costs(tmp_path)
    assert step.cost == Cost(NOON, 5.0, 6.0, 2 * 1.073741824)


def test_results_that_are_broken_or_strange_are_left_out(tmp_path):
    whole = tmp_path / "whole" / "result_whole.pklz"
    write_result(whole)
    content = whole.read_bytes()
    broken = {
        "empty": b"", "cut": content[: len(content) // 2], "text": b"not a pickle",
        "listed": gzip.compress(pickle.dumps([1, 2])),
        "crashed": gzip.compress(pickle.dumps({"result": None, "traceback": ["..."]})),
    }  # fmt: skip
    for name, data in broken.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / f"result_{name}.pklz").write_bytes(data)
    write_result(tmp_path / "late" / "result_late.pklz", startTime="2027-01-01T00:00:00+00:00")
    assert [one.step for one in read_step_costs(tmp_path)] == ["whole"]


def test_a_result_is_read_without_running_what_is_in_it(tmp_path):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "sprung",)

    path = tmp_path / "one" / "result_one.pklz"
    path.parent.mkdir()
    path.write_bytes(gzip.compress(pickle.dumps(Trap())))
    assert read_noted(path) is None
    assert not (tmp_path / "sprung").exists()


def taken(name, seconds=1.0, *, at_s=0.0, cpu=None, gb=None):
    return StepCost(name, Cost(NOON + timedelta(seconds=at_s), seconds, cpu, gb, gb and gb / 4, 2))


STEPS = [
    taken("preprocessing_wf.part_1_wf.denoise", 100.0, cpu=150.0, gb=1.0),
    taken("preprocessing_wf.finish_wf.mask", 5.0, at_s=100, cpu=5.0, gb=2.0),
    taken("atlas_A_wf.connectome_wf.build", 3.0, at_s=110, cpu=3.0, gb=0.6),
    taken("atlas_A_wf.report_wf.plot_edges", 2.0, at_s=115, cpu=2.0, gb=0.7),
    taken("tracking_wf.track", 60.0, at_s=120, cpu=90.0, gb=0.9),
    taken("report_wf.plot_fa", 4.0, at_s=190, cpu=4.0, gb=0.8),
    taken("sensitivity_A_wf.plot_errors", 1.0, at_s=191),
    taken("MNI_to_dwi_wf.register", 20.0, at_s=192),
    taken("atlas_A_wf.derivatives_wf.ds_count", 0.01, at_s=195),
    taken("new_idea_wf.think", 7.0, at_s=196),
    taken("notes", 0.001, at_s=199),
]


def test_steps_are_grouped_by_stage_in_the_order_of_the_work():
    stages = {one.title: [step.step for step in one.steps] for one in stages_of(STEPS)}
    assert list(stages) == [
        "Preprocessing", "Registration of MNI", "Tracking", "Connectome A", "New idea", "Figures",
        "Saving",
    ]  # fmt: skip
    assert stages["Figures"] == [STEPS[3].step, STEPS[5].step, STEPS[6].step]
    assert stages["Connectome A"] == [STEPS[2].step]
    assert sum(map(len, stages.values())) == len(STEPS) - 1  # all but the joining of lists


def test_a_stage_tells_sums_of_time_and_the_largest_memory():
    preprocessing = stages_of(STEPS)[0]
    assert (preprocessing.seconds, preprocessing.cpu_seconds) == (105.0, 155.0)
    assert preprocessing.largest == STEPS[1]
    assert preprocessing.slowest == STEPS[0]


def test_what_ended_before_the_app_began_was_reused():
    started = NOON + timedelta(seconds=102)  # while the mask was made: this run made it
    preprocessing, *others = stages_of(STEPS, started)
    assert preprocessing.reused == {STEPS[0].step}
    assert preprocessing.reused_seconds == 100.0
    assert not any(one.reused for one in others)
    assert started_at("20260304T120142Z_0a1b2c3d") == started
    assert started_at("library") is None


def text_of(path):
    text = re.sub(r"<style>.*?</style>|<[^>]+>", " ", path.read_text(), flags=re.DOTALL)
    return " ".join(text.split())


def rows_of(path):
    rows = re.findall(r"<tr>(.*?)</tr>", path.read_text(), flags=re.DOTALL)
    return [" ".join(re.sub(r"<[^>]+>", " ", row).split()) for row in rows]


def test_the_table_tells_of_each_stage_and_of_all(tmp_path):
    rows = rows_of(write_cost_html(STEPS, tmp_path / "cost.html"))
    assert rows[1] == (
        "Preprocessing 1 min 45 s 2 min 35 s 2.00 GB finish mask part 1 denoise 1 min 40 s"
    )
    assert rows[2] == "Registration of MNI 20.0 s not measured not measured register, its only one"
    assert rows[6].startswith("Figures 7.0 s at least 6.0 s at least 0.80 GB fa")
    assert rows[7] == (
        "Saving &lt; 0.1 s by the app itself by the app itself A count, its only one"
    )
    assert rows[-1] == "All stages 3 min 22 s at least 4 min 14 s at least 2.00 GB"
    assert "3 min 32 s passed" in text_of(tmp_path / "cost.html")
    assert "not run again" not in text_of(tmp_path / "cost.html")


def test_the_longest_bar_fills_its_place_and_others_their_share(tmp_path):
    text = write_cost_html(STEPS, tmp_path / "cost.html").read_text()
    widths = {
        kind: [float(width) for width in re.findall(rf'"{kind}" style="width: ([\d.]+)%', text)]
        for kind in ("time", "memory", "memory before")
    }
    assert widths["time"][0] == 100.0
    assert widths["time"][2] == pytest.approx(100 * 60 / 105, abs=0.1)
    assert widths["memory"][:2] == [75.0, 33.8]  # of 2 GB and of 0.9
    assert widths["memory before"][:2] == [25.0, 11.2]


def test_the_table_tells_how_much_was_reused_and_of_when_it_is(tmp_path):
    old = [replace(one, cost=replace(one.cost, began=NOON - timedelta(days=2))) for one in STEPS]
    mixed = [*old[:2], *STEPS[2:]]
    text = text_of(write_cost_html(mixed, tmp_path / "cost.html", started=NOON))
    assert f"2 of {len(STEPS)} steps were not run again" in text
    assert "(2026-03-02, UTC), which took 1 min 45 s" in text
    assert "Preprocessing (reused)" in text
    assert "1 min 42 s passed from the beginning of the first step of this run" in text
    bar = '<i class="time before" style="width: 100.0%"></i></span>'  # nothing of it is new
    assert bar in (tmp_path / "cost.html").read_text()
    text = text_of(write_cost_html(old, tmp_path / "all.html", started=NOON))
    assert "No step was run again" in text
    assert "passed" not in text


def test_times_have_the_figures_that_matter():
    given = (0.049, 0.05, 59.94, 59.96, 119.6, 3599.4, 3599.9, 7300)
    assert [duration(seconds) for seconds in given] == [
        "< 0.1 s", "0.1 s", "59.9 s", "1 min 00 s", "2 min 00 s", "59 min 59 s", "1 h 00 min",
        "2 h 02 min",
    ]  # fmt: skip


def test_the_interface_looks_beside_its_own_folder_and_runs_each_time(folder):
    interface = SummariseCost(folder="../dwi_wf", steps=["fodf_wf.response"])
    node = pe.Node(interface, name="cost_dwi", base_dir=str(folder.parent))
    path = Path(node.run().outputs.out_report)
    assert [row.split(" &lt;")[0] for row in rows_of(path)[1:-1]] == ["Tensors and fODFs"]
    Cost(NOON, 42.0).save(folder / "fodf_wf" / "response")
    node.run()
    assert "42.0 s" in text_of(path)


@pytest.mark.parametrize("where", ["gone", "file", "/proc/1/fd/nothing"])
def test_a_folder_that_cannot_be_read_gives_a_sentence(tmp_path, where):
    (tmp_path / "file").write_text("a file")
    interface = SummariseCost(folder=f"../{where}" if where[0] != "/" else where)
    node = pe.Node(interface, name="cost", base_dir=str(tmp_path))
    assert "is not known" in text_of(Path(node.run().outputs.out_report))
