"""What the report shows of tissues and templates, and what is checked."""

from __future__ import annotations

from collections.abc import Collection

from niworkflows.engine.workflows import LiterateWorkflow

from difftract_bids.bids.plan import Plan
from difftract_bids.bids.runs import DWIRun
from difftract_bids.interfaces.alignment_checks import CheckTemplate
from difftract_bids.interfaces.reportlets.anatomy import PlotFiveTissueTypes, PlotRegistration
from difftract_bids.interfaces.reportlets.flickers import FlickTemplate
from difftract_bids.workflows.drawing import begin_drawing


def init_tissue_report_wf(
    plan: Plan, run: DWIRun, *, name: str = "tissue_report_wf"
) -> LiterateWorkflow:
    """Draw the tissues of a run.

    Parameters
    ----------
    plan, run
        What was done.
    name
        Name of the workflow.

    Inputs
    ------
    five_tissue_types, t1w
        Tissues and T1w in the space of the run.

    Examples
    --------
    >>> from pathlib import Path
    >>> from difftract_bids.bids.plan import make_plan
    >>> from difftract_bids.config import Config
    >>> from difftract_bids.workflows.anatomy_report import init_tissue_report_wf
    >>> plan = make_plan(Path("bids"), Path("out"), Path("work"), Config())
    >>> workflow = init_tissue_report_wf(plan, plan.runs[0])
    >>> workflow.inputs.inputnode.t1w = Path("t1w_dwi.nii.gz").absolute()
    >>> sorted(workflow.list_node_names())
    ['ds_tissue', 'inputnode', 'plot_tissue']
    """
    fields = ["five_tissue_types", "t1w"]
    drawing = begin_drawing(plan, run, fields, name=name)
    drawing.draw("tissue", PlotFiveTissueTypes(), fields)
    return drawing.workflow


def init_template_report_wf(
    plan: Plan,
    run: DWIRun,
    template: str,
    template_t1w: str,
    *,
    given: Collection[str] | None = None,
) -> LiterateWorkflow:
    """Draw and check how a template lies on a run.

    Parameters
    ----------
    plan, run
        What was done.
    template, template_t1w
        Name of the template, and its T1w without skull.
    given
        Inputs that are going to have a value; all, if left out.

    Inputs
    ------
    t1w, mask
        T1w, or what stands in for it, and brain mask in the space of the run.
    warp, affine
        From the template to that space.

    Outputs
    -------
    checks
        What was found.

    Examples
    --------
    >>> from pathlib import Path
    >>> from difftract_bids.bids.plan import make_plan
    >>> from difftract_bids.config import Config
    >>> from difftract_bids.workflows.anatomy_report import init_template_report_wf
    >>> plan = make_plan(Path("bids"), Path("out"), Path("work"), Config())
    >>> name, t1w = next(iter(plan.templates_of(plan.runs[0]).items()))
    >>> workflow = init_template_report_wf(plan, plan.runs[0], name, str(t1w))
    >>> workflow.name
    'MNI152NLin2009aSym_report_wf'
    """
    drawing = begin_drawing(
        plan,
        run,
        ["t1w", "mask", "warp", "affine"],
        name=f"{template}_report_wf",
        outputs=["checks"],
        given=given,
    )
    needs, wants = ["t1w", "mask", "warp"], ["affine"]
    image = {"template": template_t1w}
    shown = "T1w" if run.t1w is not None else "image of FA and MD, which stands in for a T1w,"
    drawing.draw("template", PlotRegistration(**image), needs, wants=wants, label=template)
    drawing.draw("templateflicker", FlickTemplate(**image), needs, wants=wants, label=template)
    check = drawing.step(
        "check_template",
        CheckTemplate(name=template, t1w_name=shown, **image),
        needs,
        wants=wants,
        mem_gb=1.5,
    )
    if check is not None:
        workflow = drawing.workflow
        workflow.connect([(check, workflow.get_node("outputnode"), [("checks", "checks")])])
    return drawing.workflow
