"""Reports are made anew of what there is, and the terminal says what they show."""

import shutil
from pathlib import Path

import pytest
from datasets import write_dataset

from difftract_bids.bids.outputs import output_path
from difftract_bids.bids.pages import page_path, snippet_path
from difftract_bids.bids.plan import make_plan
from difftract_bids.bids.records import new_record, record_path, void_record
from difftract_bids.checks.table import write_checks
from difftract_bids.checks.verdict import Check
from difftract_bids.cli.checking import check_participant
from difftract_bids.cli.execution import Execution
from difftract_bids.cli.notices import of_figures
from difftract_bids.cli.outcomes import Outcome
from difftract_bids.cli.plugins.plugin_file import PluginChoice
from difftract_bids.cli.provenance import write_failure
from difftract_bids.cli.resources import Resources
from difftract_bids.cli.stopping import Stopped, Stopping
from difftract_bids.cli.work import REDRAWING, Work, clean_up
from difftract_bids.config import Config
from difftract_bids.io.atomic import write_json
from difftract_bids.reports.placeholder import write_placeholder


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("raw") / "bids", ["01", "02"])


@pytest.fixture
def plan(raw, tmp_path, monkeypatch):
    """Two participants of whom everything is there, and pages that are put together at once."""
    plan = make_plan(raw, tmp_path / "out", tmp_path / "work", Config())
    for run in plan.runs:
        for path in plan.promised(run):
            (plan.output_dir / path).parent.mkdir(parents=True, exist_ok=True)
            (plan.output_dir / path).write_text("x")
        record = new_record(plan, run, run_uuid="u")
        write_json(plan.output_dir / record_path(run.stem), record)

    def assemble(plan, participant, _):
        (plan.output_dir / page_path(participant)).write_text("page")

    monkeypatch.setattr("difftract_bids.cli.checking._assemble", assemble)
    return plan


def checked(plan, *, rebuild=True, known=None):
    return check_participant(plan, "01", known, run_uuid="u", rebuild=rebuild)


def saved(plan, key):
    return plan.output_dir / output_path(plan.runs[0], key, plan.config)


def figure(plan, name, participant="01"):
    folder = plan.output_dir / f"sub-{participant}" / "figures"
    return folder / f"sub-{participant}_{name}"


def test_reports_of_an_earlier_version_are_made_without_what_it_did_not_have(plan):
    shutil.rmtree(figure(plan, "x").parent)
    saved(plan, "checks").unlink()
    saved(plan, "checks").with_suffix(".json").unlink()
    assert checked(plan).status == "done"
    assert (plan.output_dir / "sub-01.html").is_file()
    assert checked(plan, rebuild=False).status == "failed"


def test_reports_do_not_stand_in_for_results(plan):
    saved(plan, "fa").unlink()
    outcome = checked(plan)
    assert outcome.status == "failed"
    assert saved(plan, "fa").name in outcome.reason


def test_a_run_that_failed_half_way_is_not_done_by_making_its_report(plan):
    void_record(plan.output_dir, plan.runs[0].stem)  # begun again, with files of before
    write_failure(plan, "01", "A step failed.")
    outcome = checked(plan)
    assert outcome.status == "failed"
    assert "Not finished" in outcome.reason
    assert (plan.output_dir / snippet_path("failure", "01")).is_file()
    # Of derivatives that came without records nothing of the kind is known.
    (plan.output_dir / record_path(plan.runs[0].stem)).unlink()
    assert checked(plan).status == "done"
    assert not (plan.output_dir / snippet_path("failure", "01")).is_file()


def test_what_others_are_at_work_on_is_left_alone(plan):
    busy = Outcome("busy", "Another process.")
    assert checked(plan, known=busy) == busy
    assert not (plan.output_dir / "sub-01.html").exists()
    assert Work((), {"01": busy}).owned(plan).participants == ["02"]
    assert Work((), {"01": Outcome("skipped")}).owned(plan).participants == ["01", "02"]


def test_the_terminal_names_what_checks_found(plan):
    lights = [("Mask", "bad"), ("Mask", "bad"), ("T1w", "look"), ("FA", "good"), ("X", "unknown")]
    checks = [Check("x", title, light, "Found.") for title, light in lights]
    write_checks(checks, saved(plan, "checks"))
    assert checked(plan) == Outcome("done", "Wrong: Mask. Look at: T1w.")
    skipped = Outcome("skipped", "Finished before.")
    assert checked(plan, known=skipped).reason == "Wrong: Mask. Look at: T1w."
    # Not again whenever it is looked whether something is left to do.
    assert checked(plan, known=skipped, rebuild=False) == skipped
    write_checks(checks[3:], saved(plan, "checks"))
    assert checked(plan) == Outcome("done")
    saved(plan, "checks").write_text("no table")
    assert checked(plan) == Outcome("done")


