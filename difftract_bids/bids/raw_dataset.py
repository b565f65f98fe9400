"""The images of a raw dataset, by participant, and which of them count as inputs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from difftract_bids.bids.filters import Filters
from difftract_bids.bids.labels import LABEL
from difftract_bids.bids.listing import names_in
from difftract_bids.bids.templates import entities_of

#: Folders of a participant or session that images are looked for in.
DATATYPES = ("anat", "dwi", "fmap")
NIFTI = (".nii.gz", ".nii")
_IMAGE = re.compile(
    rf"sub-{LABEL}/(?:ses-{LABEL}/)?(?:{'|'.join(DATATYPES)})/[^/.][^/]*\.nii(?:\.gz)?"
)
#: Where images of each kind lie, and their suffix.
_PLACES = {"dwi": ("dwi", "dwi"), "t1w": ("anat", "T1w")}


@dataclass(frozen=True)
class RawDataset:
    """A raw dataset.

    Attributes
    ----------
    root
        Its folder, absolute.
    images
        All images of the participants asked for, by their labels, sorted.
    filters
        Which images count as inputs.
    """

    root: Path
    images: Mapping[str, tuple[Path, ...]]
    filters: Filters = field(default_factory=Filters)

    def all_of(self, participant: str, kind: str) -> list[Path]:
        """List a participant's images of a kind, whatever the filters say; no phase images.

        Parameters
        ----------
        participant
            Label, without the ``sub-``.
        kind
            ``dwi`` or ``t1w``.
        """
        datatype, suffix = _PLACES[kind]
        return [
            path
            for path in self.images.get(participant, ())
            if path.parent.name == datatype
            and path.name.partition(".")[0].endswith(f"_{suffix}")
            and _is_raw_magnitude(path)
        ]

    def images_of(self, participant: str, kind: str) -> list[Path]:
        """List a participant's images of a kind that count as inputs.

        Parameters
        ----------
        participant
            Label, without the ``sub-``.
        kind
            ``dwi`` or ``t1w``.
        """
        return [path for path in self.all_of(participant, kind) if self.filters.keep(kind, path)]


def by_participant(root: Path, images: Iterable[Path]) -> dict[str, tuple[Path, ...]]:
    """Sort images by participant, by folder and name alike.

    pybids reads entities from all of the path, from above the dataset as well.
    """
    found: dict[str, list[Path]] = {}
    for path in sorted(images):
        label = entities_of(path).get("sub")
        if label is not None and path.relative_to(root).parts[0] == f"sub-{label}":
            found.setdefault(label, []).append(path)
    return {label: tuple(paths) for label, paths in found.items()}


def is_image(name: Path) -> bool:
    """Say whether a file is one of the images that are looked for.

    Parameters
    ----------
    name
        Its path below the dataset's folder.
    """
    return _IMAGE.fullmatch(name.as_posix()) is not None


def images_on_disk(root: Path, participant: str) -> set[Path]:
    """List the images of a participant that are there, by their folders."""
    own = Path(f"sub-{participant}")
    sessions = [own / name for name in names_in(root / own) if name.startswith("ses-")]
    found = (
        folder / datatype / name
        for folder in (own, *sessions)
        for datatype in DATATYPES
        for name in names_in(root / folder / datatype)
    )
    return {root / path for path in found if is_image(path)}


def _is_raw_magnitude(path: Path) -> bool:
    names = entities_of(path)
    derived = names.keys() & {"desc", "space"}  # derivatives among the raw data
    return names.get("part", "mag") == "mag" and not derived
