"""What a run promises to write: one table, used to name the files and to check that they exist."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bids.layout.writing import build_path

from difftract_bids.bids.edge_targets import EdgeTarget
from difftract_bids.bids.layout import path_patterns
from difftract_bids.bids.runs import DWIRun
from difftract_bids.config import MEASURES, Config, ConnectomeConfig


@dataclass(frozen=True)
class Output:
    """A kind of output file.

    Attributes
    ----------
    entities
        What its name has besides the entities of the diffusion run.
    sidecar
        Whether a JSON file goes with it.
    per_atlas
        Whether there is one for each atlas.
    needs_t1w
        Whether it exists only for runs with a T1w.
    tissue
        Tissue of the fODF model that it is of: it exists only for models that have it.
    of_fodf
        Whether it comes from the fODF model, which its name then has.
    needs_target
        Whether it exists only where fODFs are adjusted to a target.
    of_tracking
        Whether its name has the tracking algorithm as its model.
    setting
        Setting of the connectome that it depends on, if it depends on one.
    """

    entities: dict[str, str]
    sidecar: bool = True
    per_atlas: bool = False
    needs_t1w: bool = False
    tissue: str = ""
    of_fodf: bool = False
    needs_target: bool = False
    of_tracking: bool = False
    setting: str = ""


def _fodf(tissue: str) -> Output:
    entities = {"param": "fod", "suffix": "dwimap", "extension": ".nii.gz"}
    return Output(entities, tissue=tissue, of_fodf=True)


def _fodf_map(param: str) -> Output:
    entities = {"param": param, "suffix": "dwimap", "extension": ".nii.gz"}
    return Output(entities, of_fodf=True)


def _response(tissue: str) -> Output:
    entities = {"label": tissue, "suffix": "response", "extension": ".txt"}
    return Output(entities, tissue=tissue, of_fodf=True)


def _matrix(measure: str) -> Output:
    entities = {"meas": measure, "suffix": "relmat", "extension": ".dense.tsv"}
    return Output(entities, per_atlas=True)


OUTPUTS = {
    "preproc_dwi": Output({"desc": "preproc", "suffix": "dwi", "extension": ".nii.gz"}),
    "preproc_bval": Output(
        {"desc": "preproc", "suffix": "dwi", "extension": ".bval"}, sidecar=False
    ),
    "preproc_bvec": Output(
        {"desc": "preproc", "suffix": "dwi", "extension": ".bvec"}, sidecar=False
    ),
    "mask": Output({"desc": "brain", "suffix": "mask", "extension": ".nii.gz"}),
    "dwiref": Output({"suffix": "dwiref", "extension": ".nii.gz"}),
    "fa": Output({"model": "tensor", "param": "fa", "suffix": "dwimap", "extension": ".nii.gz"}),
    "md": Output({"model": "tensor", "param": "md", "suffix": "dwimap", "extension": ".nii.gz"}),
    # Directionally encoded colours: BEP016's word for them is dec.
    "colour_fa": Output(
        {
            "model": "tensor",
            "param": "fa",
            "desc": "dec",
            "suffix": "dwimap",
            "extension": ".nii.gz",
        }
    ),
    "fodf": _fodf("WM"),
    "fodf_gm": _fodf("GM"),
    "fodf_csf": _fodf("CSF"),
    "refined_fodf": Output(
        {"param": "fod", "desc": "refined", "suffix": "dwimap", "extension": ".nii.gz"},
        tissue="WM",
        of_fodf=True,
        needs_target=True,
    ),
    "response_wm": _response("WM"),
    "response_gm": _response("GM"),
    "response_csf": _response("CSF"),
    "afdtotal": _fodf_map("afdtotal"),
    "nufo": _fodf_map("nufo"),
    "peak": _fodf_map("peak"),
    "tractogram": Output({"suffix": "tractogram", "extension": ".trx"}, of_tracking=True),
    "weights": Output(
        {"desc": "sift2", "suffix": "weights", "extension": ".tsv"}, of_tracking=True
    ),
    "t1w_dwi": Output(
        {
            "datatype": "anat",
            "space": "dwi",
            "desc": "preproc",
            "suffix": "T1w",
            "extension": ".nii.gz",
        },
        needs_t1w=True,
    ),
    "t1w_to_dwi": Output(
        {"from": "T1w", "to": "dwi", "mode": "image", "suffix": "xfm", "extension": ".txt"},
        needs_t1w=True,
    ),
    "dwi_to_t1w": Output(
        {"from": "dwi", "to": "T1w", "mode": "image", "suffix": "xfm", "extension": ".txt"},
        needs_t1w=True,
    ),
    "dseg": Output({"suffix": "dseg", "extension": ".nii.gz"}, per_atlas=True),
    "dseg_table": Output({"suffix": "dseg", "extension": ".tsv"}, sidecar=False, per_atlas=True),
    "nodeindices": Output({"suffix": "nodeindices", "extension": ".tsv"}, per_atlas=True),
    **{measure: _matrix(measure) for measure in MEASURES},
    "assignments": Output(
        {"suffix": "assignments", "extension": ".tsv"},
        per_atlas=True,
        setting="streamline_assignments",
    ),
    "edge_sd": Output(
        {"meas": "count", "stat": "sd", "suffix": "relmat", "extension": ".dense.tsv"},
        per_atlas=True,
    ),
    # All atlases in one.
    "hdf5": Output(
        {"desc": "connectomes", "suffix": "relmat", "extension": ".h5"},
        setting="connectome_hdf5",
    ),
}


#: What the report shows: once per run, with a T1w only, once per atlas.
RUN_FIGURES = ("summary", "gradients", "mask", "fa", "fodf", "tractogram")
T1W_FIGURES = ("coreg",)
#: With fODFs that were fitted; with several tissues.
FITTED_FIGURES, TISSUE_FIGURES = ("response",), ("tissues",)
#: Where fODFs are adjusted to a target.
REFINEMENT_FIGURE = "refinement"
ATLAS_FIGURES = ("parcellation", "connectome")
#: With any of these measures, of which it shows those there are.
EDGE_FIGURE, EDGE_MEASURES = "edges", ("sift2", "meanfa", "meanlength")


def figure_entities(
    desc: str, atlas: str | None = None, label: str | None = None
) -> dict[str, str]:
    """Entities of a figure (or snippet) of the report."""
    extension = ".html" if desc == "summary" else ".svg"
    entities = {"datatype": "figures", "desc": desc, "suffix": "dwi", "extension": extension}
    entities |= {"atlas": atlas} if atlas else {}
    return entities | ({"label": label} if label else {})


#: With sensitivities, one for each edge; with standard errors.
SENSITIVITY_FIGURE, ERRORS_FIGURE = "sensitivity", "errors"
#: Maps of the sensitivity of an edge, by the outputs of ``MapSensitivity``: their ``param-``.
SENSITIVITY_PARAMS = {
    "sensitivity": "sensitivity",
    "sensitivity_dwi": "sensitivitydwi",
    "sensitivity_fodf": "sensitivityfod",
}


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


def edge_measures(config: Config) -> list[str]:
    """List the measures that the second figure of a connectome shows."""
    return [name for name in EDGE_MEASURES if name in config.connectome.connectome_measures]


def promised_figures(run: DWIRun, atlases: list[str], config: Config) -> Iterator[str]:
    """List the figures of a run, relative to the derivatives folder."""
    descs: list[tuple[str, str | None]]
    descs = [(desc, None) for desc in RUN_FIGURES + (T1W_FIGURES if run.t1w else ())]
    descs += [(desc, None) for desc in FITTED_FIGURES if run.fodf_model.is_fitted]
    descs += [(desc, None) for desc in TISSUE_FIGURES if run.fodf_model.is_multi_tissue]
    descs += [(REFINEMENT_FIGURE, None)] if run.refinement else []
    of_atlases = ATLAS_FIGURES + ((EDGE_FIGURE,) if edge_measures(config) else ())
    descs += [(desc, atlas) for desc in of_atlases for atlas in atlases]
    descs += [(ERRORS_FIGURE, atlas) for atlas in atlases if is_wanted("edge_sd", run, config)]
    figures = [figure_entities(desc, atlas) for desc, atlas in descs]
    figures += [
        figure_entities(SENSITIVITY_FIGURE, atlas, target.desc)
        for atlas, target in run.edge_targets
    ]
    for figure in figures:
        yield str(build_path({**run.entities, **figure}, path_patterns(), strict=True))


def output_entities(key: str, run: DWIRun, config: Config) -> dict[str, str]:
    """Entities of an output, with the run's model and the format that the settings ask for."""
    output = OUTPUTS[key]
    entities = {"datatype": "dwi", **output.entities}
    if output.of_fodf:
        entities["model"] = run.fodf_model.name
        if output.tissue and run.fodf_model.is_multi_tissue:
            entities["label"] = output.tissue
    if output.of_tracking:
        entities["model"] = config.tracking.algorithm.replace("_", "")
    if key == "tractogram":
        entities["extension"] = f".{config.output.tractogram_format}"
    return entities


