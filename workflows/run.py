"""One diffusion run, from its images to connectomes and figures."""

from __future__ import annotations

from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from difftract_bids.bids.atlases import Atlas
from difftract_bids.bids.footprint import series_gb
from difftract_bids.bids.given_files import act_of, connectome_of, regions_of, seeding_of
from difftract_bids.bids.given_fodf import fodf_of
from difftract_bids.bids.outputs import OUTPUTS, is_wanted
from difftract_bids.bids.plan import Plan
from difftract_bids.bids.runs import DWIRun
from difftract_bids.bids.stages import (
    corrects_motion,
    has_noise_map,
    is_preprocessed_here,
    makes_tissue,
)
from difftract_bids.config import Config, ConnectomeConfig, SIFT2Config
from difftract_bids.interfaces.connectome import MergeConnectomes
from difftract_bids.interfaces.fodf import TISSUE_FIELDS
from difftract_bids.workflows.atlas import atlas_wf_name, init_atlas_wf
from difftract_bids.workflows.derivatives import init_run_derivatives_wf
from difftract_bids.workflows.fodf import fodf_methods, init_fodf_wf
from difftract_bids.workflows.refinement import (
    fitted_inputs,
    init_refinement_wf,
    target_atlas,
)
from difftract_bids.workflows.run_report import init_run_report_wf
from difftract_bids.workflows.sensitivity import init_sensitivity_wf
from difftract_bids.workflows.series import init_series_wf
from difftract_bids.workflows.spaces import Spaces
from difftract_bids.workflows.tracking import init_tracking_wf, tracking_methods
from difftract_bids.workflows.weighting import init_weighting_wf
from difftract_bids.workflows.wiring import between

#: Stages that have something to say.
_NOTING = (
    "preprocessing_wf", "tissue_wf", "fodf_wf", "refinement_wf", "tracking_wf", "weighting_wf",
)  # fmt: skip


def init_run_wf(plan: Plan, run: DWIRun, *, omp_nthreads: int = 1) -> LiterateWorkflow:
    """Build the graph of one diffusion run.

    Parameters
    ----------
    plan, run
        What to do, on which files.
    omp_nthreads
        CPUs that one step may use.

    Examples
    --------
    >>> from pathlib import Path
    >>> from difftract_bids.bids.plan import make_plan
    >>> from difftract_bids.config import Config
    >>> from difftract_bids.workflows.run import init_run_wf
    >>> plan = make_plan(Path("bids"), Path("out"), Path("work"), Config())
    >>> workflow = init_run_wf(plan, plan.runs[0], omp_nthreads=4)
    >>> workflow.name
    'dwi_wf'
    >>> {"preprocessing_wf", "fodf_wf", "tracking_wf"} <= {
    ...     name.split(".")[0] for name in workflow.list_node_names()
    ... }
    True
    """
    config = plan.config
    size: dict[str, Any] = {"omp_nthreads": omp_nthreads, "mem_gb": series_gb(run, config)}
    threshold = config.preprocessing.b0_threshold_s_mm2
    workflow = LiterateWorkflow(name=f"{run.node_name}_wf")

    preprocessing = init_series_wf(run, config, **size)
    fodf = init_fodf_wf(
        fodf_of(config.fodf, run),
        model_reason=run.fodf_model.reason,
        participant=run.participant,
        b0_threshold_s_mm2=threshold,
        **size,
    )
    fodf.__desc__ = fodf_methods(config.fodf, run.fodf_model.name, run.fodf_model.network)
    act = act_of(config.act, run) if run.is_constrained else None
    tracking = init_tracking_wf(
        config.tracking,
        seeding_of(config.seeding, run),
        config.output,
        regions_of(config.regions, run),
        connectome_of(config.connectome, run),
        act=act,
        b0_threshold_s_mm2=threshold,
        **size,
    )
    tracking.__desc__ = tracking_methods(
        config.tracking, config.seeding, config.regions, config.act if act else None
    )
    report = init_run_report_wf(plan, run, omp_nthreads=omp_nthreads)
    save = init_run_derivatives_wf(plan, run)
    series = ("dwi", "bval", "bvec", "mask")
    workflow.connect([
        (preprocessing, fodf, between(*series)),
        (preprocessing, tracking, between(*series)),
        (preprocessing, report, between(*series, "dwiref", *_shown_of_preprocessing(run, config))),
        (fodf, report, between(*_reported(run, config))),
        (tracking, report, between("preview", "summary", metadata="tractogram_metadata")),
        (preprocessing, save, between(
            "mask", "dwiref", *_saved_of_preprocessing(run, config),
            dwi="preproc_dwi", bval="preproc_bval", bvec="preproc_bvec")),
        (fodf, save, between(*_saved(run, config))),
        (report, save, between("checks", "checks_metadata")),
    ])  # fmt: skip
    if is_wanted("tractogram", run, config):
        saved = between("tractogram", metadata="tractogram_metadata")
        workflow.connect([(tracking, save, saved)])
    _connect_samples(workflow, config)
    spaces = Spaces(
        workflow,
        plan,
        run,
        preprocessing=preprocessing,
        fodf=fodf,
        save=save,
        report=report,
        omp_nthreads=omp_nthreads,
    )
    if makes_tissue(run, config):
        workflow.connect([(spaces.tissue(), save, between("five_tissue_types"))])
    if act is not None:
        _give_tissue(workflow, plan, run, tracking)
    if run.refinement is not None:
        _refine(workflow, plan, run, spaces, **size)
    tracked = _tracked(workflow)
    workflow.connect([
        (tracked, tracking, between("fodf")),
        (tracked, report, between("fodf", "fodf_metadata")),
    ])  # fmt: skip
    if "sift2" in config.connectome.connectome_measures:
        _weigh(workflow, config.sift2, **size)
    n_notes = _connect_atlases(workflow, plan, run, spaces)
    _connect_sensitivity(workflow, plan, run, n_notes, **size)
    return workflow


