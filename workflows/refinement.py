"""fODFs adjusted to a target: a connectome or a tractogram that tracking should give."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import PurePath
from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from difftract_bids.bids.atlases import Atlas, parcellation_of
from difftract_bids.bids.plan import Plan
from difftract_bids.bids.runs import DWIRun
from difftract_bids.config import Config
from difftract_bids.interfaces.fodf import TISSUE_FIELDS
from difftract_bids.interfaces.refinement import RefineFODF
from difftract_bids.interfaces.reportlets.refinement import PlotRefinement
from difftract_bids.interfaces.response import EstimateResponse
from difftract_bids.workflows.anatomical import init_parcellation_wf
from difftract_bids.workflows.derivatives import init_report_sink

_DIFFUSION = ["dwi", "bval", "bvec", "mask"]
_RESPONSES = ["response_wm", "response_gm", "response_csf"]
_FITTED = [*_RESPONSES, "fodf_gm", "fodf_csf", "field"]


def init_refinement_wf(
    plan: Plan,
    run: DWIRun,
    *,
    omp_nthreads: int = 1,
    mem_gb: float = 1.0,
    name: str = "refinement_wf",
) -> LiterateWorkflow:
    """Adjust the fODFs of a run to its target.

    Parameters
    ----------
    plan, run
        What to do, on which files; the run with its target.
    omp_nthreads
        CPUs that one step may use.
    mem_gb
        Size of the diffusion image in memory (float32), GB.
    name
        Name of the workflow.

    Inputs
    ------
    dwi, bval, bvec, mask
        Preprocessed run.
    fodf, fodf_metadata
        fODFs of white matter and their sidecar.
    fodf_gm, fodf_csf, field, response_wm, response_gm, response_csf
        Other tissues, what they were divided by, and the responses they were fitted with, as far
        as there are any.
    warp, affine
        From the space of the target's atlas to the run's, as for
        :func:`difftract_bids.workflows.anatomical.init_parcellation_wf`.

    Outputs
    -------
    fodf, fodf_metadata
        The adjusted ones.
    notes
        What a user should know.

    Examples
    --------
    >>> from pathlib import Path
    >>> from difftract_bids.bids.plan import make_plan
    >>> from difftract_bids.config import Config, RefinementConfig
    >>> from difftract_bids.workflows.refinement import init_refinement_wf
    >>> config = Config(
    ...     refinement=RefinementConfig(refine_fodf="count.dense.tsv", refine_steps=10),
    ...     atlases=("Phantom=bids/derivatives/truth",),
    ... )
    >>> plan = make_plan(Path("bids"), Path("out"), Path("work"), config)
    >>> workflow = init_refinement_wf(plan, plan.runs[0], omp_nthreads=4)
    >>> workflow.get_node("refine").inputs.refine_steps
    10
    """
    config = plan.config
    workflow = LiterateWorkflow(name=name)
    workflow.__desc__ = refinement_methods(config)
    fields = [*_DIFFUSION, "fodf", "fodf_metadata", *_FITTED, "warp", "affine"]
    inputs = pe.Node(niu.IdentityInterface(fields), name="inputnode")
    outputs = pe.Node(niu.IdentityInterface(["fodf", "fodf_metadata", "notes"]), name="outputnode")
    size: dict[str, Any] = {"n_procs": omp_nthreads, "mem_gb": 4.0 + 8 * mem_gb}
    refine = pe.Node(RefineFODF(**_settings(plan, run)), name="refine", **size)
    plot = pe.Node(PlotRefinement(), name="plot_refinement", mem_gb=1.0)
    sink = init_report_sink(plan, run, "refinement")
    given = [(name, name) for name in ("dwi", "bval", "bvec", "fodf", "fodf_metadata")]
    workflow.connect([
        (inputs, refine, [*given, ("mask", "brain_mask")]),
        (refine, outputs, [(name, name) for name in ("fodf", "fodf_metadata", "notes")]),
        (refine, plot, [("facts", "facts")]),
        (plot, sink, [("out_report", "in_file")]),
    ])  # fmt: skip
    _connect_signal(workflow, plan, run, size)
    atlas = target_atlas(plan, run)
    if atlas is not None:
        own = parcellation_of(atlas, run) if atlas.kind == "subject" else atlas
        parcellation = init_parcellation_wf(atlas.name, str(own.image), str(own.table))
        refine.inputs.table = str(own.table)
        workflow.connect([
            (inputs, parcellation, [
                (name, f"inputnode.{name}") for name in ("mask", "warp", "affine")]),
            (parcellation, refine, [("outputnode.parcellation", "parcellation")]),
        ])  # fmt: skip
    return workflow


def target_atlas(plan: Plan, run: DWIRun) -> Atlas | None:
    """Find the atlas of the connectome that the fODFs of a run are adjusted to, if it is one."""
    wanted = run.refinement.atlas if run.refinement else None
    return next((atlas for atlas in plan.atlases if atlas.name == wanted), None)


def fitted_inputs(plan: Plan, run: DWIRun) -> list[str]:
    """Name what the signal of a run's fODFs is made with besides the fODFs of white matter."""
    model = run.fodf_model
    if not model.is_fitted:
        return []
    normalised = model.is_multi_tissue and plan.config.fodf.normalise_tissues
    return [
        *(f"response_{tissue.lower()}" for tissue in model.tissues),
        *(TISSUE_FIELDS[tissue] for tissue in model.tissues[1:]),
        *(["field"] if normalised else []),
    ]


