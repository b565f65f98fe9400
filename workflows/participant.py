"""One participant: every diffusion run on its own, from raw images to connectomes and figures."""

from __future__ import annotations

from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from difftract_bids.bids.atlases import Atlas, parcellation_of
from difftract_bids.bids.given_files import connectome_of, regions_of, seeding_of
from difftract_bids.bids.given_fodf import fodf_of
from difftract_bids.bids.outputs import OUTPUTS, is_wanted
from difftract_bids.bids.plan import Plan
from difftract_bids.bids.runs import DWIRun, image_size_gb
from difftract_bids.config import Config, ConnectomeConfig, SIFT2Config
from difftract_bids.interfaces.connectome import MergeConnectomes
from difftract_bids.interfaces.fodf import TISSUE_FIELDS
from difftract_bids.workflows.anatomical import (
    init_align_t1w_wf,
    init_pseudo_t1w_wf,
    init_template_wf,
)
from difftract_bids.workflows.atlas import atlas_wf_name, init_atlas_wf
from difftract_bids.workflows.derivatives import init_run_derivatives_wf
from difftract_bids.workflows.fodf import fodf_methods, init_fodf_wf
from difftract_bids.workflows.preprocessing import init_preprocessing_wf
from difftract_bids.workflows.refinement import (
    fitted_inputs,
    init_refinement_wf,
    target_atlas,
)
from difftract_bids.workflows.reporting import init_run_report_wf
from difftract_bids.workflows.sensitivity import init_sensitivity_wf
from difftract_bids.workflows.tracking import init_tracking_wf, tracking_methods
from difftract_bids.workflows.weighting import init_weighting_wf


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


def init_run_wf(plan: Plan, run: DWIRun, *, omp_nthreads: int = 1) -> LiterateWorkflow:
    """Build the graph of one diffusion run.

    Parameters
    ----------
    plan, run
        What to do, on which files.
    omp_nthreads
        CPUs that one step may use.
    """
    config = plan.config
    size: dict[str, Any] = {"omp_nthreads": omp_nthreads, "mem_gb": image_size_gb(run.dwi)}
    threshold = config.preprocessing.b0_threshold_s_mm2
    workflow = LiterateWorkflow(name=f"{run.node_name}_wf")

    errors = config.sensitivity.edge_standard_errors
    preprocessing = init_preprocessing_wf(config.preprocessing, estimate_noise=errors, **size)
    files = {"dwi": str(run.dwi), "bval": str(run.bval), "bvec": str(run.bvec)}
    preprocessing.inputs.inputnode.trait_set(**files)
    fodf = init_fodf_wf(
        fodf_of(config.fodf, run),
        model_reason=run.fodf_model.reason,
        participant=run.participant,
        b0_threshold_s_mm2=threshold,
        **size,
    )
    fodf.__desc__ = fodf_methods(config.fodf, run.fodf_model.name, run.fodf_model.network)
    tracking = init_tracking_wf(
        config.tracking,
        seeding_of(config.seeding, run),
        config.output,
        regions_of(config.regions, run),
        connectome_of(config.connectome, run),
        b0_threshold_s_mm2=threshold,
        **size,
    )
    tracking.__desc__ = tracking_methods(config.tracking, config.seeding, config.regions)
    report = init_run_report_wf(plan, run)
    save = init_run_derivatives_wf(plan, run)
    workflow.connect([
        (preprocessing, fodf, _same("dwi", "bval", "bvec", "mask")),
        (preprocessing, tracking, _same("dwi", "bval", "bvec", "mask")),
        (preprocessing, report, _same("dwi", "bval", "bvec", "mask", "dwiref")),
        (fodf, report, _same(*_reported(run, config))),
        (tracking, report, _same("preview", "summary", metadata="tractogram_metadata")),
        (preprocessing, save, _same(
            "mask", "dwiref", dwi="preproc_dwi", bval="preproc_bval", bvec="preproc_bvec")),
        (fodf, save, _same(*_saved(run, config))),
    ])  # fmt: skip
    if is_wanted("tractogram", run, config):
        saved = _same("tractogram", metadata="tractogram_metadata")
        workflow.connect([(tracking, save, saved)])
    _connect_samples(workflow, config)
    anatomy = _Anatomy(workflow, run, omp_nthreads)
    if run.refinement is not None:
        _refine(workflow, plan, run, anatomy, **size)
    tracked = _tracked(workflow)
    workflow.connect([
        (tracked, tracking, _same("fodf")),
        (tracked, report, _same("fodf", "fodf_metadata")),
    ])  # fmt: skip
    if "sift2" in config.connectome.connectome_measures:
        _weigh(workflow, config.sift2, **size)
    n_notes = _connect_atlases(workflow, plan, run, anatomy)
    _connect_sensitivity(workflow, plan, run, n_notes, **size)
    return workflow


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
        (stages["preprocessing_wf"], weighting, _same("mask")),
        (_tracked(workflow), weighting, _same("fodf")),
        (stages["tracking_wf"], weighting, _same("tractogram")),
        (weighting, stages["derivatives_wf"], _same("weights", metadata="weights_metadata")),
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


