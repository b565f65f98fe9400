"""Shifts along phase encoding that follow the gradient direction, and not the head."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

_ITERATIONS = 30
#: Steps beyond this many robust standard deviations count less: heads jump (Huber 1964).
_HUBER = 1.5
#: With fewer volumes directions cannot be told from drift.
_ENOUGH = 12
#: Robust spread of the steps that is left, at most, where the shifts do follow the direction.
_EXPLAINED = 0.8


def eddy_offsets(
    along_mm: Float[np.ndarray, " n"], bvecs: Float[np.ndarray, "n 3"]
) -> Float[np.ndarray, " n"]:
    """Tell what eddy currents shift from where the head is.

    Eddy currents are linear in the gradient that made them, a head goes on from where it was: the
    steps between consecutive volumes are fitted by the differences of their directions.

    Parameters
    ----------
    along_mm
        Where the images of the head are, along phase encoding: weighted volumes of one shell in
        the order of acquisition, millimetres.
    bvecs
        Their gradient directions, as the scanner has them.

    Returns
    -------
    numpy.ndarray
        What eddy currents shift each of them by; all 0 where directions explain little, or
        volumes are few.

    References
    ----------
    Andersson and Sotiropoulos 2016, doi:10.1016/j.neuroimage.2015.10.019 (section on offsets).
    """
    if len(along_mm) < _ENOUGH:
        return np.zeros(len(along_mm))
    steps, turns = np.diff(along_mm), np.diff(bvecs, axis=0)
    counts = np.ones(len(steps))
    shift_mm = np.zeros(3)
    for _ in range(_ITERATIONS):
        root = np.sqrt(counts)
        shift_mm = np.linalg.lstsq(turns * root[:, None], steps * root, rcond=None)[0]
        left = np.abs(steps - turns @ shift_mm)
        counts = np.minimum(1.0, _HUBER * 1.4826 * np.median(left) / (left + 1e-12))
    if np.median(left) > _EXPLAINED * np.median(np.abs(steps)):
        return np.zeros(len(along_mm))
    return bvecs @ shift_mm
