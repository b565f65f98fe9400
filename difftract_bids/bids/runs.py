"""What there is to process: each participant's diffusion runs and the T1w that goes with them."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
from bids import BIDSLayout

from difftract_bids.bids.edge_targets import EdgeTarget
from difftract_bids.bids.fodf_model import ONE_TISSUE, ModelChoice
from difftract_bids.bids.refinement_target import RefinementTarget
from difftract_bids.bids.templates import entities_of
from difftract_bids.errors import InputError

#: Entities of a raw file that its derivatives inherit, in the order of file names.
_KEYS = {
    "subject": "sub",
    "session": "ses",
    "acquisition": "acq",
    "reconstruction": "rec",
    "direction": "dir",
    "run": "run",
    "chunk": "chunk",
}


@dataclass(frozen=True)
class DWIRun:
    """One diffusion acquisition with its gradient table and T1w.

    Attributes
    ----------
    entities
        Those of its name that its derivatives inherit, by pybids' long names.
    dwi, bval, bvec
        Its files.
    t1w
        The T1w of the same session, else of the first session that has one; ``None`` if no
        session has.
    metadata
        Content of its JSON sidecars, inheritance applied.
    fodf_model
        The model of its fODFs, chosen when the run is planned.
    refinement
        What its fODFs are adjusted to, found when the run is planned; ``None`` if to nothing.
    edge_targets
        Atlases and those of their edges that sensitivities are mapped of, found when the run is
        planned.
    """

    entities: dict[str, Any]
    dwi: Path
    bval: Path
    bvec: Path
    t1w: Path | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    fodf_model: ModelChoice = ONE_TISSUE
    refinement: RefinementTarget | None = None
    edge_targets: tuple[tuple[str, EdgeTarget], ...] = ()

    @property
    def tracks_fitted_fodf(self) -> bool:
        """Whether the fODFs that are tracked are those that were fitted, and are so unchanged."""
        return self.fodf_model.is_fitted and self.refinement is None

    @property
    def participant(self) -> str:
        """Label of the participant, without the ``sub-``."""
        return str(self.entities["subject"])

    @property
    def session(self) -> str | None:
        """Label of the session, without the ``ses-``."""
        return self.entities.get("session")

    @property
    def stem(self) -> str:
        """First part of all its derivatives' names, such as ``sub-01_ses-A_run-1``."""
        return "_".join(f"{key}-{value}" for key, value in self.file_entities.items())

    @property
    def file_entities(self) -> dict[str, str]:
        """Entities by the short keys of file names: ``sub``, ``ses``, ``acq`` ..."""
        return {
            key: str(self.entities[entity])
            for entity, key in _KEYS.items()
            if entity in self.entities
        }

    @property
    def node_name(self) -> str:
        """Name as Nipype allows it: letters, digits and underscores."""
        return (
            self.stem.removeprefix(f"sub-{self.participant}").replace("-", "").strip("_") or "dwi"
        )


def find_runs(
    layout: BIDSLayout, participant: str, sessions: list[str] | None = None
) -> list[DWIRun]:
    """Find the diffusion runs of a participant; phase images are left out.

    Raises
    ------
    InputError
        If there is none, one lacks its bval or bvec, or two would give outputs of the same name.
    """
    images = _images(layout, participant, "dwi", "dwi", sessions)
    if not images:
        within = f" in session {', '.join(sessions)}" if sessions else ""
        raise InputError(
            f"Participant {participant} has no diffusion image{within}.",
            where=Path(layout.root) / f"sub-{participant}",
            remedy="Expected sub-*/[ses-*/]dwi/*_dwi.nii.gz; name another participant or session.",
        )
    anatomical = _images(layout, participant, "anat", "T1w")
    runs = [_run(Path(layout.root), image, anatomical) for image in images]
    for one, other in itertools.pairwise(sorted(runs, key=lambda run: run.stem)):
        if one.stem == other.stem:
            raise InputError(
                f"Two diffusion images would give outputs of the same name: {one.dwi.name} and "
                f"{other.dwi.name}.",
                where=one.dwi.parent,
                remedy=f"Tell them apart by one of: {', '.join(_KEYS.values())}.",
            )
    return runs


def _images(
    layout: BIDSLayout,
    participant: str,
    datatype: str,
    suffix: str,
    sessions: list[str] | None = None,
) -> list[Path]:
    """Find images by their own names: pybids reads entities from all of the path above as well."""
    found = layout.get(
        suffix=suffix, datatype=datatype, extension=[".nii.gz", ".nii"], return_type="filename"
    )
    wanted = {label.removeprefix("ses-") for label in sessions or []}
    return [
        path
        for path, names in ((Path(name), entities_of(Path(name))) for name in sorted(found))
        if names.get("sub") == participant
        and names.get("part", "mag") == "mag"
        and (not wanted or names.get("ses") in wanted)
    ]


def image_size_gb(path: Path) -> float:
    """Size of an image in memory as float32, GB; read from its header."""
    return float(math.prod(nib.load(path).shape)) * 4 / 1e9


def _run(root: Path, image: Path, anatomical: list[Path]) -> DWIRun:
    names = entities_of(image)
    return DWIRun(
        entities={entity: names[key] for entity, key in _KEYS.items() if key in names},
        dwi=image,
        bval=_companion(root, image, "bval"),
        bvec=_companion(root, image, "bvec"),
        t1w=_t1w_for(names.get("ses"), anatomical),
        metadata=_sidecar(root, image),
    )


def _companions(root: Path, image: Path, extension: str) -> list[Path]:
    """List the files that apply to an image by the inheritance principle, the closest first.

    They lie beside the image or in a folder above it, and their names hold no entity that the
    image's does not (https://bids-specification.readthedocs.io, common principles).
    """
    own = entities_of(image).items()
    found = []
    for folder in itertools.takewhile(lambda f: f.is_relative_to(root), image.parents):
        here = [
            path
            for path in (*folder.glob(f"*_dwi.{extension}"), *folder.glob(f"dwi.{extension}"))
            if entities_of(path).items() <= own
        ]
        found += sorted(here, key=lambda path: -len(entities_of(path)))
    return found


def _companion(root: Path, image: Path, extension: str) -> Path:
    found = _companions(root, image, extension)
    if not found:
        raise InputError(
            f"The diffusion image has no .{extension} file.",
            where=image,
            remedy=f"Put {image.name.split('.', maxsplit=1)[0]}.{extension} beside it.",
        )
    return found[0]


def _t1w_for(session: str | None, anatomical: list[Path]) -> Path | None:
    same = [image for image in anatomical if entities_of(image).get("ses") == session]
    return next(iter(same or anatomical), None)


def _sidecar(root: Path, image: Path) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    # From the most general to the closest file: the closest has the last word.
    for path in reversed(_companions(root, image, "json")):
        try:
            merged.update(_json_object(path))
        except (OSError, ValueError) as error:
            raise InputError(
                f"The sidecar is not valid JSON: {error}.", where=path, remedy="Mend the file."
            ) from error
    return merged


def _json_object(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"it holds a {type(content).__name__}, not an object")  # noqa: TRY004
    return content
