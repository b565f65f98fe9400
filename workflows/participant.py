"""One participant: every diffusion run on its own, then the report of all."""

from __future__ import annotations

from niworkflows.engine.workflows import LiterateWorkflow

from difftract_bids.bids.labels import participant_wf_name
from difftract_bids.bids.plan import Plan
from difftract_bids.workflows.finishing import add_finish
from difftract_bids.workflows.run import init_run_wf


def init_participant_wf(
    plan: Plan, participant: str, *, omp_nthreads: int = 1, run_uuid: str = "library"
) -> LiterateWorkflow:
    """Build the graph of one participant.

    Parameters
    ----------
    plan
        What to do, on which files.
    participant
        Label, without the ``sub-``.
    omp_nthreads
        CPUs that one step may use.
    run_uuid
        Identifier of the run of the app, the name of its folder of logs.

    Examples
    --------
    >>> from pathlib import Path
    >>> from difftract_bids.bids.plan import make_plan
    >>> from difftract_bids.config import Config
    >>> from difftract_bids.workflows.participant import init_participant_wf
    >>> plan = make_plan(Path("bids"), Path("out"), Path("work"), Config())
    >>> workflow = init_participant_wf(plan, "01", omp_nthreads=4)
    >>> "dwi_wf.tracking_wf.track" in workflow.list_node_names()
    True
    """
    workflow = LiterateWorkflow(name=participant_wf_name(participant))
    runs = [
        (run, init_run_wf(plan, run, omp_nthreads=omp_nthreads)) for run in plan.of(participant)
    ]
    workflow.add_nodes([graph for _, graph in runs])
    add_finish(workflow, plan, runs, participant, run_uuid=run_uuid)
    return workflow
