"""What in the image makes edges of the connectome, and what noise does to them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from difftract_bids.bids.atlases import Atlas, parcellation_of
from difftract_bids.bids.edge_targets import EdgeTarget
from difftract_bids.bids.given_files import regions_of, seeding_of
from difftract_bids.bids.given_fodf import fodf_of
from difftract_bids.bids.outputs import (
    output_entities,
    sensitivity_entities,
    sensitivity_maps,
)
from difftract_bids.bids.plan import Plan
from difftract_bids.bids.runs import DWIRun
from difftract_bids.config import Config
from difftract_bids.interfaces.reportlets.sensitivity import PlotEdgeErrors, PlotSensitivity
from difftract_bids.interfaces.sensitivity import EstimateEdgeErrors, MapSensitivity
from difftract_bids.workflows.derivatives import init_atlas_sink, init_report_sink

_RESPONSES = ["response_wm", "response_gm", "response_csf"]
_SCENE = ["dwi", "bval", "bvec", "fodf", "summary", "parcellation"]


def init_sensitivity_wf(
    plan: Plan,
    run: DWIRun,
    atlas: Atlas,
    *,
    omp_nthreads: int = 1,
    mem_gb: float = 1.0,
    name: str | None = None,
) -> LiterateWorkflow:
    """Differentiate the edges of an atlas that the settings name, and save and draw the maps.

    Parameters
    ----------
    plan, run, atlas
        What to do, on which files.
    omp_nthreads
        CPUs that one step may use.
    mem_gb
        Size of the diffusion image in memory (float32), GB.
    name
        Name of the workflow.

    Inputs
    ------
    dwi, bval, bvec, mask, dwiref
        Preprocessed run.
    fodf, response_wm, response_gm, response_csf
        What was tracked, and the responses it was fitted with, as far as there are any.
    summary
        Seed and ends of each streamline.
    parcellation
        Label image of the atlas in the run's space.
    streamlines
        Streamline count matrix; only for standard errors.
    sigma
        Map of the noise; only for standard errors.
    five_tissue_types
        Tissue that streamlines obeyed, if they did.

    Outputs
    -------
    notes
        What a user should know.

    Examples
    --------
    >>> from pathlib import Path
    >>> from difftract_bids.bids.plan import make_plan
    >>> from difftract_bids.config import Config, SensitivityConfig
    >>> from difftract_bids.workflows.sensitivity import init_sensitivity_wf
    >>> config = Config(
    ...     sensitivity=SensitivityConfig(sensitivity=("LH-Precentral-Brainstem",)),
    ...     atlases=("Phantom=bids/derivatives/truth",),
    ... )
    >>> plan = make_plan(Path("bids"), Path("out"), Path("work"), config)
    >>> workflow = init_sensitivity_wf(plan, plan.runs[0], plan.atlases[0])
    >>> [name for name in workflow.list_node_names() if name.startswith("map_")]
    ['map_LHPrecentralxBrainstem']
    """
    config = plan.config
    workflow = LiterateWorkflow(name=name or f"sensitivity_{atlas.name.replace('+', '_')}_wf")
    workflow.__desc__ = _methods(config)
    fields = [*_SCENE, *_RESPONSES, "mask", "dwiref", "sigma", "streamlines", "five_tissue_types"]
    inputs = pe.Node(niu.IdentityInterface(fields), name="inputnode")
    outputs = pe.Node(niu.IdentityInterface(["notes"]), name="outputnode")
    targets = [target for name, target in run.edge_targets if name == atlas.name]
    size: dict[str, Any] = {"n_procs": omp_nthreads, "mem_gb": 2.0 + 6 * mem_gb}
    settings = _settings(plan, run, atlas)
    notes = pe.Node(
        niu.Merge(len(targets) + config.sensitivity.edge_standard_errors),
        name="notes",
        run_without_submitting=True,
    )
    given = [("mask", "brain_mask"), *((field, field) for field in _needed(run))]
    for number, target in enumerate(targets, start=1):
        edge = pe.Node(
            MapSensitivity(edge=target.text, **settings), name=f"map_{target.desc}", **size
        )
        workflow.connect([(inputs, edge, given), (edge, notes, [("notes", f"in{number}")])])
        _save_maps(workflow, plan, run, atlas, target, edge, inputs)
    if config.sensitivity.edge_standard_errors:
        errors = pe.Node(EstimateEdgeErrors(**settings), name="errors", **size)
        workflow.connect([
            (inputs, errors, [*given, ("sigma", "sigma")]),
            (errors, notes, [("notes", f"in{len(targets) + 1}")]),
        ])  # fmt: skip
        _save_errors(workflow, plan, run, atlas, errors, inputs)
    workflow.connect([(notes, outputs, [("out", "notes")])])
    return workflow


def _needed(run: DWIRun) -> list[str]:
    """Name what the derivatives of a run depend on."""
    responses = [f"response_{tissue.lower()}" for tissue in run.fodf_model.tissues]
    tissue = ["five_tissue_types"] if run.is_constrained else []
    return [*_SCENE, *tissue, *(responses if run.tracks_fitted_fodf else [])]


def _settings(plan: Plan, run: DWIRun, atlas: Atlas) -> dict[str, Any]:
    """Gather the settings that derivatives depend on, by the names of the interfaces' inputs."""
    config = plan.config
    parts = (
        config.tracking,
        config.act,
        seeding_of(config.seeding, run),
        regions_of(config.regions, run),
        fodf_of(config.fodf, run),
        config.connectome,
        config.sensitivity,
    )
    own = parcellation_of(atlas, run) if atlas.kind == "subject" else atlas
    known = set(MapSensitivity.input_spec().copyable_trait_names())
    settings = {
        key: list(value) if isinstance(value, tuple) else value
        for part in parts
        for key, value in asdict(part).items()
        if key in known
    }
    threshold = config.preprocessing.b0_threshold_s_mm2
    return settings | {"table": str(own.table), "b0_threshold_s_mm2": threshold}


