"""What a run writes: one table, used to name the files and to check that they exist."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from difftract_bids.bids import stages
from difftract_bids.bids.edge_targets import EdgeTarget
from difftract_bids.bids.layout import derivative_path
from difftract_bids.bids.runs import DWIRun
from difftract_bids.config import MEASURES, Config

Condition = Callable[[DWIRun, Config], bool]


def _always(_run: DWIRun, _config: Config) -> bool:
    return True


@dataclass(frozen=True)
class Output:
    """A kind of output file.

    Attributes
    ----------
    entities
        What its name has besides the entities of the diffusion run.
    when
        Whether a run has it, by its files and the settings.
    sidecar
        Whether a JSON file goes with it.
    per_atlas, per_template
        Whether there is one for each atlas, or for each template that is registered.
    tissue
        Tissue of the fODF model that it is of: it exists only for models that have it.
    of_fodf
        Whether it comes from the fODF model, which its name then has.
    of_tracking
        Whether its name has the tracking algorithm as its model.
    """

    entities: dict[str, str]
    when: Condition = _always
    sidecar: bool = True
    per_atlas: bool = False
    per_template: bool = False
    tissue: str = ""
    of_fodf: bool = False
    of_tracking: bool = False


def _file(
    suffix: str, extension: str = ".nii.gz", *, when: Condition = _always, **entities: str
) -> Output:
    return Output({**entities, "suffix": suffix, "extension": extension}, when)


def _fodf(tissue: str, *, when: Condition = _always, **entities: str) -> Output:
    named = {"param": "fod", **entities, "suffix": "dwimap", "extension": ".nii.gz"}
    return Output(named, when, tissue=tissue, of_fodf=True)


def _fodf_map(param: str) -> Output:
    return Output({"param": param, "suffix": "dwimap", "extension": ".nii.gz"}, of_fodf=True)


def _response(tissue: str) -> Output:
    def estimated(run: DWIRun, config: Config) -> bool:
        # Given ones are not a result, and the group level must not take them for one.
        return run.fodf_model.is_fitted and not config.fodf.response

    entities = {"label": tissue, "suffix": "response", "extension": ".txt"}
    return Output(entities, estimated, tissue=tissue, of_fodf=True)


def _rigid(source: str, target: str) -> Output:
    entities = {"from": source, "to": target, "mode": "image"}
    return _file("xfm", ".txt", when=lambda run, _: stages.is_aligned_here(run), **entities)


def _warp(source: str, target: str) -> Output:
    entities = {"from": source, "to": target, "mode": "image", "suffix": "xfm"}
    return Output({**entities, "extension": ".h5"}, per_template=True)


def _matrix(measure: str) -> Output:
    def asked_for(_run: DWIRun, config: Config) -> bool:
        return measure in config.connectome.connectome_measures

    entities = {"meas": measure, "suffix": "relmat", "extension": ".dense.tsv"}
    return Output(entities, asked_for, per_atlas=True)


#: Stands for the name of a template in the entities of what there is one of for each template.
_TEMPLATE = "{template}"
OUTPUTS = {
    "preproc_dwi": _file("dwi", desc="preproc"),
    "preproc_bval": Output(
        {"desc": "preproc", "suffix": "dwi", "extension": ".bval"}, sidecar=False
    ),
    "preproc_bvec": Output(
        {"desc": "preproc", "suffix": "dwi", "extension": ".bvec"}, sidecar=False
    ),
    "mask": _file("mask", desc="brain"),
    "dwiref": _file("dwiref"),
    "sigma": _file("dwimap", desc="noise", param="sigma", when=stages.has_noise_map),
    "confounds": _file("timeseries", ".tsv", desc="confounds", when=stages.corrects_motion),
    "outliers": _file("timeseries", ".tsv", desc="outliers", when=stages.corrects_motion),
    "checks": _file("quality", ".tsv", desc="checks"),
    "fa": _file("dwimap", model="tensor", param="fa"),
    "md": _file("dwimap", model="tensor", param="md"),
    # Directionally encoded colours: BEP016's word for them is dec.
    "colour_fa": _file("dwimap", model="tensor", param="fa", desc="dec"),
    "fodf": _fodf("WM"),
    "fodf_gm": _fodf("GM"),
    "fodf_csf": _fodf("CSF"),
    "refined_fodf": _fodf("WM", desc="refined", when=lambda run, _: run.refinement is not None),
    "response_wm": _response("WM"),
    "response_gm": _response("GM"),
    "response_csf": _response("CSF"),
    "afdtotal": _fodf_map("afdtotal"),
    "nufo": _fodf_map("nufo"),
    "peak": _fodf_map("peak"),
    "tractogram": Output(
        {"suffix": "tractogram", "extension": ".trx"},
        lambda _, config: config.output.tractogram,
        of_tracking=True,
    ),
    "weights": Output(
        {"desc": "sift2", "suffix": "weights", "extension": ".tsv"},
        lambda _, config: "sift2" in config.connectome.connectome_measures,
        of_tracking=True,
    ),
    "t1w_dwi": _file(
        "T1w",
        datatype="anat",
        space="dwi",
        desc="preproc",
        when=lambda run, _: stages.has_t1w(run),
    ),
    "five_tissue_types": _file(
        "probseg", datatype="anat", space="dwi", label="5tt", when=stages.makes_tissue
    ),
    "t1w_to_dwi": _rigid("T1w", "dwi"),
    "dwi_to_t1w": _rigid("dwi", "T1w"),
    "template_to_dwi": _warp(_TEMPLATE, "dwi"),
    "dwi_to_template": _warp("dwi", _TEMPLATE),
    "dseg": Output({"suffix": "dseg", "extension": ".nii.gz"}, per_atlas=True),
    "dseg_table": Output({"suffix": "dseg", "extension": ".tsv"}, sidecar=False, per_atlas=True),
    "nodeindices": Output({"suffix": "nodeindices", "extension": ".tsv"}, per_atlas=True),
    **{measure: _matrix(measure) for measure in MEASURES},
    "assignments": Output(
        {"suffix": "assignments", "extension": ".tsv"},
        lambda _, config: config.connectome.streamline_assignments,
        per_atlas=True,
    ),
    "edge_sd": Output(
        {"meas": "count", "stat": "sd", "suffix": "relmat", "extension": ".dense.tsv"},
        lambda _, config: config.sensitivity.edge_standard_errors,
        per_atlas=True,
    ),
    # All atlases in one.
    "hdf5": _file(
        "relmat",
        ".h5",
        desc="connectomes",
        when=lambda _, config: config.connectome.connectome_hdf5,
    ),
}

#: Maps of the sensitivity of an edge, by the outputs of ``MapSensitivity``: their ``param-``.
SENSITIVITY_PARAMS = {
    "sensitivity": "sensitivity",
    "sensitivity_dwi": "sensitivitydwi",
    "sensitivity_fodf": "sensitivityfod",
}


def is_wanted(key: str, run: DWIRun, config: Config) -> bool:
    """Say whether a run has an output, by its files, its fODF model and the settings."""
    output = OUTPUTS[key]
    if output.tissue and output.tissue not in run.fodf_model.tissues:
        return False
    return output.when(run, config)


def output_entities(
    key: str, run: DWIRun, config: Config, template: str | None = None
) -> dict[str, str]:
    """Entities of an output, with the run's model and the format that the settings ask for."""
    output = OUTPUTS[key]
    entities = {"datatype": "dwi", **output.entities}
    if output.per_template:
        entities |= {k: str(template) for k in ("from", "to") if entities[k] == _TEMPLATE}
    if output.of_fodf:
        entities["model"] = run.fodf_model.name
        if output.tissue and run.fodf_model.is_multi_tissue:
            entities["label"] = output.tissue
    if output.of_tracking:
        entities["model"] = config.tracking.algorithm.replace("_", "")
    if key == "tractogram":
        entities["extension"] = f".{config.output.tractogram_format}"
    return entities


