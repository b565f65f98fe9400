"""What the report shows once per diffusion run, and what is checked."""

from __future__ import annotations

from collections.abc import Collection

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from difftract_bids.bids.figures import figure_anchors, has_figure
from difftract_bids.bids.plan import Plan
from difftract_bids.bids.runs import DWIRun
from difftract_bids.bids.stages import has_noise_map, makes_tissue
from difftract_bids.config import Config, TrackingConfig
from difftract_bids.interfaces.alignment_checks import CheckCoregistration
from difftract_bids.interfaces.checks import CheckImages
from difftract_bids.interfaces.fodf import TISSUE_FIELDS
from difftract_bids.interfaces.gather_checks import GatherChecks
from difftract_bids.interfaces.reportlets.flickers import (
    FlickCoregistration,
    FlickDenoising,
    FlickMotion,
)
from difftract_bids.interfaces.reportlets.fodf import PlotFODF, PlotResponse, PlotTissues
from difftract_bids.interfaces.reportlets.images import (
    PlotCoregistration,
    PlotFA,
    PlotGradients,
    PlotMask,
)
from difftract_bids.interfaces.reportlets.interactive import PlotView3D
from difftract_bids.interfaces.reportlets.motion import PlotMotion
from difftract_bids.interfaces.reportlets.preprocessing import PlotDenoising
from difftract_bids.interfaces.reportlets.streamlines import (
    PlotStreamlineStatistics,
    PlotTractogram,
)
from difftract_bids.interfaces.reportlets.summary import SummariseRun
from difftract_bids.workflows.drawing import Drawing, begin_drawing

_SERIES = ["dwi", "bval", "bvec"]
#: Fields that the graph takes.
RUN_FIELDS = [
    *_SERIES, "mask", "dwiref", "t1w_dwi", "fa", "v1",
    "fodf", "fodf_gm", "fodf_csf", "fodf_metadata", "field",
    "response_wm", "response_gm", "response_csf",
    "preview", "summary", "tractogram_metadata", "counts", "assigned", "notes", "checks",
    "raw", "raw_bval", "denoised", "sigma", "confounds", "outliers", "earlier",
    "five_tissue_types",
]  # fmt: skip
_TRACKED = ["summary", "tractogram_metadata"]


def init_run_report_wf(
    plan: Plan,
    run: DWIRun,
    *,
    given: Collection[str] | None = None,
    omp_nthreads: int = 1,
    name: str = "report_wf",
) -> LiterateWorkflow:
    """Check a diffusion run, and draw what the report shows of it.

    Parameters
    ----------
    plan, run
        What was done.
    given
        Inputs that are going to have a value; figures that need others are left out. All that
        the run has, if left out.
    omp_nthreads
        CPUs that one step may use.
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
    checks
        Checks of templates and atlases.
    raw, raw_bval, denoised, sigma
        A series before any preprocessing, its b-values, the series after denoising, and its
        noise, if it was mapped.
    confounds, outliers
        Tables of motion and of flagged slices, if motion was corrected.
    five_tissue_types
        Tissues of the T1w, if they were mapped here.
    earlier
        Table of checks made before, where some cannot be made again.

    Outputs
    -------
    checks, checks_metadata
        Table of all checks of the run, and its sidecar.

    Examples
    --------
    >>> from pathlib import Path
    >>> from difftract_bids.bids.plan import make_plan
    >>> from difftract_bids.config import Config
    >>> from difftract_bids.workflows.run_report import init_run_report_wf
    >>> plan = make_plan(Path("bids"), Path("out"), Path("work"), Config())
    >>> workflow = init_run_report_wf(plan, plan.runs[0])
    >>> [name for name in sorted(workflow.list_node_names()) if name.startswith("plot_")][:4]
    ['plot_coreg', 'plot_coregflicker', 'plot_denoising', 'plot_denoisingflicker']
    """
    outputs = ["checks", "checks_metadata"]
    drawing = begin_drawing(plan, run, RUN_FIELDS, name=name, outputs=outputs, given=given)
    threshold = {"b0_threshold_s_mm2": plan.config.preprocessing.b0_threshold_s_mm2}
    drawing.draw("gradients", PlotGradients(**threshold), _SERIES, n_series=2)
    _draw_preprocessing(drawing, threshold)
    drawing.draw("mask", PlotMask(), ["dwiref", "mask"])
    if run.t1w is not None:
        anatomy = {"dwiref": "dwiref", "mask": "mask", "t1w": "t1w_dwi"}
        drawing.draw("coreg", PlotCoregistration(), anatomy)
        drawing.draw("coregflicker", FlickCoregistration(), anatomy)
    drawing.draw("fa", PlotFA(), ["fa", "v1", "mask"])
    _draw_fodf(drawing, threshold)
    _draw_streamlines(drawing)
    _summarise(drawing, threshold, omp_nthreads)
    return drawing.workflow


