"""What there is to process: each participant's diffusion runs and the anatomy that goes with them.

The runs of raw datasets are found in :mod:`difftract_bids.bids.raw_runs`, preprocessed ones in
:mod:`difftract_bids.bids.qsiprep`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib

from difftract_bids.bids.anatomy import Anatomy
from difftract_bids.bids.edge_targets import EdgeTarget
from difftract_bids.bids.fodf_model import ONE_TISSUE, ModelChoice
from difftract_bids.bids.labels import node_label
from difftract_bids.bids.phase_encoding import (
    NO_CORRECTION,
    Decision,
    Fieldmaps,
    PhaseEncoding,
)
from difftract_bids.bids.refinement_target import RefinementTarget
from difftract_bids.errors import InputError

#: Entities of a diffusion image that its derivatives inherit, in the order of file names.
#: ``space-`` is none of them: all that is derived lies in the space of the images themselves.
KEYS = {
    "subject": "sub",
    "session": "ses",
    "acquisition": "acq",
    "reconstruction": "rec",
    "direction": "dir",
    "run": "run",
    "chunk": "chunk",
}


@dataclass(frozen=True)
class RunPart:
    """One acquisition with its gradient table.

    Attributes
    ----------
    dwi, bval, bvec
        Its files.
    metadata
        Content of its JSON sidecars, inheritance applied.
    entities
        Those of its name, by pybids' long names.
    """

    dwi: Path
    bval: Path
    bvec: Path
    metadata: dict[str, Any] = field(default_factory=dict)
    entities: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PreprocessedDWI:
    """A diffusion series that another program has preprocessed.

    Attributes
    ----------
    dwi, bval, bvec
        The series.
    mask
        Its brain mask, if there is one.
    origin
        The program and its version.
    """

    dwi: Path
    bval: Path
    bvec: Path
    mask: Path | None = None
    origin: str = ""


@dataclass(frozen=True)
class DWIRun:
    """One diffusion series: an acquisition, several that are combined, or a preprocessed one.

    Attributes
    ----------
    entities
        Those of its name that its derivatives inherit, by pybids' long names; those that all
        parts share, if there are several.
    dwi, bval, bvec
        Its files; those of the first part, if there are several.
    anatomy
        The T1w, and what others made of it.
    metadata
        Content of its JSON sidecars, inheritance applied; what all parts agree on.
    fodf_model
        The model of its fODFs, chosen when the run is planned.
    refinement
        What its fODFs are adjusted to, found when the run is planned; ``None`` if to nothing.
    edge_targets
        Atlases and those of their edges that sensitivities are mapped of, found when the run is
        planned.
    parts
        The acquisitions that it is made of, at least one.
    preprocessed
        What another program has made of it; ``None`` for raw images.
    origins
        Whose results are used instead of our own, a sentence each, for the report.
    notes
        What the user should know of how it was found, a sentence each.
    remarks
        What was decided about it and why, a sentence each, for the report.
    phase_encoding
        How it was encoded, as far as its sidecar tells.
    fieldmaps
        Images that tell of its distortion.
    distortion
        What is done about its susceptibility distortion, decided when the run is planned.
    is_constrained
        Whether its streamlines obey tissue, decided when the run is planned.
    """

    entities: dict[str, Any]
    dwi: Path
    bval: Path
    bvec: Path
    anatomy: Anatomy = field(default_factory=Anatomy)
    metadata: dict[str, Any] = field(default_factory=dict)
    fodf_model: ModelChoice = ONE_TISSUE
    refinement: RefinementTarget | None = None
    edge_targets: tuple[tuple[str, EdgeTarget], ...] = ()
    parts: tuple[RunPart, ...] = ()
    preprocessed: PreprocessedDWI | None = None
    origins: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    phase_encoding: PhaseEncoding | None = None
    fieldmaps: Fieldmaps = field(default_factory=Fieldmaps)
    distortion: Decision = NO_CORRECTION
    is_constrained: bool = False

    def __post_init__(self) -> None:
        """Count a run that is not made of parts as its only one."""
        if not self.parts:
            own = RunPart(self.dwi, self.bval, self.bvec, self.metadata, self.entities)
            object.__setattr__(self, "parts", (own,))

    @property
    def t1w(self) -> Path | None:
        """The T1w, if there is one."""
        return self.anatomy.t1w

    @property
    def files(self) -> list[Path]:
        """Every file that it reads, each once."""
        found = [path for part in self.parts for path in (part.dwi, part.bval, part.bvec)]
        if self.preprocessed is not None:
            found += [self.preprocessed.mask] if self.preprocessed.mask else []
        found += [*self.anatomy.images, *self.anatomy.from_template.values()]
        return list(dict.fromkeys(found))

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
    def source_name(self) -> str:
        """Name that a raw image with the run's own entities has, below a dataset's root.

        niworkflows' sinks name outputs by it. The names of a preprocessed image (``space-``,
        ``desc-``) and of the first of several parts (``run-``) have more, which outputs must not
        take on.
        """
        session = f"ses-{self.session}/" if self.session else ""
        return f"/sub-{self.participant}/{session}dwi/{self.stem}_dwi.nii.gz"

    @property
    def file_entities(self) -> dict[str, str]:
        """Entities by the short keys of file names: ``sub``, ``ses``, ``acq`` ..."""
        return {
            key: str(self.entities[entity])
            for entity, key in KEYS.items()
            if entity in self.entities
        }

    @property
    def node_name(self) -> str:
        """Name as Nipype allows it: letters, digits and underscores."""
        own = self.stem.removeprefix(f"sub-{self.participant}").replace("-", "").strip("_")
        return node_label(own) or "dwi"

    @property
    def size_gb(self) -> float:
        """Size of the series in memory as float32, all parts together, GB."""
        return sum(image_size_gb(part.dwi) for part in self.parts)


def image_size_gb(path: Path) -> float:
    """Size of an image in memory as float32, GB; read from its header."""
    return float(math.prod(nib.load(path).shape)) * 4 / 1e9


def named_entities(names: dict[str, str]) -> dict[str, str]:
    """Give the entities that derivatives inherit, by pybids' long names, of those of a name."""
    return {entity: names[key] for entity, key in KEYS.items() if key in names}


def refuse_twins(runs: Iterable[DWIRun]) -> None:
    """Refuse runs whose outputs would overwrite each other.

    Raises
    ------
    InputError
        If two runs have the same stem.
    """
    for one, other in itertools.pairwise(sorted(runs, key=lambda run: run.stem)):
        if one.stem == other.stem:
            raise InputError(
                f"Two diffusion images would give outputs of the same name: {one.dwi.name} and "
                f"{other.dwi.name}.",
                where=one.dwi.parent,
                remedy=f"Tell them apart by one of: {', '.join(KEYS.values())}.",
            )
