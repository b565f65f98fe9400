"""Figures and tables of a participant's report."""

from __future__ import annotations

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from difftract_bids.bids.figures import edge_measures, has_figure
from difftract_bids.bids.plan import Plan
from difftract_bids.bids.runs import DWIRun
from difftract_bids.config import TrackingConfig
from difftract_bids.interfaces.fodf import TISSUE_FIELDS
from difftract_bids.interfaces.reportlets.anatomy import PlotFiveTissueTypes, PlotRegistration
from difftract_bids.interfaces.reportlets.connectome import (
    PlotConnectome,
    PlotEdges,
    PlotParcellation,
)
from difftract_bids.interfaces.reportlets.fodf import PlotFODF, PlotResponse, PlotTissues
from difftract_bids.interfaces.reportlets.images import (
    PlotCoregistration,
    PlotFA,
    PlotGradients,
    PlotMask,
)
from difftract_bids.interfaces.reportlets.motion import PlotMotion
from difftract_bids.interfaces.reportlets.preprocessing import PlotDenoising
from difftract_bids.interfaces.reportlets.streamlines import PlotTractogram
from difftract_bids.interfaces.reportlets.summary import SummariseRun
from difftract_bids.workflows.derivatives import init_report_sink

_FIELDS = [
    "dwi", "bval", "bvec", "mask", "dwiref", "t1w_dwi", "fa", "v1",
    "fodf", "fodf_gm", "fodf_csf", "fodf_metadata", "field",
    "response_wm", "response_gm", "response_csf",
    "preview", "summary", "tractogram_metadata", "counts", "assigned", "notes",
    "raw", "raw_bval", "denoised", "sigma", "confounds", "outliers",
]  # fmt: skip


def init_run_report_wf(plan: Plan, run: DWIRun, *, name: str = "report_wf") -> LiterateWorkflow:
    """Draw what the report shows once per diffusion run.

    Parameters
    ----------
    plan, run
        What was done.
    name
        Name of the workflow.

    Inputs
    ------
    dwi, bval, bvec, mask, dwiref
        The preprocessed run.
    t1w_dwi
        T1w in its space; needed only for runs with a T1w.
    fa, v1, fodf, fodf_metadata
        Tensor maps, fODFs of white matter and their sidecar.
    fodf_gm, fodf_csf, field
        Other tissues, and the normalisation field, of models that have them.
    response_wm, response_gm, response_csf
        Responses of fODFs that were fitted.
    preview, summary, tractogram_metadata
        Some streamlines, ends and lengths of all, and the sidecar of the tractogram.
    counts, assigned
        Streamline count matrix of each atlas, and how many streamlines connect its nodes.
    notes
        What the stages want the user to know.
    raw, raw_bval, denoised, sigma
        A series before denoising, its b-values, the series after denoising, and its noise, if it
        was mapped.
    confounds, outliers
        Tables of motion and of flagged slices, if motion was corrected.

    Examples
    --------
    >>> from pathlib import Path
    >>> from difftract_bids.bids.plan import make_plan
    >>> from difftract_bids.config import Config
    >>> from difftract_bids.workflows.reporting import init_run_report_wf
    >>> plan = make_plan(Path("bids"), Path("out"), Path("work"), Config())
    >>> workflow = init_run_report_wf(plan, plan.runs[0])
    >>> [name for name in sorted(workflow.list_node_names()) if name.startswith("plot_")][:4]
    ['plot_coreg', 'plot_denoising', 'plot_fa', 'plot_fodf']
    """
    workflow = LiterateWorkflow(name=name)
    inputs = pe.Node(niu.IdentityInterface(_FIELDS), name="inputnode")
    threshold = {"b0_threshold_s_mm2": plan.config.preprocessing.b0_threshold_s_mm2}
    # With tensors, the cutoff is one of anisotropy.
    by_peaks = plan.config.tracking.algorithm == "sd_stream"
    cutoff = (plan.config.tracking if by_peaks else TrackingConfig()).resolve(1.0).cutoff
    figures = {
        "gradients": (PlotGradients(**threshold), ["dwi", "bval", "bvec"]),
        "mask": (PlotMask(), ["dwiref", "mask"]),
        "fa": (PlotFA(), ["fa", "v1", "mask"]),
        "fodf": (PlotFODF(cutoff=cutoff), ["fodf", "fa", "mask"]),
        "tractogram": (PlotTractogram(), ["preview", "tractogram_metadata", "mask"]),
        "summary": (
            SummariseRun(
                atlases=[atlas.name for atlas in plan.atlases],
                decisions=[*run.origins, *run.remarks],
                **threshold,
            ),
            [
                "dwi", "bval", "bvec", "summary", "tractogram_metadata", "fodf_metadata",
                "counts", "assigned", "notes",
            ],
        ),
        **_fodf_figures(plan, run, threshold),
        **_preprocessing_figures(plan, run, threshold),
    }  # fmt: skip
    for desc, (interface, fields) in figures.items():
        _draw(workflow, plan, run, desc, interface, inputs, [(field, field) for field in fields])
    if run.t1w is not None:
        pairs = [("dwiref", "dwiref"), ("mask", "mask"), ("t1w_dwi", "t1w")]
        _draw(workflow, plan, run, "coreg", PlotCoregistration(), inputs, pairs)
    return workflow