def _draw_preprocessing(drawing: Drawing, threshold):
    """Draw what preprocessing did to the images."""
    run, config = drawing.run, drawing.plan.config
    if has_figure("denoising", run, config):
        both = ["raw", "raw_bval", "denoised"]
        noise = ["sigma"] if has_noise_map(run, config) else []
        drawing.draw("denoising", PlotDenoising(**threshold), [*both, *noise], n_series=3)
        drawing.draw("denoisingflicker", FlickDenoising(**threshold), both, n_series=3)
    if has_figure("motion", run, config):
        drawing.draw("motion", PlotMotion(), ["confounds", "outliers"])
        moved = {field: field for field in ("raw_bval", "dwi", "bval", "mask")}
        # Noise is no motion: it must not flicker.
        moved["raw"] = "denoised"
        drawing.draw("motionflicker", FlickMotion(**threshold), moved, n_series=2.5)


def _draw_fodf(drawing: Drawing, threshold):
    """Draw fODFs, and what they were made with."""
    config, model = drawing.plan.config, drawing.run.fodf_model
    # With tensors, the cutoff is one of anisotropy.
    by_peaks = config.tracking.algorithm == "sd_stream"
    settings = config.tracking if by_peaks else TrackingConfig()
    cutoff = settings.resolve(1.0, act=by_peaks and drawing.run.is_constrained).cutoff
    drawing.draw("fodf", PlotFODF(cutoff=cutoff), ["fodf", "fa", "mask"])
    if model.is_fitted:
        responses = [f"response_{tissue.lower()}" for tissue in model.tissues]
        drawing.draw("response", PlotResponse(**threshold), [*_SERIES, *responses])
    if model.is_multi_tissue:
        shown = [TISSUE_FIELDS[tissue] for tissue in model.tissues]
        field = ["field"] if config.fodf.normalise_tissues else []
        drawing.draw("tissues", PlotTissues(), [*shown, "mask", *field])


def _draw_streamlines(drawing: Drawing):
    """Draw the streamlines."""
    drawn = ["preview", "tractogram_metadata", "mask"]
    drawing.draw("tractogram", PlotTractogram(), drawn)
    name, image = ("FA", "fa") if drawing.run.t1w is None else ("T1w", "t1w_dwi")
    needs = {**{field: field for field in drawn}, "background": image}
    drawing.draw("view3d", PlotView3D(background_name=name), needs)
    drawing.draw("lengths", PlotStreamlineStatistics(), _TRACKED)


def _summarise(drawing: Drawing, threshold, omp_nthreads: int):
    """Check the run, and write what came out of it."""
    plan, run, workflow = drawing.plan, drawing.run, drawing.workflow
    atlases = [atlas.name for atlas in plan.atlases]
    checks = _check(drawing, threshold, omp_nthreads)
    gather = drawing.step(
        "gather_checks",
        GatherChecks(atlases=atlases, whole_brain=_is_whole_brain(plan.config)),
        [*_TRACKED, "counts"],
        wants=["assigned", "notes", "earlier"],
    )
    if gather is None:
        return
    summarise = SummariseRun(
        atlases=atlases,
        decisions=[*run.origins, *run.remarks],
        anchors=figure_anchors(run, atlases, plan.config, list(plan.templates_of(run))),
        **threshold,
    )
    needs = [*_SERIES, *_TRACKED, "counts"]
    wants = ["assigned", "fodf_metadata", "notes"]
    summary = drawing.draw("summary", summarise, needs, wants=wants)
    workflow.connect([
        (checks, gather, [("out", "checks")]),
        (gather, summary, [("checks", "checks")]),
        (gather, workflow.get_node("outputnode"), [
            ("table", "checks"), ("metadata", "checks_metadata"),
        ]),
    ])  # fmt: skip


def _is_whole_brain(config: Config) -> bool:
    """Say whether streamlines may start and go anywhere in the brain."""
    seeding, regions = config.seeding, config.regions
    somewhere = (seeding.seed_image, seeding.seed_sphere, seeding.seed_coordinates)
    return not any((*somewhere, regions.include, regions.exclude, regions.mask))


def _check(drawing: Drawing, threshold, omp_nthreads: int) -> pe.Node:
    """Check images and registrations; give the node that has all of these checks."""
    run, config, workflow = drawing.run, drawing.plan.config, drawing.workflow
    checks = pe.Node(
        niu.Merge(3, ravel_inputs=True), name="checks", run_without_submitting=True, mem_gb=0.1
    )
    tables = ["confounds", "outliers"] if has_figure("motion", run, config) else []
    noise = ["sigma"] if has_noise_map(run, config) else []
    by_eddy = config.preprocessing.motion_correction == "eddy"
    images = drawing.step(
        "check_images",
        CheckImages(**threshold, outliers_replaced=by_eddy),
        [*_SERIES, "mask", "dwiref", "fa"],
        wants=[*tables, *noise],
        mem_gb=1.5,
        n_series=3,
    )
    if images is not None:
        images.n_procs = omp_nthreads
        workflow.connect([(images, checks, [("checks", "in1")])])
    if run.t1w is not None:
        anatomy = {"dwiref": "dwiref", "mask": "mask", "t1w": "t1w_dwi", "fa": "fa"}
        tissue = ["five_tissue_types"] if makes_tissue(run, config) else []
        coreg = drawing.step("check_coreg", CheckCoregistration(), anatomy, wants=tissue)
        if coreg is not None:
            workflow.connect([(coreg, checks, [("checks", "in2")])])
    if drawing.has("checks"):
        workflow.connect([(workflow.get_node("inputnode"), checks, [("checks", "in3")])])
    return checks