def refinement_methods(config: Config) -> str:
    """Write the methods paragraph of this stage."""
    settings = config.refinement
    what = {
        "connectome": "soft connectome of streamlines along them",
        "tractogram": "streamlines along them from points of the target",
    }[settings.kind]
    return (
        "### Fibre orientations\n\n"
        f"The fODFs were then adjusted to the {settings.kind} "
        f"{PurePath(settings.refine_fodf or '').name}, in at most {settings.refine_steps} steps "
        f"down the gradient of how much the {what} differs from it, which was propagated back "
        "through the streamlines by the discrete adjoint method; the misfit of the diffusion "
        f"signal that the fODFs predict was held down with a weight of "
        f"{settings.refine_weight:g}. These fODFs are no estimate from the images alone.\n\n"
    )


def _connect_signal(workflow, plan: Plan, run: DWIRun, size: dict[str, Any]):
    """Give what the signal is made with; estimate the response of fODFs that come without."""
    inputs, refine = workflow.get_node("inputnode"), workflow.get_node("refine")
    if run.fodf_model.is_fitted:
        fitted = fitted_inputs(plan, run)
        workflow.connect([(inputs, refine, [(name, name) for name in fitted])])
        return
    threshold = plan.config.preprocessing.b0_threshold_s_mm2
    response = pe.Node(
        EstimateResponse(model="csd", b0_threshold_s_mm2=threshold), name="response", **size
    )
    workflow.connect([
        (inputs, response, [(name, name) for name in _DIFFUSION]),
        (response, refine, [("response_wm", "response_wm"), ("notes", "response_notes")]),
    ])  # fmt: skip


def _settings(plan: Plan, run: DWIRun) -> dict[str, Any]:
    """Gather the settings that the adjustment depends on, by the names of its inputs."""
    config = plan.config
    refinement = asdict(config.refinement)
    del refinement["refine_fodf"]  # the run has its own
    return {
        **asdict(config.tracking),
        **refinement,
        "random_seed": config.seeding.random_seed,
        "model": run.fodf_model.name if run.fodf_model.is_fitted else "csd",
        "target": str(run.refinement.path) if run.refinement else "",
        "b0_threshold_s_mm2": config.preprocessing.b0_threshold_s_mm2,
    }
