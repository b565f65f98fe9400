"""Anatomy in a FreeSurfer SUBJECTS_DIR."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from difftract_bids.bids.anatomy import Anatomy
from difftract_bids.bids.derivative_inputs import Derivative
from difftract_bids.errors import DifftractError, InputError

#: fMRIPrep's T1w and FreeSurfer's are one space if no point of a head moves by more than this.
_SAME_SPACE_MM = 0.5
_HEAD_RADIUS_MM = 100.0


def find_anatomy(
    derivative: Derivative, participant: str, session: str | None
) -> tuple[Anatomy, list[str]]:
    """Find the T1w, brain mask and labels of a participant.

    All are on FreeSurfer's own grid, in the scanner space of the T1w that it was given.

    Parameters
    ----------
    derivative
        The SUBJECTS_DIR.
    participant, session
        Labels, without ``sub-`` and ``ses-``: ``sub-01_ses-A`` is taken before ``sub-01``.

    Returns
    -------
    tuple
        The anatomy, and what the user should know of it.

    Raises
    ------
    InputError
        If the participant is not there, or lacks ``aparc+aseg.mgz``.
    """
    folder, notes = _folder(derivative, participant, session)
    mri = folder / "mri"
    labels = mri / "aparc+aseg.mgz"
    if not _is_there(labels):
        raise InputError(
            f"FreeSurfer's results of {folder.name} have no aparc+aseg.mgz.",
            where=mri,
            remedy="Let recon-all finish for this participant, or leave "
            f"--derivatives {derivative.name}=... out.",
        )
    t1w, mask = mri / "T1.mgz", mri / "brainmask.mgz"
    if not _is_there(t1w):
        notes.append(f"{folder.name} has no mri/T1.mgz in FreeSurfer's folder.")
    return (
        Anatomy(
            t1w=t1w if _is_there(t1w) else None,
            t1w_mask=mask if _is_there(mask) else None,
            aparcaseg=labels,
            origin=derivative.origin,
        ),
        notes,
    )


def is_same_space(t1w: Path) -> bool:
    """Say whether fMRIPrep's T1w lies in FreeSurfer's space, by the transform that it left.

    It is so with one T1w; of several, fMRIPrep's average may lie elsewhere.

    Parameters
    ----------
    t1w
        fMRIPrep's preprocessed T1w.
    """
    from difftract_bids.io.transforms import load_linear

    stem = t1w.name.partition("_desc-")[0]
    path = t1w.with_name(f"{stem}_from-fsnative_to-T1w_mode-image_xfm.txt")
    if not path.is_file():
        return True
    try:
        matrix = load_linear(path).matrix
    except DifftractError:
        return False
    # Largest movement of any point of a head about the origin.
    turn = float(np.linalg.norm(matrix[:3, :3] - np.eye(3), ord=2)) * _HEAD_RADIUS_MM
    return turn + float(np.linalg.norm(matrix[:3, 3])) <= _SAME_SPACE_MM


def _folder(
    derivative: Derivative, participant: str, session: str | None
) -> tuple[Path, list[str]]:
    """Find the folder of a session, else of the participant, else of the first other session."""
    plain = derivative.path / f"sub-{participant}"
    own = plain if session is None else derivative.path / f"sub-{participant}_ses-{session}"
    for folder in (own, plain):
        if folder.is_dir():
            return folder, []
    others = sorted(derivative.path.glob(f"sub-{participant}_ses-*"))
    if others:
        return others[0], [f"FreeSurfer's {others[0].name} is of another session."]
    return derivative.folder_of(participant), []


def _is_there(path: Path) -> bool:
    """Count files that a data store has not fetched: that is told of with its own remedy."""
    return path.is_file() or path.is_symlink()