def _preprocessing_figures(plan, run, threshold):
    """Choose the figures that preprocessing has."""
    figures = {}
    if has_figure("denoising", run, plan.config):
        of_part = ["raw", "raw_bval", "denoised", "sigma"]
        figures["denoising"] = (PlotDenoising(**threshold), of_part)
    if has_figure("motion", run, plan.config):
        figures["motion"] = (PlotMotion(), ["confounds", "outliers"])
    return figures


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
    >>> from difftract_bids.workflows.reporting import init_tissue_report_wf
    >>> plan = make_plan(Path("bids"), Path("out"), Path("work"), Config())
    >>> workflow = init_tissue_report_wf(plan, plan.runs[0])
    >>> workflow.inputs.inputnode.t1w = Path("t1w_dwi.nii.gz").absolute()
    >>> sorted(workflow.list_node_names())
    ['ds_tissue', 'inputnode', 'plot_tissue']
    """
    workflow = LiterateWorkflow(name=name)
    fields = ["five_tissue_types", "t1w"]
    inputs = pe.Node(niu.IdentityInterface(fields), name="inputnode")
    pairs = [(field, field) for field in fields]
    _draw(workflow, plan, run, "tissue", PlotFiveTissueTypes(), inputs, pairs)
    return workflow


def init_template_report_wf(
    plan: Plan, run: DWIRun, template: str, template_t1w: str
) -> LiterateWorkflow:
    """Draw how a template lies on a run.

    Parameters
    ----------
    plan, run
        What was done.
    template, template_t1w
        Name of the template, and its T1w without skull.

    Inputs
    ------
    t1w, mask
        T1w, or what stands in for it, and brain mask in the space of the run.
    warp, affine
        From the template to that space.

    Examples
    --------
    >>> from pathlib import Path
    >>> from difftract_bids.bids.plan import make_plan
    >>> from difftract_bids.config import Config
    >>> from difftract_bids.workflows.reporting import init_template_report_wf
    >>> plan = make_plan(Path("bids"), Path("out"), Path("work"), Config())
    >>> name, t1w = next(iter(plan.templates_of(plan.runs[0]).items()))
    >>> workflow = init_template_report_wf(plan, plan.runs[0], name, str(t1w))
    >>> workflow.name
    'MNI152NLin2009aSym_report_wf'
    """
    workflow = LiterateWorkflow(name=f"{template}_report_wf")
    fields = ["t1w", "mask", "warp", "affine"]
    inputs = pe.Node(niu.IdentityInterface(fields), name="inputnode")
    pairs = [(field, field) for field in fields]
    plot = PlotRegistration(template=template_t1w)
    _draw(workflow, plan, run, "template", plot, inputs, pairs, label=template)
    return workflow


def _fodf_figures(plan, run, threshold):
    """Choose the figures that a model has."""
    model, figures = run.fodf_model, {}
    if model.is_fitted:
        responses = [f"response_{tissue.lower()}" for tissue in model.tissues]
        figures["response"] = (PlotResponse(**threshold), ["dwi", "bval", "bvec", *responses])
    if model.is_multi_tissue:
        shown = [TISSUE_FIELDS[tissue] for tissue in model.tissues]
        shown += ["field"] if plan.config.fodf.normalise_tissues else []
        figures["tissues"] = (PlotTissues(), [*shown, "mask"])
    return figures


def init_atlas_report_wf(
    plan: Plan, run: DWIRun, atlas: str, *, name: str = "report_wf"
) -> LiterateWorkflow:
    """Draw what the report shows once per atlas.

    Parameters
    ----------
    plan, run
        What was done.
    atlas
        Name of the atlas.
    name
        Name of the workflow.

    Inputs
    ------
    dwiref, mask
        Reference image and brain mask of the run.
    parcellation
        Label image on the same grid.
    streamlines
        Streamline count matrix.
    sift2, meanfa, meanlength
        Other matrices, as far as the settings ask for them.

    Examples
    --------
    >>> from pathlib import Path
    >>> from difftract_bids.bids.plan import make_plan
    >>> from difftract_bids.config import Config
    >>> from difftract_bids.workflows.reporting import init_atlas_report_wf
    >>> plan = make_plan(Path("bids"), Path("out"), Path("work"), Config())
    >>> workflow = init_atlas_report_wf(plan, plan.runs[0], "ICBM100")
    >>> sorted(workflow.inputs.inputnode.get())[:4]
    ['dwiref', 'mask', 'meanfa', 'meanlength']
    """
    workflow = LiterateWorkflow(name=name)
    measures = edge_measures(plan.config)
    given = ["dwiref", "mask", "parcellation", "streamlines", *measures]
    inputs = pe.Node(niu.IdentityInterface(given), name="inputnode")
    fields = [(field, field) for field in ("dwiref", "mask", "parcellation")]
    parcellation = PlotParcellation()
    _draw(workflow, plan, run, "parcellation", parcellation, inputs, fields, atlas=atlas)
    fields = [("streamlines", "matrix")]
    matrix = PlotConnectome()
    _draw(workflow, plan, run, "connectome", matrix, inputs, fields, atlas=atlas)
    if measures:
        fields = [(measure, measure) for measure in measures]
        edges = PlotEdges()
        _draw(workflow, plan, run, "edges", edges, inputs, fields, atlas=atlas)
    return workflow


def _draw(workflow, plan, run, desc, interface, inputs, fields, *, atlas=None, label=None):
    node = pe.Node(interface, name=f"plot_{desc}", mem_gb=1.5)
    sink = init_report_sink(plan, run, desc, atlas=atlas, label=label)
    workflow.connect([
        (inputs, node, fields),
        (node, sink, [("out_report", "in_file")]),
    ])  # fmt: skip