def is_wanted(key: str, run: DWIRun, config: Config) -> bool:
    """Say whether a run has an output, by its T1w, its fODF model and the settings."""
    output = OUTPUTS[key]
    if output.tissue and output.tissue not in run.fodf_model.tissues:
        return False
    estimated = run.fodf_model.is_fitted and not config.fodf.response
    if output.entities["suffix"] == "response" and not estimated:
        return False  # given ones are not a result, and the group level must not take them for one
    if (output.needs_t1w and run.t1w is None) or (output.needs_target and not run.refinement):
        return False
    if key == "tractogram":
        return config.output.tractogram
    if key == "edge_sd":
        return config.sensitivity.edge_standard_errors
    return _is_wanted_of_connectome(key, config.connectome)


def _is_wanted_of_connectome(key: str, connectome: ConnectomeConfig) -> bool:
    """Say whether the settings ask for what comes with connectomes; other outputs always are."""
    if key in MEASURES:
        return key in connectome.connectome_measures
    if key == "weights":
        return "sift2" in connectome.connectome_measures
    setting = OUTPUTS[key].setting
    return not setting or bool(getattr(connectome, setting))


def tracked_in(run: DWIRun, config: Config) -> str:
    """Name the output that streamlines follow."""
    if config.tracking.algorithm == "tensor_det":
        return "preproc_dwi"
    return "refined_fodf" if run.refinement else "fodf"


