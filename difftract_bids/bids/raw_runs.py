"""Diffusion runs of a raw dataset: which images are series, and which of them are one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError

from difftract_bids.bids.anatomy import Anatomy, choose_t1w
from difftract_bids.bids.combine import agreed_metadata, common_entities, group_parts
from difftract_bids.bids.inherited import companion, read_sidecars
from difftract_bids.bids.labels import labelled_folders, no_label
from difftract_bids.bids.raw_dataset import RawDataset
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
    raw: RawDataset,
    participant: str,
    sessions: list[str] | None = None,
    config: PreprocessingConfig | None = None,
) -> list[DWIRun]:
    """Find the diffusion runs of a participant, without anatomy; phase images are left out.

    Images with too few directions for an fODF (b=0 images of the opposite phase encoding, most
    often) are left out with a note, if there are others.

    Parameters
    ----------
    raw
        The dataset.
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
    images = _of_sessions(raw.images_of(participant, "dwi"), sessions)
    if not images:
        raise _no_images(raw, participant, sessions)
    notes = () if sessions else _other_folders(raw.root / f"sub-{participant}")
    runs = [_with_notes(run, notes) for run in _series(raw.root, images, config)]
    refuse_twins(runs)
    return runs


def find_raw_anatomy(
    raw: RawDataset, participant: str, session: str | None
) -> tuple[Anatomy, list[str]]:
    """Find the T1w of a session, by the rules of `choose_t1w`.

    Parameters
    ----------
    raw
        The dataset.
    participant, session
        Labels, without ``sub-`` and ``ses-``.

    Returns
    -------
    tuple
        The anatomy, without a T1w if there is none, and what the user should know of it.
    """
    images = raw.images_of(participant, "t1w")
    t1w, notes = choose_t1w(session, images)
    if not images and (left_out := raw.all_of(participant, "t1w")):
        notes.append(f"The filter file leaves out all {len(left_out)} T1w image(s).")
    return Anatomy(t1w=t1w), notes


def _of_sessions(images: list[Path], sessions: list[str] | None) -> list[Path]:
    wanted = {label.removeprefix("ses-") for label in sessions or []}
    return [image for image in images if not wanted or entities_of(image).get("ses") in wanted]


def _no_images(raw: RawDataset, participant: str, sessions: list[str] | None) -> InputError:
    """Say that there is nothing to do for a participant, and whether a filter file did that."""
    within = f" in session {', '.join(sessions)}" if sessions else ""
    folder = raw.root / f"sub-{participant}"
    what = f"Participant {participant} has no diffusion image{within}"
    left_out = _of_sessions(raw.all_of(participant, "dwi"), sessions)
    if left_out:
        return InputError(
            f"{what} that the filter file lets through: it leaves out {len(left_out)}, first "
            f"{left_out[0].name}, by {raw.filters.said_of('dwi')}.",
            where=folder,
            remedy="Change what is asked of dwi there, or name other participants.",
        )
    others = _other_folders(folder)
    return InputError(
        f"{what}." + (f" {others[0]}" if others else ""),
        where=folder,
        remedy=f"Expected [ses-*/]dwi/sub-{participant}_*_dwi.nii.gz; name another participant "
        "or session.",
    )


def _other_folders(folder: Path) -> tuple[str, ...]:
    """Tell of folders that may be meant as sessions and are none."""
    others = labelled_folders(folder, "ses")[1]
    return tuple(f"{no_label(folder, 'ses', text).what} It was left out." for text in others)


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


def _with_notes(run: DWIRun, notes: tuple[str, ...]) -> DWIRun:
    """Note what is missing in the sidecars, and what else there is to say of all runs."""
    known = [part for part in run.parts if part.metadata.get("PhaseEncodingDirection")]
    if not known:
        missing = _NO_PHASE_ENCODING if any(p.metadata for p in run.parts) else _NO_SIDECAR
        notes = (missing, *notes)
    return replace(run, notes=(*run.notes, *notes))
