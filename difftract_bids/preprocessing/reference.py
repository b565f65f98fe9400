"""The b=0 reference: one image that stands for the diffusion series."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from difftract_bids.errors import GradientError
from difftract_bids.io.gradients import GradientTable

#: A b=0 volume whose total signal differs more than this from the median one has lost slices.
_TOTAL_SIGNAL_TOLERANCE = 0.2


def b0_reference(
    dwi: Float[np.ndarray, "x y z volume"], gradients: GradientTable
) -> Float[np.ndarray, "x y z"]:
    """Average the b=0 volumes, without those whose total signal is more than 20% off.

    Values that are not finite count as zero.

    Raises
    ------
    GradientError
        If the table does not fit the series, or no volume is b=0.
    """
    if len(gradients.bvals_s_mm2) != dwi.shape[-1]:
        raise GradientError(
            f"The image has {dwi.shape[-1]} volumes, the gradient table "
            f"{len(gradients.bvals_s_mm2)}.",
            remedy="They must belong to the same image.",
        )
    if not gradients.b0_mask.any():
        raise GradientError(
            f"No volume has a b-value up to {gradients.b0_threshold_s_mm2:g} s/mm².",
            remedy="Raise --b0-threshold if the smallest b-value is meant as b=0.",
        )
    volumes = np.nan_to_num(dwi[..., gradients.b0_mask], posinf=0.0, neginf=0.0)
    total = volumes.sum(axis=(0, 1, 2), dtype=np.float64)
    typical = np.median(total)
    usable = np.abs(total - typical) <= _TOTAL_SIGNAL_TOLERANCE * np.abs(typical)
    if not usable.any():  # two volumes that disagree: nobody knows which one is right
        usable[:] = True
    return volumes[..., usable].mean(axis=-1, dtype=np.float64).astype(np.float32)