def _saved_of_preprocessing(run: DWIRun, config: Config) -> list[str]:
    """Name what preprocessing gives to be saved besides the series itself."""
    return [key for key in ("sigma", "confounds", "outliers") if is_wanted(key, run, config)]


def _shown_of_preprocessing(run: DWIRun, config: Config) -> list[str]:
    """Name what preprocessing gives to be shown besides the series itself."""
    shown = ["raw", "raw_bval", "denoised"] if is_preprocessed_here(run) else []
    shown += ["confounds", "outliers"] if corrects_motion(run, config) else []
    return shown + (["sigma"] if has_noise_map(run, config) else [])


def _give_tissue(workflow: LiterateWorkflow, plan: Plan, run: DWIRun, node: LiterateWorkflow):
    """Give a stage the tissue that streamlines obey: mapped here, or given."""
    tissue = _stages(workflow).get("tissue_wf")
    if tissue is None:
        node.inputs.inputnode.five_tissue_types = act_of(plan.config.act, run).act_5tt
    else:
        workflow.connect([(tissue, node, between("five_tissue_types"))])


def _connect_samples(workflow: LiterateWorkflow, config: Config) -> None:
    """Give tracking the images that the connectomes average along streamlines."""
    sampled = config.connectome.sampled
    if not sampled:
        return
    stages = _stages(workflow)
    images = pe.Node(niu.Merge(len(sampled)), name="images", run_without_submitting=True)
    given = [(f"outputnode.{name}", f"in{i}") for i, name in enumerate(sampled, start=1)]
    workflow.connect([
        (stages["fodf_wf"], images, given),
        (images, stages["tracking_wf"], [("out", "inputnode.images")]),
    ])  # fmt: skip


def _weigh(workflow: LiterateWorkflow, config: SIFT2Config, **size: Any) -> None:
    """Add the weights of streamlines, once for all atlases."""
    stages = _stages(workflow)
    weighting = init_weighting_wf(config, **size)
    workflow.connect([
        (stages["preprocessing_wf"], weighting, between("mask")),
        (_tracked(workflow), weighting, between("fodf")),
        (stages["tracking_wf"], weighting, between("tractogram")),
        (weighting, stages["derivatives_wf"], between("weights", metadata="weights_metadata")),
    ])  # fmt: skip


