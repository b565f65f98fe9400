"""What denoising took away: noise has no structure, anatomy has."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float


class ResidualStructure(NamedTuple):
    """How much structure a residual has; both are near 0 for noise.

    Attributes
    ----------
    neighbour_correlation
        Correlation of the residual with itself one voxel on, averaged over axes and volumes.
    anatomy_correlation
        Size of the correlation over the mask of the residual with the denoised volume, averaged
        over volumes. Independent noise in n voxels gives about 0.8 / sqrt(n).
    """

    neighbour_correlation: float
    anatomy_correlation: float


def residual_structure(
    raw: Float[np.ndarray, "x y z volume"],
    denoised: Float[np.ndarray, "x y z volume"],
    mask: Bool[np.ndarray, "x y z"],
) -> ResidualStructure:
    """Measure the structure in ``raw`` less ``denoised``.

    Parameters
    ----------
    raw, denoised
        The series before and after.
    mask
        Where to look: the brain, without its surroundings.
    """
    along, with_anatomy = [], []
    for volume in range(raw.shape[3]):
        after = denoised[..., volume].astype(np.float64)
        residual = raw[..., volume] - after
        with_anatomy.append(abs(_correlation(residual[mask], after[mask])))
        for axis in range(3):
            one, other = (np.take(residual, _ends(raw.shape[axis], k), axis) for k in (0, 1))
            pair = np.take(mask, _ends(raw.shape[axis], 0), axis) & np.take(
                mask, _ends(raw.shape[axis], 1), axis
            )
            if pair.any():
                along.append(_correlation(one[pair], other[pair]))
    return ResidualStructure(float(np.mean(along)) if along else 0.0, float(np.mean(with_anatomy)))


def _ends(length: int, first: int) -> np.ndarray:
    return np.arange(first, length - 1 + first)


def _correlation(one: Float[np.ndarray, " n"], other: Float[np.ndarray, " n"]) -> float:
    one, other = one - one.mean(), other - other.mean()
    size = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return float((one * other).sum()) / size if size > 0 else 0.0
