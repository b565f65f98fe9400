"""One participant: every diffusion run on its own."""

from __future__ import annotations

from niworkflows.engine.workflows import LiterateWorkflow

from difftract_bids.bids.plan import Plan
from difftract_bids.workflows.run import init_run_wf


def init_participant_wf(
    plan: Plan, participant: str, *, omp_nthreads: int = 1
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
    """
    workflow = LiterateWorkflow(name=f"sub_{participant}_wf")
    for run in plan.of(participant):
        workflow.add_nodes([init_run_wf(plan, run, omp_nthreads=omp_nthreads)])
    return workflow