def _saved(run: DWIRun, config: Config) -> list[str]:
    """Name what the fODF stage gives to be saved."""
    images = [key for key in TISSUE_FIELDS.values() if is_wanted(key, run, config)]
    others = ["fa", "md", "colour_fa", "afdtotal", "nufo", "peak"]
    others += [key for key in OUTPUTS if key.startswith("response_")]
    sidecars = [f"{key}_metadata" for key in images]
    return [*images, *sidecars, *(key for key in others if is_wanted(key, run, config))]


def _reported(run: DWIRun, config: Config) -> list[str]:
    """Name what the fODF stage gives to be shown."""
    shown = ["fa", "v1"]
    if run.fodf_model.is_multi_tissue:
        shown += [TISSUE_FIELDS[tissue] for tissue in run.fodf_model.tissues[1:]]
        shown += ["field"] if config.fodf.normalise_tissues else []
    if run.fodf_model.is_fitted:
        shown += [f"response_{tissue.lower()}" for tissue in run.fodf_model.tissues]
    return shown


def _refine(workflow: LiterateWorkflow, plan: Plan, run: DWIRun, spaces: Spaces, **size: Any):
    """Add the adjustment of the fODFs to a target."""
    stages = _stages(workflow)
    refinement = init_refinement_wf(plan, run, **size)
    from_fodf = between("fodf", "fodf_metadata", *fitted_inputs(plan, run))
    saved = between(fodf="refined_fodf", fodf_metadata="refined_fodf_metadata")
    workflow.connect([
        (stages["preprocessing_wf"], refinement, between("dwi", "bval", "bvec", "mask")),
        (stages["fodf_wf"], refinement, from_fodf),
        (refinement, stages["derivatives_wf"], saved),
    ])  # fmt: skip
    atlas = target_atlas(plan, run)
    if atlas is not None:
        spaces.bring(atlas, refinement)


def _tracked(workflow: LiterateWorkflow) -> LiterateWorkflow:
    """Find the stage that the tracked fODFs come from."""
    stages = _stages(workflow)
    return stages.get("refinement_wf", stages["fodf_wf"])


def _connect_atlases(workflow, plan: Plan, run: DWIRun, spaces: Spaces):
    """Add every atlas, registering each template once, and tell the report of them.

    Returns
    -------
    int
        How many places of the node ``notes`` are taken.
    """
    stages = _stages(workflow)
    preprocessing, report = stages["preprocessing_wf"], stages["report_wf"]
    counts = pe.Node(niu.Merge(len(plan.atlases)), name="counts", run_without_submitting=True)
    assigned = pe.Node(niu.Merge(len(plan.atlases)), name="assigned", run_without_submitting=True)
    noting = [name for name in _NOTING if name in stages]
    n_notes = 1 + len(noting) + len(plan.atlases) + len(_differentiated(plan, run))
    notes = pe.Node(niu.Merge(n_notes), name="notes", run_without_submitting=True)
    notes.inputs.in1 = list(run.notes)
    checks = []
    for place, stage in enumerate(noting, start=2):
        workflow.connect([(stages[stage], notes, [("outputnode.notes", f"in{place}")])])
    for number, atlas in enumerate(plan.atlases, start=1):
        node = init_atlas_wf(plan, run, atlas)
        place = 1 + len(noting) + number
        workflow.connect([
            (preprocessing, node, between("dwiref", "mask")),
            (stages["fodf_wf"], node, between("fa")),
            (node, counts, [("outputnode.streamlines", f"in{number}")]),
            (node, assigned, [("outputnode.assigned", f"in{number}")]),
            (node, notes, [("outputnode.notes", f"in{place}")]),
        ])  # fmt: skip
        _connect_streamlines(workflow, node, plan.config.connectome)
        spaces.bring(atlas, node)
        checks.append(node)
    _connect_checks(workflow, [*spaces.template_reports, *checks], report)
    workflow.connect([
        (counts, report, [("out", "inputnode.counts")]),
        (assigned, report, [("out", "inputnode.assigned")]),
        (notes, report, [("out", "inputnode.notes")]),
    ])  # fmt: skip
    if plan.config.connectome.connectome_hdf5:
        _merge_hdf5(workflow, plan)
    return 1 + len(noting) + len(plan.atlases)