def _save_maps(workflow, plan: Plan, run: DWIRun, atlas: Atlas, target: EdgeTarget, edge, inputs):
    metadata = {
        "sensitivity": "metadata",
        "sensitivity_dwi": "dwi_metadata",
        "sensitivity_fodf": "fodf_metadata",
    }
    for key in sensitivity_maps(run):
        entities = sensitivity_entities(key, atlas.name, target)
        sink = init_atlas_sink(plan, run, atlas.name, f"ds_{target.desc}_{key}", entities)
        workflow.connect([(edge, sink, [(key, "in_file"), (metadata[key], "meta_dict")])])
    plot = pe.Node(
        PlotSensitivity(edge=target.text, table=edge.inputs.table),
        name=f"plot_{target.desc}",
        mem_gb=1.5,
    )
    sink = init_report_sink(plan, run, "sensitivity", atlas=atlas.name, label=target.desc)
    workflow.connect([
        (inputs, plot, [(field, field) for field in ("dwiref", "mask", "parcellation")]),
        (edge, plot, [("sensitivity", "sensitivity"), ("metadata", "metadata")]),
        (plot, sink, [("out_report", "in_file")]),
    ])  # fmt: skip


def _save_errors(workflow, plan: Plan, run: DWIRun, atlas: Atlas, errors, inputs):
    entities = output_entities("edge_sd", run, plan.config)
    sink = init_atlas_sink(plan, run, atlas.name, "ds_edge_sd", entities)
    plot = pe.Node(PlotEdgeErrors(), name="plot_errors", mem_gb=1.0)
    figure = init_report_sink(plan, run, "errors", atlas=atlas.name)
    workflow.connect([
        (errors, sink, [("sd", "in_file"), ("sd_metadata", "meta_dict")]),
        (inputs, plot, [("streamlines", "count")]),
        (errors, plot, [("sd", "sd")]),
        (plot, figure, [("out_report", "in_file")]),
    ])  # fmt: skip


def _methods(config: Config) -> str:
    settings, said = config.sensitivity, []
    if settings.sensitivity:
        said.append(
            "The sensitivity of edges to the image is their derivative by the diffusion signal "
            "and by the fODFs: through a soft assignment of ends to parcels (Gaussian, "
            f"{settings.soft_sigma_mm:g} mm), a soft survival of the fODF cutoff "
            f"({settings.sensitivity_softness:g}), all steps of the streamlines by the discrete "
            "adjoint method, and the deconvolution."
        )
    if settings.edge_standard_errors:
        said.append(
            "Standard deviations of edges were estimated by the delta method, from the noise map "
            "of Marchenko-Pastur principal component analysis [@veraart2016] and the derivative "
            "of edges by the signal, with a soft survival of the fODF cutoff "
            f"({settings.errors_softness:g})."
        )
    return f"### Sensitivity\n\n{' '.join(said)}\n\n"