def output_path(
    run: DWIRun,
    key: str,
    config: Config,
    atlas: str | None = None,
    template: str | None = None,
) -> str:
    """Path of an output, relative to the derivatives folder."""
    entities: dict[str, Any] = {**run.entities, **output_entities(key, run, config, template)}
    if atlas is not None:
        entities["atlas"] = atlas
    return derivative_path(entities)


def sensitivity_maps(run: DWIRun) -> list[str]:
    """List the maps that there are of an edge: none by the signal of fODFs it does not give."""
    return [
        key for key in SENSITIVITY_PARAMS if key != "sensitivity_dwi" or run.tracks_fitted_fodf
    ]


def sensitivity_entities(key: str, atlas: str, target: EdgeTarget) -> dict[str, str]:
    """Entities of a map of the sensitivity of an edge."""
    return {
        "datatype": "dwi",
        "atlas": atlas,
        "desc": target.desc,
        "param": SENSITIVITY_PARAMS[key],
        "suffix": "dwimap",
        "extension": ".nii.gz",
    }


def tracked_in(run: DWIRun, config: Config) -> str:
    """Name the output that streamlines follow."""
    if config.tracking.algorithm == "tensor_det":
        return "preproc_dwi"
    return "refined_fodf" if run.refinement else "fodf"
