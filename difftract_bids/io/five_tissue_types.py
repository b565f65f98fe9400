"""Images of five tissue types (MRtrix's 5TT): checked, and made ready for tracking."""

from __future__ import annotations

import os

import numpy as np
import torch

from difftract_bids.core.anatomy import Anatomy
from difftract_bids.errors import InputError
from difftract_bids.io.images import Volume, load_volume
from difftract_bids.io.mif import load_mif

#: Volumes of the image, in their order.
TISSUES = (
    "cortical grey matter",
    "deep grey matter",
    "white matter",
    "cerebrospinal fluid",
    "pathological tissue",
)
#: Rounding of an image stored with a scale factor.
_ROUNDING = 0.01


def load_five_tissue_types(path: str | os.PathLike[str]) -> Volume:
    """Load fractions of tissue, and refuse what MRtrix's ``5ttcheck`` calls an error.

    Returns
    -------
    Volume
        Fractions from 0 to 1, float32, (x, y, z, 5), in the order of `TISSUES`.

    Raises
    ------
    InputError
        If the image has not five volumes, holds values that are no fractions, or has no grey or
        no white matter.
    """
    is_mif = os.fspath(path).lower().endswith((".mif", ".mif.gz", ".mih"))
    image = load_mif(path) if is_mif else load_volume(path, ndim=4)
    remedy = f"Give an image of five volumes, fractions from 0 to 1: {', '.join(TISSUES)}."
    n_volumes = image.data.shape[3] if image.data.ndim == 4 else 1
    if n_volumes != len(TISSUES):
        raise InputError(f"The tissue image has {n_volumes} volumes.", where=path, remedy=remedy)
    data = image.data
    bad = int((~((data >= -_ROUNDING) & (data <= 1 + _ROUNDING))).sum())
    if bad:
        raise InputError(
            f"{bad} of {data.size} values of the tissue image are no fractions from 0 to 1.",
            where=path,
            remedy=remedy,
        )
    for name, there in (("grey", data[..., :2]), ("white", data[..., 2])):
        if not (there > 0.5).any():
            raise InputError(
                f"There is no {name} matter in the tissue image.", where=path, remedy=remedy
            )
    return image._replace(data=np.clip(data, 0, 1))


def load_anatomy(
    path: str | os.PathLike[str],
    *,
    crop_at_gmwmi: bool = False,
    device: torch.device | str = "cpu",
) -> Anatomy:
    """Load the tissue that streamlines are to obey.

    Parameters
    ----------
    path
        See `load_five_tissue_types`.
    crop_at_gmwmi
        See `Anatomy`.
    device
        Where it is looked up.

    Raises
    ------
    InputError
        See `load_five_tissue_types`.
    """
    image = load_five_tissue_types(path)
    tissues = torch.from_numpy(image.data).to(device)
    return Anatomy(tissues, torch.from_numpy(image.vox2ras), crop_at_gmwmi)
