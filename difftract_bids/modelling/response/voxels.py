"""Which voxels a response function may be estimated from, and choosing the best of them."""

from __future__ import annotations

import warnings

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from difftract_bids.errors import GradientError, InputError
from difftract_bids.io.gradients import GradientTable

#: A fit to fewer voxels than this is noise.
MIN_VOXELS = 5
#: A mask reaches a little beyond the brain; more voxels without signal than this are told of.
_TOLERATED_EMPTY = 0.01


def usable_voxels(
    dwi: Float[np.ndarray, "x y z volume"],
    gradients: GradientTable,
    mask: Bool[np.ndarray, "x y z"],
) -> Bool[np.ndarray, "x y z"]:
    """Leave out of the mask the voxels with values that are not finite or no signal in a shell.

    Raises
    ------
    GradientError
        If the table does not fit the series, or there is no b=0 volume.
    InputError
        If the mask does not fit, is empty, or has fewer than 5 usable voxels.

    Warns
    -----
    UserWarning
        If values are not finite, or more than 1% of the mask has no signal.
    """
    if len(gradients.bvals_s_mm2) != dwi.shape[-1]:
        raise GradientError(
            f"The image has {dwi.shape[-1]} volumes, the gradient table "
            f"{len(gradients.bvals_s_mm2)}.",
            remedy="They must belong to the same image.",
        )
    if not gradients.b0_mask.any():
        raise GradientError("There is no b=0 volume.", remedy="Add one to the series.")
    if mask.shape != dwi.shape[:3]:
        raise InputError(
            f"The mask has the shape {mask.shape}, the series {dwi.shape[:3]}.",
            remedy="They must be on the same grid.",
        )
    inside = dwi[mask]
    finite = np.isfinite(inside).all(axis=1)
    shells = [volumes for _, volumes in gradients.shell_volumes()]
    means = np.stack([positive_mean(inside, volumes) for volumes in shells])
    kept = finite & (np.where(finite, means, 0) > 0).all(axis=0)
    n_bad, n_empty = int((~finite).sum()), int((finite & ~kept).sum())
    if kept.sum() < MIN_VOXELS:
        raise InputError(
            f"Only {kept.sum()} of {len(inside)} voxels in the mask have signal in every shell "
            f"({n_bad} are not finite, {n_empty} not positive); a response function needs "
            f"{MIN_VOXELS}.",
            remedy="Check the brain mask and that the series is diffusion-weighted.",
        )
    if n_bad or n_empty > _TOLERATED_EMPTY * len(inside):
        warnings.warn(
            f"{n_bad + n_empty} of {len(inside)} voxels in the mask were left out of the response "
            f"function: {n_bad} have values that are not finite, {n_empty} no signal.",
            stacklevel=3,
        )
    usable = np.zeros_like(mask)
    usable[mask] = kept
    return usable


def positive_mean(
    signal: Float[np.ndarray, "voxel volume"], volumes: Bool[np.ndarray, " volume"]
) -> Float[np.ndarray, " voxel"]:
    """Return the mean over some volumes; negative values, which are noise, count as zero."""
    return np.maximum(signal[:, volumes], 0).mean(axis=1, dtype=np.float64)


def eroded(
    mask: Bool[np.ndarray, "x y z"], steps: int, least: int = 1
) -> Bool[np.ndarray, "x y z"]:
    """Erode by so many steps (six neighbours), or by as many as leave ``least`` voxels."""
    for n in range(steps, 0, -1):
        core = ndimage.binary_erosion(mask, iterations=n)
        if core.sum() >= least:
            return core
    return mask


def top(score: Float[np.ndarray, " n"], number: int) -> Bool[np.ndarray, " n"]:
    """Choose the largest values; of equal ones the first."""
    chosen = np.zeros(len(score), dtype=bool)
    chosen[np.argsort(-score, kind="stable")[:number]] = True
    return chosen


def brighter(value: Float[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Divide values in two where the division correlates best with the values; True is larger.

    References
    ----------
    Ridgway et al. 2009, doi:10.1016/j.neuroimage.2008.08.045.
    """
    n = len(value)
    order = np.argsort(-value, kind="stable")
    ranked = value[order]
    places = np.flatnonzero(ranked[:-1] > ranked[1:])  # the last of the larger ones
    if not len(places):
        return np.ones(n, dtype=bool)
    share = (places + 1) / n
    covariance = np.cumsum(ranked)[places] / n - share * value.mean()
    best = places[np.argmax(covariance / np.sqrt(share * (1 - share)))]
    larger = np.zeros(n, dtype=bool)
    larger[order[: best + 1]] = True
    return larger
