"""What a run promises to write: one table, used to name the files and to check that they exist."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bids.layout.writing import build_path

from difftract_bids.bids.layout import path_patterns
from difftract_bids.bids.runs import DWIRun
from difftract_bids.config import Config


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
    """

    entities: dict[str, str]
    sidecar: bool = True
    per_atlas: bool = False
    needs_t1w: bool = False


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
    "fodf": Output({"model": "csd", "param": "fod", "suffix": "dwimap", "extension": ".nii.gz"}),
    "tractogram": Output({"model": "sdstream", "suffix": "tractogram", "extension": ".trx"}),
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
    "count": Output(
        {"meas": "count", "suffix": "relmat", "extension": ".dense.tsv"}, per_atlas=True
    ),
    "meanlength": Output(
        {"meas": "meanlength", "suffix": "relmat", "extension": ".dense.tsv"}, per_atlas=True
    ),
}


#: What the report shows: once per run (the second with a T1w only), once per atlas.
RUN_FIGURES = ("summary", "gradients", "mask", "fa", "fodf", "tractogram")
T1W_FIGURES = ("coreg",)
ATLAS_FIGURES = ("parcellation", "connectome")


def figure_entities(desc: str, atlas: str | None = None) -> dict[str, str]:
    """Entities of a figure (or snippet) of the report."""
    extension = ".html" if desc == "summary" else ".svg"
    entities = {"datatype": "figures", "desc": desc, "suffix": "dwi", "extension": extension}
    return entities | ({"atlas": atlas} if atlas else {})


def promised_figures(run: DWIRun, atlases: list[str]) -> Iterator[str]:
    """List the figures of a run, relative to the derivatives folder."""
    descs: list[tuple[str, str | None]]
    descs = [(desc, None) for desc in RUN_FIGURES + (T1W_FIGURES if run.t1w else ())]
    descs += [(desc, atlas) for desc in ATLAS_FIGURES for atlas in atlases]
    for desc, atlas in descs:
        entities = {**run.entities, **figure_entities(desc, atlas)}
        yield str(build_path(entities, path_patterns(), strict=True))


def output_entities(key: str, config: Config) -> dict[str, str]:
    """Entities of an output, with the format that the settings ask for."""
    entities = {"datatype": "dwi", **OUTPUTS[key].entities}
    if key == "tractogram":
        entities["model"] = config.tracking.algorithm.replace("_", "")
        entities["extension"] = f".{config.output.tractogram_format}"
    return entities


def is_wanted(key: str, config: Config) -> bool:
    """Say whether the settings ask for an output."""
    return key != "tractogram" or config.output.tractogram


def output_path(run: DWIRun, key: str, config: Config, atlas: str | None = None) -> str:
    """Path of an output, relative to the derivatives folder."""
    entities: dict[str, Any] = {**run.entities, **output_entities(key, config)}
    if atlas is not None:
        entities["atlas"] = atlas
    return str(build_path(entities, path_patterns(), strict=True))


def promised_outputs(run: DWIRun, atlases: list[str], config: Config) -> Iterator[str]:
    """List every file that a run must leave behind, relative to the derivatives folder."""
    for key, output in OUTPUTS.items():
        if (output.needs_t1w and run.t1w is None) or not is_wanted(key, config):
            continue
        for atlas in atlases if output.per_atlas else [None]:
            path = output_path(run, key, config, atlas)
            yield path
            if output.sidecar:
                yield str(Path(path).parent / (Path(path).name.split(".", 1)[0] + ".json"))
    yield from promised_figures(run, atlases)
    yield f"sub-{run.participant}.html"


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
