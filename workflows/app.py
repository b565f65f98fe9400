"""The whole app: one graph for all participants, so that their steps share the machine."""

from __future__ import annotations

from niworkflows.engine.workflows import LiterateWorkflow

from difftract_bids import __version__
from difftract_bids.bids.plan import Plan
from difftract_bids.workflows.participant import init_participant_wf


def init_difftract_wf(
    plan: Plan, *, omp_nthreads: int = 1, name: str = "difftract_wf"
) -> LiterateWorkflow:
    """Build the graph of a planned run.

    Parameters
    ----------
    plan
        What to do, on which files.
    omp_nthreads
        CPUs that one step may use.
    name
        Name of the workflow, and of its folder in the working folder.
    """
    workflow = LiterateWorkflow(name=name, base_dir=str(plan.scratch_dir))
    workflow.__desc__ = (
        f"Structural connectomes were made with *difftract_bids* {__version__}, a BIDS App "
        "[@gorgolewski2016; @gorgolewski2017] built on Nipype [@gorgolewski2011].\n\n"
    )
    workflow.__postdesc__ = (
        "### Software and figures\n\nImages were read and written with NiBabel [@brett2020] and "
        "NumPy [@harris2020]; figures were drawn with Matplotlib [@hunter2007], colours show "
        "directions [@pajevic1999], and the report was put together with NiReports, which comes "
        "from fMRIPrep [@esteban2019].\n\n"
    )
    for participant in plan.participants:
        workflow.add_nodes([init_participant_wf(plan, participant, omp_nthreads=omp_nthreads)])
    return workflow
