"""Last steps: a run is put on record once all of it is saved, and a participant gets a report."""

from __future__ import annotations

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from difftract_bids.bids.labels import node_label
from difftract_bids.bids.pages import report_sessions, shown_figures
from difftract_bids.bids.plan import Plan
from difftract_bids.bids.records import new_record, record_path
from difftract_bids.bids.runs import DWIRun
from difftract_bids.interfaces.finishing import AssembleReport, RecordFinished
from difftract_bids.interfaces.outputs import DerivativesSink
from difftract_bids.interfaces.reportlets.cost import SummariseCost
from difftract_bids.workflows.derivatives import init_report_sink


def add_finish(
    workflow: LiterateWorkflow,
    plan: Plan,
    runs: list[tuple[DWIRun, LiterateWorkflow]],
    participant: str,
    *,
    run_uuid: str,
) -> None:
    """Add what comes after everything else of a participant.

    Parameters
    ----------
    workflow
        That of the participant, which holds those of the runs.
    plan
        What is done.
    runs
        The participant's runs, each with its graph.
    participant
        Label, without the ``sub-``.
    run_uuid
        Identifier of the run of the app.
    """
    records = pe.Node(niu.Merge(len(runs)), name="records", run_without_submitting=True)
    for place, (run, graph) in enumerate(runs, start=1):
        saved = _all_saved(workflow, graph)
        cost = pe.Node(
            SummariseCost(
                folder=f"../{graph.name}", steps=graph.list_node_names(), run_uuid=run_uuid
            ),
            name=f"cost_{run.node_name}",
            mem_gb=0.3,
        )
        sink = init_report_sink(plan, run, "cost", name=f"ds_cost_{run.node_name}")
        record = init_record_node(plan, run, run_uuid=run_uuid)
        workflow.connect([
            (saved, cost, [("out", "finished")]),
            (cost, sink, [("out_report", "in_file")]),
            (sink, record, [("out_file", "saved")]),
        ])  # fmt: skip
        workflow.connect([(record, records, [("record", f"in{place}")])])
    for session in report_sessions(plan, participant):
        report = pe.Node(
            AssembleReport(
                output_dir=str(plan.output_dir),
                participant=participant,
                run_uuid=run_uuid,
                figures=shown_figures(plan, participant),
            ),
            name=f"report_{node_label(session)}" if session else "report",
            mem_gb=0.5,
        )
        if session:
            report.inputs.session = session
        workflow.connect([(records, report, [("out", "finished")])])


def init_record_node(plan: Plan, run: DWIRun, *, run_uuid: str) -> pe.Node:
    """Make the node that puts a run on record; connect to its ``saved`` what must be done before.

    Parameters
    ----------
    plan, run
        What is done.
    run_uuid
        Identifier of the run of the app.

    Examples
    --------
    >>> from pathlib import Path
    >>> from difftract_bids.bids.plan import make_plan
    >>> from difftract_bids.config import Config
    >>> from difftract_bids.workflows.finishing import init_record_node
    >>> plan = make_plan(Path("bids"), Path("out"), Path("work"), Config())
    >>> node = init_record_node(plan, plan.runs[0], run_uuid="library")
    >>> node.inputs.record
    'logs/finished/sub-01.json'
    """
    record = RecordFinished(
        output_dir=str(plan.output_dir),
        outputs=sorted(set(plan.promised(run))),
        record=str(record_path(run.stem)),
        content=new_record(plan, run, run_uuid=run_uuid),
    )
    name = f"record_{run.node_name}"
    return pe.Node(record, name=name, run_without_submitting=True, mem_gb=0.1)


def _all_saved(workflow, graph):
    """Give a node that waits for every file that a graph saves."""
    sinks = [
        name
        for name in graph.list_node_names()
        if isinstance(graph.get_node(name).interface, DerivativesSink)
    ]
    saved = pe.Node(niu.Merge(len(sinks)), name=f"saved_{graph.name}", run_without_submitting=True)
    files = [(f"{name}.out_file", f"in{place}") for place, name in enumerate(sinks, start=1)]
    workflow.connect([(graph, saved, files)])
    return saved