def _connect_checks(workflow, checking, report):
    """Tell the report what was found of templates and atlases."""
    checks = pe.Node(
        niu.Merge(len(checking), ravel_inputs=True), name="checks", run_without_submitting=True
    )
    for place, node in enumerate(checking, start=1):
        workflow.connect([(node, checks, [("outputnode.checks", f"in{place}")])])
    workflow.connect([(checks, report, [("out", "inputnode.checks")])])


def _connect_streamlines(workflow, atlas_wf, config: ConnectomeConfig):
    """Give an atlas what its connectome needs of the streamlines."""
    stages = _stages(workflow)
    needed = ["summary"] + (["tractogram"] if config.follows_paths else [])
    workflow.connect([(stages["tracking_wf"], atlas_wf, between(*needed))])
    if "weighting_wf" in stages:
        workflow.connect([(stages["weighting_wf"], atlas_wf, between(weights="sift2_weights"))])


def _differentiated(plan: Plan, run: DWIRun) -> list[Atlas]:
    """List the atlases of which edges are differentiated."""
    named = {name for name, _ in run.edge_targets}
    errors = plan.config.sensitivity.edge_standard_errors
    return [atlas for atlas in plan.atlases if errors or atlas.name in named]


def _connect_sensitivity(workflow, plan: Plan, run: DWIRun, n_notes: int, **size: Any):
    """Add what is differentiated, and tell the report of it."""
    stages = _stages(workflow)
    responses = [f"response_{tissue.lower()}" for tissue in run.fodf_model.tissues]
    fitted = responses if run.tracks_fitted_fodf else []
    errors = plan.config.sensitivity.edge_standard_errors
    of_atlas = ["parcellation", *(["streamlines"] if errors else [])]
    of_images = ["dwi", "bval", "bvec", "mask", "dwiref", *(["sigma"] if errors else [])]
    notes = workflow.get_node("notes")
    for place, atlas in enumerate(_differentiated(plan, run), start=n_notes + 1):
        node = init_sensitivity_wf(plan, run, atlas, **size)
        workflow.connect([
            (stages["preprocessing_wf"], node, between(*of_images)),
            (_tracked(workflow), node, between("fodf")),
            (stages["fodf_wf"], node, between(*fitted)),
            (stages["tracking_wf"], node, between("summary")),
            (stages[atlas_wf_name(atlas)], node, between(*of_atlas)),
            (node, notes, [("outputnode.notes", f"in{place}")]),
        ])  # fmt: skip
        if run.is_constrained:
            _give_tissue(workflow, plan, run, node)


def _merge_hdf5(workflow, plan: Plan):
    """Put the matrices of all atlases into one file."""
    stages = _stages(workflow)
    files = pe.Node(niu.Merge(len(plan.atlases)), name="hdf5_files", run_without_submitting=True)
    merge = pe.Node(MergeConnectomes(), name="hdf5", mem_gb=0.5)
    merge.inputs.atlases = [atlas.name for atlas in plan.atlases]
    for number, atlas in enumerate(plan.atlases, start=1):
        atlas_wf = stages[atlas_wf_name(atlas)]
        workflow.connect([(atlas_wf, files, [("outputnode.hdf5", f"in{number}")])])
    workflow.connect([
        (files, merge, [("out", "files")]),
        (merge, stages["derivatives_wf"], [("hdf5", "inputnode.hdf5")]),
    ])  # fmt: skip


def _stages(workflow: LiterateWorkflow) -> dict[str, LiterateWorkflow]:
    return {node.name: node for node in workflow._graph.nodes}  # noqa: SLF001
