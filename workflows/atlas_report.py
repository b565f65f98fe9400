"""What the report shows once per atlas, and what is checked."""

from __future__ import annotations

from collections.abc import Collection

from niworkflows.engine.workflows import LiterateWorkflow

from difftract_bids.bids.figures import edge_measures, told_measures
from difftract_bids.bids.plan import Plan
from difftract_bids.bids.runs import DWIRun
from difftract_bids.interfaces.alignment_checks import CheckParcellation
from difftract_bids.interfaces.reportlets.connectome import (
    PlotConnectome,
    PlotEdges,
    PlotNodes,
    PlotParcellation,
)
from difftract_bids.interfaces.reportlets.interactive import PlotMatrixView
from difftract_bids.workflows.drawing import begin_drawing


def init_atlas_report_wf(
    plan: Plan,
    run: DWIRun,
    atlas: str,
    *,
    given: Collection[str] | None = None,
    name: str = "report_wf",
) -> LiterateWorkflow:
    """Draw and check what there is once per atlas.

    Parameters
    ----------
    plan, run
        What was done.
    atlas
        Name of the atlas.
    given
        Inputs that are going to have a value; all that the settings ask for, if left out.
    name
        Name of the workflow.

    Inputs
    ------
    dwiref, mask, fa
        Reference image, brain mask and anisotropy of the run.
    parcellation, table
        Label image on the same grid, and its node table.
    streamlines, nodeindices
        Streamline count matrix, and where its nodes are.
    sift2, meanfa, meanmd, meanlength
        Other matrices, as far as the settings ask for them.

    Outputs
    -------
    checks
        What was found.

    Examples
    --------
    >>> from pathlib import Path
    >>> from difftract_bids.bids.plan import make_plan
    >>> from difftract_bids.config import Config
    >>> from difftract_bids.workflows.atlas_report import init_atlas_report_wf
    >>> plan = make_plan(Path("bids"), Path("out"), Path("work"), Config())
    >>> workflow = init_atlas_report_wf(plan, plan.runs[0], "ICBM100")
    >>> sorted(workflow.inputs.inputnode.get())[:4]
    ['dwiref', 'fa', 'mask', 'meanfa']
    """
    measures = edge_measures(plan.config)
    images = ["dwiref", "mask", "parcellation"]
    told = told_measures(plan.config)
    fields = [*images, "fa", "table", "streamlines", "nodeindices", *told]
    drawing = begin_drawing(plan, run, fields, name=name, outputs=["checks"], given=given)
    drawing.draw("parcellation", PlotParcellation(), images, atlas=atlas)
    drawing.draw("connectome", PlotConnectome(), {"matrix": "streamlines"}, atlas=atlas)
    drawing.draw("matrix", PlotMatrixView(atlas=atlas), ["streamlines"], wants=told, atlas=atlas)
    lengths = ["meanlength"] if "meanlength" in measures else []
    nodes = {"matrix": "streamlines", "nodeindices": "nodeindices", "mask": "mask"}
    drawing.draw("nodes", PlotNodes(), nodes, wants=lengths, atlas=atlas)
    if measures:
        drawing.draw("edges", PlotEdges(), measures, atlas=atlas)
    check = drawing.step(
        "check_parcellation",
        CheckParcellation(atlas=atlas),
        ["parcellation", "table", "mask", "fa"],
    )
    if check is not None:
        workflow = drawing.workflow
        workflow.connect([(check, workflow.get_node("outputnode"), [("checks", "checks")])])
    return drawing.workflow
