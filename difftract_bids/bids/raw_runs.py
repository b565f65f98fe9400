"""Diffusion runs of a raw dataset: which images are series, and which of them are one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
from bids import BIDSLayout
from nibabel.filebasedimages import ImageFileError

from difftract_bids.bids.anatomy import Anatomy, choose_t1w
from difftract_bids.bids.combine import agreed_metadata, common_entities, group_parts
from difftract_bids.bids.inherited import companion, read_sidecars
from difftract_bids.bids.runs import DWIRun, RunPart, named_entities, refuse_twins
from difftract_bids.bids.templates import entities_of
from difftract_bids.config import PreprocessingConfig
from difftract_bids.errors import InputError
from difftract_bids.io.gradients import MIN_DIRECTIONS, read_bvals

_NO_SIDECAR = (
    "The JSON sidecar is missing or empty: phase encoding, readout time and partial Fourier are "
    "unknown."
)
_NO_PHASE_ENCODING = (
    "The phase-encoding direction is unknown (no PhaseEncodingDirection in the sidecar)."
)


def find_runs(
    layout: BIDSLayout,
    participant: str,
    sessions: list[str] | None = None,
    config: PreprocessingConfig | None = None,
) -> list[DWIRun]:
    """Find the diffusion runs of a participant, without anatomy; phase images are left out.

    Images with too few directions for an fODF (b=0 images of the opposite phase encoding, most
    often) are left out with a note, if there are others.

    Parameters
    ----------
    layout
        The raw dataset.
    participant
        Label, without the ``sub-``.
    sessions
        Labels of sessions; all when ``None``.
    config
        Whether runs are combined, what counts as b=0, and how distortions are corrected.

    Raises
    ------
    InputError
        If there is none, one lacks its bval or bvec, or two would give outputs of the same name.
    UsageError
        If runs that are to be combined cannot be.
    """
    config = config or PreprocessingConfig()
    root = Path(layout.root)
    images = _images(layout, participant, "dwi", "dwi", sessions)
    if not images:
        within = f" in session {', '.join(sessions)}" if sessions else ""
        raise InputError(
            f"Participant {participant} has no diffusion image{within}.",
            where=root / f"sub-{participant}",
            remedy="Expected sub-*/[ses-*/]dwi/*_dwi.nii.gz; name another participant or session.",
        )
    runs = [_with_notes(run) for run in _series(root, images, config)]
    refuse_twins(runs)
    return runs


def find_raw_anatomy(
    layout: BIDSLayout, participant: str, session: str | None
) -> tuple[Anatomy, list[str]]:
    """Find the T1w of a session, by the rules of `choose_t1w`.

    Parameters
    ----------
    layout
        The raw dataset.
    participant, session
        Labels, without ``sub-`` and ``ses-``.

    Returns
    -------
    tuple
        The anatomy, without a T1w if there is none, and what the user should know of it.
    """
    t1w, notes = choose_t1w(session, _images(layout, participant, "anat", "T1w"))
    return Anatomy(t1w=t1w), notes


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
        and not names.keys() & {"desc", "space"}  # derivatives among the raw data
        and (not wanted or names.get("ses") in wanted)
    ]


def _series(root: Path, images: list[Path], config: PreprocessingConfig) -> list[DWIRun]:
    """Make runs of images, without those that cannot be one where others can."""
    threshold = config.b0_threshold_s_mm2
    several = [image for image in images if _n_volumes(image) != 1]
    alone = [image for image in images if image not in several]
    if not several:
        # The checks that follow say what is wrong with them.
        return [_run([_part(root, image)]) for image in images]
    parts = [_part(root, image) for image in several]
    weighted = {part.dwi: _n_weighted(part, threshold) for part in parts}
    groups = (
        group_parts(parts, weighted, config)
        if config.combine_runs
        else [([part], []) for part in parts]
    )
    usable = [
        group for group in groups if sum(weighted[p.dwi] for p in group[0]) >= MIN_DIRECTIONS
    ]
    if not usable:
        return [_run(parts, notes) for parts, notes in groups]
    few = [part for group in groups if group not in usable for part in group[0]]
    left_out = dict.fromkeys(alone, 0) | {part.dwi: weighted[part.dwi] for part in few}
    runs = [_run(parts, notes) for parts, notes in usable]
    return [_told_of(run, left_out) for run in runs]


def _part(root: Path, image: Path) -> RunPart:
    return RunPart(
        dwi=image,
        bval=companion(root, image, "bval"),
        bvec=companion(root, image, "bvec"),
        metadata=read_sidecars(root, image),
        entities=named_entities(entities_of(image)),
    )


def _run(parts: list[RunPart], notes: list[str] | None = None) -> DWIRun:
    first = parts[0]
    return DWIRun(
        entities=common_entities(parts),
        dwi=first.dwi,
        bval=first.bval,
        bvec=first.bvec,
        metadata=agreed_metadata(parts),
        parts=tuple(parts),
        notes=tuple(notes or ()),
    )


def _n_volumes(image: Path) -> int | None:
    """Count the volumes; ``None`` where the header cannot be read, which is told of later."""
    try:
        shape = nib.load(image).shape
    except (OSError, EOFError, ValueError, ImageFileError):
        return None
    return int(np.prod(shape[3:]))


def _n_weighted(part: RunPart, threshold_s_mm2: float) -> int:
    return int((read_bvals(part.bval) > threshold_s_mm2).sum())


def _told_of(run: DWIRun, left_out: dict[Path, int]) -> DWIRun:
    """Note on a run which images of its session are no part of it."""
    notes = []
    for image, n_weighted in left_out.items():
        if entities_of(image).get("ses") != run.session:
            continue
        if n_weighted:
            notes.append(
                f"{image.name} was left out: {n_weighted} diffusion-weighted volume(s), and an "
                f"fODF needs {MIN_DIRECTIONS}."
            )
        else:
            notes.append(
                f"{image.name} was left out: it has no diffusion-weighted volume "
                "(it may serve as a fieldmap)."
            )
    return replace(run, notes=(*run.notes, *notes))


def _with_notes(run: DWIRun) -> DWIRun:
    """Note what is missing in the sidecars."""
    known = [part for part in run.parts if part.metadata.get("PhaseEncodingDirection")]
    if known:
        return run
    note = _NO_PHASE_ENCODING if any(part.metadata for part in run.parts) else _NO_SIDECAR
    return replace(run, notes=(*run.notes, note))
