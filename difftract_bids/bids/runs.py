"""What there is to process: each participant's diffusion runs and the T1w that goes with them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
from bids import BIDSLayout

from difftract_bids.errors import InputError

#: Entities of a raw file that its derivatives inherit, in the order of file names.
INHERITED = ("subject", "session", "acquisition", "reconstruction", "direction", "run")
_KEYS = {
    "subject": "sub",
    "session": "ses",
    "acquisition": "acq",
    "reconstruction": "rec",
    "direction": "dir",
    "run": "run",
}


@dataclass(frozen=True)
class DWIRun:
    """One diffusion acquisition with its gradient table and T1w.

    Attributes
    ----------
    entities
        Those of :data:`INHERITED` that its name has.
    dwi, bval, bvec
        Its files.
    t1w
        The T1w of the same session, else of the first session that has one; ``None`` if no
        session has.
    metadata
        Content of its JSON sidecars, inheritance applied.
    """

    entities: dict[str, Any]
    dwi: Path
    bval: Path
    bvec: Path
    t1w: Path | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

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
            _KEYS[name]: str(self.entities[name]) for name in INHERITED if name in self.entities
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
    """Find the diffusion runs of a participant.

    Raises
    ------
    InputError
        If there is none, or one lacks its bval or bvec.
    """
    query: dict[str, Any] = {"subject": participant}
    if sessions:
        query["session"] = [label.removeprefix("ses-") for label in sessions]
    extension = [".nii.gz", ".nii"]
    images = layout.get(suffix="dwi", datatype="dwi", extension=extension, **query)
    if not images:
        within = f" in session {', '.join(sessions)}" if sessions else ""
        raise InputError(
            f"Participant {participant} has no diffusion image{within}.",
            where=Path(layout.root) / f"sub-{participant}",
            remedy="Expected sub-*/[ses-*/]dwi/*_dwi.nii.gz; name another participant or session.",
        )
    anatomical = layout.get(
        suffix="T1w", datatype="anat", extension=extension, subject=participant
    )
    return [_run(layout, image, anatomical) for image in images]


def image_size_gb(path: Path) -> float:
    """Size of an image in memory as float32, GB; read from its header."""
    return float(math.prod(nib.load(path).shape)) * 4 / 1e9


def _run(layout: BIDSLayout, image: Any, anatomical: list[Any]) -> DWIRun:  # noqa: ANN401
    found = image.get_entities()
    return DWIRun(
        entities={name: found[name] for name in INHERITED if name in found},
        dwi=Path(image.path),
        bval=_companion(layout, image.path, "bval"),
        bvec=_companion(layout, image.path, "bvec"),
        t1w=_t1w_for(found.get("session"), anatomical),
        metadata=_sidecar(layout, image.path),
    )


def _companion(layout: BIDSLayout, dwi: str, kind: str) -> Path:
    nearest = layout.get_nearest(dwi, extension=f".{kind}", suffix="dwi", full_search=True)
    if not nearest:
        raise InputError(
            f"The diffusion image has no .{kind} file.",
            where=dwi,
            remedy=f"Put {Path(dwi).name.split('.', maxsplit=1)[0]}.{kind} beside it.",
        )
    return Path(nearest)


def _t1w_for(session: str | None, anatomical: list[Any]) -> Path | None:
    same = [image for image in anatomical if image.get_entities().get("session") == session]
    candidates = sorted(Path(image.path) for image in (same or anatomical))
    return candidates[0] if candidates else None


def _sidecar(layout: BIDSLayout, dwi: str) -> dict[str, Any]:
    import json

    merged: dict[str, Any] = {}
    nearest = layout.get_nearest(dwi, extension=".json", suffix="dwi", all_=True, full_search=True)
    # From the most general to the closest file: the closest has the last word.
    for path in reversed(nearest or []):
        try:
            merged.update(json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise InputError(
                f"The sidecar is not valid JSON: {error}.", where=path, remedy="Mend the file."
            ) from error
    return merged
