"""Shifts along phase encoding that follow the gradient, and not the head."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

_ITERATIONS = 30
#: Steps beyond this many robust standard deviations count less: heads jump (Huber 1964).
_HUBER = 1.5
#: With fewer volumes three components explain steps of any kind by chance.
_ENOUGH = 30
#: Robust spread of the steps that is left, at most, where the shifts do follow the gradient.
_EXPLAINED = 0.8


def eddy_offsets(
    along_mm: Float[np.ndarray, " n"],
    bvals_s_mm2: Float[np.ndarray, " n"],
    bvecs: Float[np.ndarray, "n 3"],
) -> Float[np.ndarray, " n"]:
    """Tell what eddy currents shift from where the head is.

    Eddy currents are linear in the gradient that made them, a head goes on from where it was: the
    steps between consecutive volumes are fitted by the differences of their gradients, beside a
    steady drift, which is the head's.

    Parameters
    ----------
    along_mm
        Where the images of the head are, along phase encoding: weighted volumes of one shell in
        the order of acquisition, millimetres.
    bvals_s_mm2, bvecs
        Their gradients, directions as the scanner has them.

    Returns
    -------
    numpy.ndarray
        What eddy currents shift each of them by; all 0 where gradients explain little, or volumes
        are few.

    References
    ----------
    Andersson and Sotiropoulos 2016, doi:10.1016/j.neuroimage.2015.10.019 (section on offsets).
    """
    if len(along_mm) < _ENOUGH:
        return np.zeros(len(along_mm))
    # The square root of b is the amplitude of the gradient.
    gradients = bvecs * np.sqrt(bvals_s_mm2 / bvals_s_mm2.max())[:, None]
    steps = np.diff(along_mm)
    turns = np.column_stack([np.diff(gradients, axis=0), np.ones(len(steps))])
    counts = np.ones(len(steps))
    shift_mm, left = np.zeros(4), np.abs(steps)
    for _ in range(_ITERATIONS):
        root = np.sqrt(counts)
        shift_mm = np.linalg.lstsq(turns * root[:, None], steps * root, rcond=None)[0]
        left = np.abs(steps - turns @ shift_mm)
        counts = np.minimum(1.0, _HUBER * 1.4826 * np.median(left) / (left + 1e-12))
    spread = np.median(np.abs(steps - np.median(steps)))
    # Three more parameters than the median's one make residuals smaller by chance alone.
    by_chance = np.sqrt((len(steps) - 4) / (len(steps) - 1))
    if np.median(left) > _EXPLAINED * by_chance * spread:
        return np.zeros(len(along_mm))
    return gradients @ shift_mm[:3]
