"""Anisotropy and principal direction of voxels, from every shell."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from difftract_bids.io.gradients import GradientTable

_REWEIGHTINGS = 2
#: Smaller values, noise about zero among them, are raised to this share of the largest.
_SMALLEST_SHARE = 1e-6
_VOXELS_AT_ONCE = 20_000


class Anisotropy(NamedTuple):
    """Fractional anisotropy, 0 to 1, and unit vectors in the frame of the gradient table."""

    fa: Float[np.ndarray, " voxel"]
    direction: Float[np.ndarray, "voxel 3"]


def fit_anisotropy(
    signal: Float[np.ndarray, "voxel volume"], gradients: GradientTable
) -> Anisotropy:
    """Fit the tensor to all volumes by least squares, reweighted twice by what it predicts.

    The maps of the tensor leave out large b-values, where it is biased. Here voxels are only
    ranked, and by the rule of the published algorithms, which use every volume.

    Parameters
    ----------
    signal
        Finite values.
    gradients
        Table of the volumes.

    References
    ----------
    Veraart et al. 2013, doi:10.1016/j.neuroimage.2013.05.028.
    """
    parts = [
        _fit(signal[start : start + _VOXELS_AT_ONCE].astype(np.float64), gradients)
        for start in range(0, len(signal), _VOXELS_AT_ONCE)
    ]
    if not parts:
        return Anisotropy(np.zeros(0), np.zeros((0, 3)))
    fa, direction = (np.concatenate(values) for values in zip(*parts, strict=True))
    return Anisotropy(fa, direction)


def _fit(signal: Float[np.ndarray, "voxel volume"], gradients: GradientTable) -> Anisotropy:
    x, y, z = gradients.bvecs.T
    square = np.stack([x * x, y * y, z * z, 2 * x * y, 2 * x * z, 2 * y * z], axis=1)
    # In units of 1e-3 mm²/s and of the log-signal the columns are of like size.
    design = np.column_stack([np.ones(len(x)), -1e-3 * gradients.bvals_s_mm2[:, None] * square])
    floor = _SMALLEST_SHARE * np.maximum(signal.max(axis=1, keepdims=True), np.finfo(float).tiny)
    weight = np.maximum(signal, floor)
    log_signal = np.log(weight)
    products = (design[:, :, None] * design[:, None, :]).reshape(len(design), -1)
    for _ in range(1 + _REWEIGHTINGS):
        # Scaling a voxel's weights changes nothing, and keeps the squares away from overflow.
        squared = (weight / weight.max(axis=1, keepdims=True)) ** 2
        normal = (squared @ products).reshape(-1, 7, 7)
        normal += 1e-12 * np.trace(normal, axis1=1, axis2=2)[:, None, None] * np.eye(7)
        moment = (squared * log_signal) @ design
        fitted = np.linalg.solve(normal, moment[..., None])[..., 0]
        predicted = fitted @ design.T
        weight = np.exp(predicted - predicted.max(axis=1, keepdims=True))
    values, vectors = np.linalg.eigh(fitted[:, [[1, 4, 5], [4, 2, 6], [5, 6, 3]]])
    spread = ((values - values.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
    size = (values**2).sum(axis=1)
    fa = np.sqrt(1.5 * np.divide(spread, size, out=np.zeros_like(size), where=size > 0))
    return Anisotropy(np.clip(fa, 0, 1), vectors[:, :, -1])
