"""The whole app: one graph for all participants, so that their steps share the machine."""

from __future__ import annotations

from niworkflows.engine.workflows import LiterateWorkflow

from difftract_bids import __version__
from difftract_bids.bids.labels import participant_wf_name
from difftract_bids.bids.plan import Plan
from difftract_bids.workflows.participant import init_participant_wf


def init_difftract_wf(
    plan: Plan,
    *,
    omp_nthreads: int = 1,
    run_uuid: str = "library",
    name: str = "difftract_wf",
) -> LiterateWorkflow:
    """Build the graph of a planned run.

    Parameters
    ----------
    plan
        What to do, on which files.
    omp_nthreads
        CPUs that one step may use.
    run_uuid
        Identifier of the run of the app, the name of its folder of logs.
    name
        Name of the workflow, and of its folder in the working folder.

    Examples
    --------
    >>> from pathlib import Path
    >>> from difftract_bids.bids.plan import make_plan
    >>> from difftract_bids.config import Config
    >>> from difftract_bids.workflows.app import init_difftract_wf
    >>> plan = make_plan(Path("bids"), Path("out"), Path("work"), Config(), participants=["01"])
    >>> workflow = init_difftract_wf(plan, omp_nthreads=4)
    >>> len(workflow.list_node_names()) > 50
    True
    >>> graph = workflow.run()  # minutes to hours  # doctest: +SKIP
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
        workflow.add_nodes(
            [init_participant_wf(plan, participant, omp_nthreads=omp_nthreads, run_uuid=run_uuid)]
        )
    return workflow


def methods_of(workflow: LiterateWorkflow, participant: str) -> str:
    """Give the methods text of one participant.

    Parameters
    ----------
    workflow
        The whole app's.
    participant
        Label, without the ``sub-``.
    """
    own = workflow.get_node(participant_wf_name(participant))
    return f"{workflow.__desc__}{own.visit_desc()}{workflow.__postdesc__}"
