"""The noise of a channel from the noise of a magnitude image, which is smaller at low signal."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import ndimage
from scipy.special import i0e, i1e

from difftract_bids.preprocessing.denoise import patch_radius

#: Mean magnitude over noise that the table spans (beyond, magnitude noise is Gaussian to 0.1%).
_MAX_RATIO, _STEPS_PER_UNIT = 22.0, 200
_ITERATIONS, _TOLERANCE = 6, 3e-3
#: Voxels corrected together: bounds the memory.
_VOXELS_AT_ONCE = 16384


def channel_noise(
    magnitude_sd: Float[np.ndarray, "x y z"],
    magnitude_mean: Float[np.ndarray, "x y z volume"],
) -> Float[np.ndarray, "x y z"]:
    """Find the Gaussian noise of a channel behind the noise that was measured in magnitudes.

    The magnitude of a signal with noise in two channels follows Rice's distribution: where the
    signal is strong its spread is that of a channel, where there is none only 0.655 of it. The
    variance that a patch of a diffusion series shows is the average over its voxels and volumes,
    weak ones included. Koay's fixed-point formula is solved with those averages. Images of several
    coils whose squares were added (noncentral chi) stay too low in the background; in the brain
    they differ little.

    Parameters
    ----------
    magnitude_sd
        Measured standard deviation, averaged over the volumes.
    magnitude_mean
        Expected magnitudes, such as the denoised series, in the same unit.

    Returns
    -------
    numpy.ndarray
        Float32, at most 1.53 times the measured one; 0 where that is 0.

    References
    ----------
    Koay and Basser 2006, doi:10.1016/j.jmr.2006.01.016, equations 16 to 18.
    """
    table = _table()
    inside = magnitude_sd > 0
    sigma = magnitude_sd.astype(np.float32)
    size = [2 * int(r) + 1 for r in patch_radius(magnitude_mean.shape)]
    covered = np.maximum(_over_patches(inside.astype(np.float32), size), 1e-6)
    for _ in range(_ITERATIONS if inside.any() else 0):
        share = np.zeros_like(sigma)
        share[inside] = _variance_share(magnitude_mean[inside], sigma[inside], table)
        # What was measured at a voxel is the average over the patches that it lies in.
        around = _over_patches(share, size) / covered
        estimate = magnitude_sd[inside] / np.sqrt(np.maximum(around[inside], table[0]))
        change = np.abs(estimate / sigma[inside] - 1).max()
        sigma[inside] = estimate
        if change < _TOLERANCE:
            break
    return sigma


def _variance_share(
    means: Float[np.ndarray, "voxel volume"],
    sigma: Float[np.ndarray, " voxel"],
    table: Float[np.ndarray, " step"],
) -> Float[np.ndarray, " voxel"]:
    """Give magnitude variance over channel variance, averaged over volumes."""
    share = np.empty_like(sigma)
    for first in range(0, len(sigma), _VOXELS_AT_ONCE):
        part = slice(first, first + _VOXELS_AT_ONCE)
        ratio = means[part] * (_STEPS_PER_UNIT / sigma[part, None])
        place = np.clip(ratio, 0, len(table) - 1).astype(np.int32)
        share[part] = table[place].mean(axis=1)
    return share


def _over_patches(
    image: Float[np.ndarray, "x y z"], size: list[int]
) -> Float[np.ndarray, "x y z"]:
    """Average twice over a patch: over each patch, and over the patches that hold a voxel."""
    once = ndimage.uniform_filter(image, size, mode="constant")
    return ndimage.uniform_filter(once, size, mode="constant")


def _table() -> Float[np.ndarray, " step"]:
    """Tabulate magnitude variance over channel variance, by mean magnitude over channel noise."""
    snr = np.linspace(0.0, _MAX_RATIO, 4000)
    quarter = snr**2 / 4
    ratio = np.sqrt(np.pi / 8) * ((2 + snr**2) * i0e(quarter) + snr**2 * i1e(quarter))
    steps = (np.arange(int(_MAX_RATIO * _STEPS_PER_UNIT)) + 0.5) / _STEPS_PER_UNIT
    return np.interp(steps, ratio, 2 + snr**2 - ratio**2).astype(np.float32)


def typical_noise(
    sigma: Float[np.ndarray, "x y z"], dwi: Float[np.ndarray, "x y z volume"]
) -> float:
    """Give the median noise where the mean signal is above the image's mean; 0 if there is none.

    Not the median of everything: most of an image is background.
    """
    mean = dwi.mean(axis=-1)
    inside = (sigma > 0) & (mean > mean[mean > 0].mean() if (mean > 0).any() else mean > 0)
    return float(np.median(sigma[inside])) if inside.any() else 0.0
