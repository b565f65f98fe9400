"""The volumes by which motion is judged: a shell, and the same shell in another series."""

from __future__ import annotations

import os

import numpy as np
from jaxtyping import Bool, Float

from difftract_bids.errors import GradientError
from difftract_bids.io.gradients import GradientTable


def fullest_shell(
    bvals_s_mm2: Float[np.ndarray, " volume"], b0_threshold_s_mm2: float
) -> tuple[float, Bool[np.ndarray, " volume"]]:
    """Choose the shell of most volumes; among equals the weakest, which has most signal.

    Returns
    -------
    float
        Mean b-value, s/mm²; 0 if no volume is diffusion-weighted.
    numpy.ndarray
        Which volumes it has.
    """
    directions = np.zeros((len(bvals_s_mm2), 3))  # which do not matter here
    shells = GradientTable(bvals_s_mm2, directions, b0_threshold_s_mm2).shell_volumes()
    weighted = [shell for shell in shells if shell[0] > 0] or shells
    return max(weighted, key=lambda shell: int(shell[1].sum()))


def of_range(
    bvals_s_mm2: Float[np.ndarray, " volume"],
    shell_s_mm2: Float[np.ndarray, " chosen"],
    where: str | os.PathLike[str],
) -> Bool[np.ndarray, " volume"]:
    """Find the volumes of a shell in another series of the same acquisition.

    Parameters
    ----------
    bvals_s_mm2
        Of that series.
    shell_s_mm2
        b-values of the shell in the first series; their range counts.
    where
        File that the b-values are from.

    Raises
    ------
    GradientError
        If there are none.
    """
    # Written and read again, a b-value may have lost its decimals.
    found = (bvals_s_mm2 >= shell_s_mm2.min() - 1) & (bvals_s_mm2 <= shell_s_mm2.max() + 1)
    if not found.any():
        raise GradientError(
            f"No volume has a b-value of {shell_s_mm2.mean():.0f} s/mm², as the corrected series "
            "has.",
            where=where,
            remedy="Give b-values of the same acquisition.",
        )
    return found
