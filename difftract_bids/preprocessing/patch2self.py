"""Denoising by predicting each volume from the others (Patch2Self)."""

from __future__ import annotations

import numpy as np
from dipy.denoise.patch2self import patch2self
from jaxtyping import Float

from difftract_bids.errors import InputError
from difftract_bids.io.gradients import GradientTable
from difftract_bids.preprocessing.denoise import refuse_gaps

#: Each volume is predicted from the others: with fewer there is little to predict from.
_MIN_DIRECTIONS = 10


def denoise_patch2self(
    dwi: Float[np.ndarray, "x y z volume"], gradients: GradientTable
) -> Float[np.ndarray, "x y z volume"]:
    """Keep of each volume what a linear regression can tell from all others (DIPY).

    b=0 volumes are predicted from one another where there are several, and left as they are where
    there is one.

    Parameters
    ----------
    dwi
        Diffusion series before any interpolation.
    gradients
        Its table.

    Returns
    -------
    numpy.ndarray
        Float32, never negative.

    Raises
    ------
    InputError
        If there are fewer than 10 diffusion-weighted volumes, or values that are not finite.

    References
    ----------
    Fadnavis, Batson and Garyfallidis 2020, Advances in Neural Information Processing Systems 33.
    """
    if gradients.n_directions < _MIN_DIRECTIONS:
        raise InputError(
            f"Patch2Self predicts each volume from the others, and {gradients.n_directions} "
            f"diffusion-weighted ones are too few; {_MIN_DIRECTIONS} are needed.",
            remedy="Denoise by --denoise-method mppca, or not at all (none).",
        )
    refuse_gaps(dwi)
    denoised = patch2self(
        np.ascontiguousarray(dwi, dtype=np.float32),
        gradients.bvals_s_mm2,
        model="ols",
        b0_threshold=gradients.b0_threshold_s_mm2,
        b0_denoising=int(gradients.b0_mask.sum()) > 1,
        clip_negative_vals=True,
        shift_intensity=False,
        verbose=False,
    )
    return np.asarray(denoised, dtype=np.float32)