def test_figures_that_could_not_be_drawn_are_named_with_the_reason(plan):
    error = ValueError("no voxel")
    write_placeholder(figure(plan, "desc-fa_dwi.svg"), error)
    write_placeholder(figure(plan, "desc-view3d_dwi.html"), error)
    write_placeholder(plan.output_dir / "sub-01.html", error)
    # Left by a run with other settings, and of somebody else.
    write_placeholder(figure(plan, "desc-old_dwi.svg"), error)
    write_placeholder(figure(plan, "desc-fa_dwi.svg", "02"), error)
    names = ["sub-01_desc-fa_dwi.svg", "sub-01_desc-view3d_dwi.html", "sub-01.html"]
    said = "WARNING: {} could not be drawn: ValueError: no voxel."
    assert of_figures(plan, ["01"]) == [said.format(name) for name in names]
    assert of_figures(plan, []) == []


def test_of_many_such_figures_the_first_are_named_and_the_others_counted(plan):
    for run in plan.runs:
        for path in plan.promised(run):
            if "/figures/" in path:
                write_placeholder(plan.output_dir / path, ValueError("x"))
    n_figures = sum("/figures/" in path for run in plan.runs for path in plan.promised(run))
    lines = of_figures(plan, ["01", "02"])
    assert len(lines) == 6
    assert lines[-1] == f"WARNING: {n_figures - 5} more figure(s) could not be drawn."


def execution(plan, **settings):
    resources = Resources(n_procs=2, omp_nthreads=1, mem_gb=4.0)
    return Execution(resources, plan.output_dir / "logs" / "u", Stopping(), **settings)


@pytest.fixture
def executed(monkeypatch):
    """Graphs that are run, and the folders that they are run in; nothing is."""
    graphs = []

    def execute(_, workflow, folder):
        assert Path(workflow.base_dir) == folder
        (folder / "half a figure").write_text("x")
        graphs.append((workflow, folder))

    monkeypatch.setattr(Execution, "_execute", execute)
    return graphs


def test_figures_are_drawn_in_a_folder_that_is_gone_afterwards(plan, executed):
    execution(plan).redraw(plan)
    ((workflow, folder),) = executed
    assert folder.parent == plan.scratch_dir
    assert not folder.exists()
    participants = {step.split(".")[0] for step in workflow.list_node_names()}
    assert participants == {"sub_01_wf", "sub_02_wf"}


def test_where_nothing_can_be_drawn_no_graph_is_run(plan, executed):
    for run in plan.runs:
        (plan.output_dir / output_path(run, "mask", plan.config)).unlink()
    execution(plan).redraw(plan)
    execution(plan).redraw(plan.restricted([]))
    assert executed == []


def test_a_failing_step_is_a_warning_and_being_stopped_an_end(plan, monkeypatch, capsys):
    def fail(*_):
        raise RuntimeError("Traceback:\n\tline 1\nValueError: no tractogram\n")

    def stop(own, *_):
        own.stopping.number = 15
        raise RuntimeError("interrupted, as Nipype has it")

    monkeypatch.setattr(Execution, "_execute", fail)
    execution(plan).redraw(plan)
    said = "WARNING: Not all figures could be drawn again: ValueError: no tractogram\n"
    assert capsys.readouterr().out == said
    monkeypatch.setattr(Execution, "_execute", stop)
    with pytest.raises(Stopped):
        execution(plan).redraw(plan)
    assert list(plan.scratch_dir.iterdir()) == []


@pytest.mark.parametrize("name", ["SLURM", "MultiProc"])
def test_what_a_batch_system_is_told_is_not_told_to_the_processes_that_draw(plan, name):
    choice = PluginChoice(name, {"template": "#!/bin/sh", "max_jobs": 3})
    told = execution(plan, plugin=choice)._local_args(None)
    assert ("template" in told) == (name == "MultiProc")
    assert told["n_procs"] == 2


def test_clearing_up_leaves_the_folder_in_which_others_are_drawing(plan):
    folder = plan.scratch_dir / f"{REDRAWING}abc"
    folder.mkdir(parents=True)
    clean_up(plan)
    assert folder.is_dir()
    folder.rmdir()
    clean_up(plan)
    assert not plan.scratch_dir.exists()
