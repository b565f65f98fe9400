"""Anatomy that fMRIPrep or sMRIPrep has preprocessed.

Names: https://fmriprep.org/en/stable/outputs.html#anatomical-derivatives.
"""

from __future__ import annotations

from difftract_bids.bids.anatomy import Anatomy, choose_t1w
from difftract_bids.bids.derivative_files import anatomy_of, files_named
from difftract_bids.bids.derivative_inputs import Derivative
from difftract_bids.bids.templates import entities_of
from difftract_bids.errors import InputError


def find_anatomy(
    derivative: Derivative, participant: str, session: str | None
) -> tuple[Anatomy, list[str]]:
    """Find what fMRIPrep or sMRIPrep has made of a participant's T1w.

    Parameters
    ----------
    derivative
        Its folder.
    participant, session
        Labels, without ``sub-`` and ``ses-``. The anatomy is that of the session, else that of
        all sessions together, else that of the first one.

    Returns
    -------
    tuple
        The anatomy, and what the user should know of it.

    Raises
    ------
    InputError
        If there is none.
    """
    folder = derivative.folder_of(participant)
    images = [
        image
        for image in files_named(folder, "anat", "T1w")
        if entities_of(image).get("desc") == "preproc" and "space" not in entities_of(image)
    ]
    shared = [image for image in images if "ses" not in entities_of(image)]
    own = [image for image in images if entities_of(image).get("ses") == session]
    t1w, notes = choose_t1w(None if shared and not own else session, own or shared or images)
    if t1w is None:
        raise InputError(
            f"{derivative.title} has no preprocessed T1w of participant {participant}.",
            where=folder,
            remedy="Expected [ses-*/]anat/*_desc-preproc_T1w.nii.gz; run it for this participant, "
            f"or leave --derivatives {derivative.name}=... out.",
        )
    found = anatomy_of(t1w, folder, space=None, targets=("T1w",), origin=derivative.origin)
    return found, notes