class _Anatomy:
    """What atlases come into a run's space by: made once, however many atlases there are.

    Parameters
    ----------
    workflow, run
        The graph of the run; the alignment of its T1w is added, or what stands in for it.
    omp_nthreads
        CPUs that one step may use.
    """

    def __init__(self, workflow: LiterateWorkflow, run: DWIRun, omp_nthreads: int) -> None:
        self._workflow, self._run, self._omp_nthreads = workflow, run, omp_nthreads
        self._templates: dict[str, LiterateWorkflow] = {}
        stages = _stages(workflow)
        preprocessing, fodf = stages["preprocessing_wf"], stages["fodf_wf"]
        if run.t1w is None:
            self._t1w = init_pseudo_t1w_wf()
            workflow.connect([
                (preprocessing, self._t1w, _same("mask")),
                (fodf, self._t1w, _same("fa", "md")),
            ])  # fmt: skip
            return
        self._t1w = init_align_t1w_wf(omp_nthreads=omp_nthreads)
        self._t1w.inputs.inputnode.t1w = str(run.t1w)
        saved = _same("t1w_dwi", "t1w_to_dwi", "dwi_to_t1w")
        workflow.connect([
            (preprocessing, self._t1w, _same("dwiref", "mask")),
            (self._t1w, stages["report_wf"], _same("t1w_dwi")),
            (self._t1w, stages["derivatives_wf"], saved),
        ])  # fmt: skip

    def bring(self, atlas: Atlas, node: LiterateWorkflow) -> None:
        """Give a part of the graph its way from an atlas's space to the run's, if it needs one."""
        if atlas.kind == "template":
            self._workflow.connect([(self._template(atlas), node, _same("warp", "affine"))])
        elif parcellation_of(atlas, self._run).space == "T1w":
            self._workflow.connect([(self._t1w, node, _same(t1w_to_dwi="affine"))])

    def _template(self, atlas: Atlas) -> LiterateWorkflow:
        """Register a template, the first time that it is asked for."""
        template = str(atlas.template)
        if template not in self._templates:
            node = init_template_wf(
                template,
                str(atlas.template_t1w),
                omp_nthreads=self._omp_nthreads,
                name=f"{template}_to_dwi_wf",
            )
            self._workflow.connect([
                (_stages(self._workflow)["preprocessing_wf"], node, _same("mask")),
                (self._t1w, node, _same(t1w_dwi="anatomy")),
            ])  # fmt: skip
            self._templates[template] = node
        return self._templates[template]


def _refine(workflow: LiterateWorkflow, plan: Plan, run: DWIRun, anatomy: _Anatomy, **size: Any):
    """Add the adjustment of the fODFs to a target."""
    stages = _stages(workflow)
    refinement = init_refinement_wf(plan, run, **size)
    from_fodf = _same("fodf", "fodf_metadata", *fitted_inputs(plan, run))
    saved = _same(fodf="refined_fodf", fodf_metadata="refined_fodf_metadata")
    workflow.connect([
        (stages["preprocessing_wf"], refinement, _same("dwi", "bval", "bvec", "mask")),
        (stages["fodf_wf"], refinement, from_fodf),
        (refinement, stages["derivatives_wf"], saved),
    ])  # fmt: skip
    atlas = target_atlas(plan, run)
    if atlas is not None:
        anatomy.bring(atlas, refinement)


def _tracked(workflow: LiterateWorkflow) -> LiterateWorkflow:
    """Find the stage that the tracked fODFs come from."""
    stages = _stages(workflow)
    return stages.get("refinement_wf", stages["fodf_wf"])


def _connect_atlases(workflow, plan: Plan, run: DWIRun, anatomy: _Anatomy):
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
    stages_with_notes = ("fodf_wf", "refinement_wf", "tracking_wf", "weighting_wf")
    noting = [name for name in stages_with_notes if name in stages]
    n_notes = len(noting) + len(plan.atlases) + len(_differentiated(plan, run))
    notes = pe.Node(niu.Merge(n_notes), name="notes", run_without_submitting=True)
    for place, stage in enumerate(noting, start=1):
        workflow.connect([(stages[stage], notes, [("outputnode.notes", f"in{place}")])])
    for number, atlas in enumerate(plan.atlases, start=1):
        node = init_atlas_wf(plan, run, atlas)
        place = len(noting) + number
        workflow.connect([
            (preprocessing, node, _same("dwiref", "mask")),
            (node, counts, [("outputnode.streamlines", f"in{number}")]),
            (node, assigned, [("outputnode.assigned", f"in{number}")]),
            (node, notes, [("outputnode.notes", f"in{place}")]),
        ])  # fmt: skip
        _connect_streamlines(workflow, node, plan.config.connectome)
        anatomy.bring(atlas, node)
    workflow.connect([
        (counts, report, [("out", "inputnode.counts")]),
        (assigned, report, [("out", "inputnode.assigned")]),
        (notes, report, [("out", "inputnode.notes")]),
    ])  # fmt: skip
    if plan.config.connectome.connectome_hdf5:
        _merge_hdf5(workflow, plan)
    return len(noting) + len(plan.atlases)


def _connect_streamlines(workflow, atlas_wf, config: ConnectomeConfig):
    """Give an atlas what its connectome needs of the streamlines."""
    stages = _stages(workflow)
    needed = ["summary"] + (["tractogram"] if config.follows_paths else [])
    workflow.connect([(stages["tracking_wf"], atlas_wf, _same(*needed))])
    if "weighting_wf" in stages:
        workflow.connect([(stages["weighting_wf"], atlas_wf, _same(weights="sift2_weights"))])


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
            (stages["preprocessing_wf"], node, _same(*of_images)),
            (_tracked(workflow), node, _same("fodf")),
            (stages["fodf_wf"], node, _same(*fitted)),
            (stages["tracking_wf"], node, _same("summary")),
            (stages[atlas_wf_name(atlas)], node, _same(*of_atlas)),
            (node, notes, [("outputnode.notes", f"in{place}")]),
        ])  # fmt: skip


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


def _same(*names: str, **renamed: str) -> list[tuple[str, str]]:
    """Connect outputs to the inputs of the same name, or of the one given."""
    pairs = {name: name for name in names} | renamed
    return [(f"outputnode.{source}", f"inputnode.{target}") for source, target in pairs.items()]