def output_path(run: DWIRun, key: str, config: Config, atlas: str | None = None) -> str:
    """Path of an output, relative to the derivatives folder."""
    entities: dict[str, Any] = {**run.entities, **output_entities(key, run, config)}
    if atlas is not None:
        entities["atlas"] = atlas
    return str(build_path(entities, path_patterns(), strict=True))


def promised_outputs(run: DWIRun, atlases: list[str], config: Config) -> Iterator[str]:
    """List every file that a run must leave behind, relative to the derivatives folder."""
    for key, output in OUTPUTS.items():
        if not is_wanted(key, run, config):
            continue
        for atlas in atlases if output.per_atlas else [None]:
            path = output_path(run, key, config, atlas)
            yield path
            if output.sidecar:
                yield _sidecar_of(path)
    for atlas, target in run.edge_targets:
        for key in sensitivity_maps(run):
            entities = {**run.entities, **sensitivity_entities(key, atlas, target)}
            path = str(build_path(entities, path_patterns(), strict=True))
            yield path
            yield _sidecar_of(path)
    yield from promised_figures(run, atlases, config)
    yield f"sub-{run.participant}.html"


def _sidecar_of(path: str) -> str:
    return str(Path(path).parent / (Path(path).name.split(".", 1)[0] + ".json"))


def missing_outputs(
    output_dir: Path, runs: list[DWIRun], atlases: list[str], config: Config
) -> list[str]:
    """List the promised files that do not exist, or are empty."""
    promised = {path for run in runs for path in promised_outputs(run, atlases, config)}
    return sorted(
        path
        for path in promised
        if not (output_dir / path).is_file() or not (output_dir / path).stat().st_size
    )
