"""Slices whose signal fell out, found by comparison with what the other volumes predict."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from difftract_bids.io.gradients import GradientTable
from difftract_bids.preprocessing.predicted_volumes import groups, predict_left_out
from difftract_bids.preprocessing.resampling import (
    Grid,
    Sampler,
    apply_affine,
    for_each,
    resample_series,
)
from difftract_bids.preprocessing.shrunken_series import ShrunkenSeries, shrink_series

#: Robust standard deviations below the prediction that make an outlier, as in FSL's eddy.
_THRESHOLD_SD = 4.0
#: And a loss of less than this share is none, however steady the other slices are.
_LEAST_LOSS = 0.1
#: Slices with less brain than this share of the fullest one are not judged.
_LEAST_BRAIN = 0.2
#: In-plane block size; slices are never averaged.
_IN_PLANE_MM = 6.0


def find_outlier_slices(
    dwi: NDArray[Any],
    vox2ras: Float[np.ndarray, "4 4"],
    affines: Float[np.ndarray, "volume 3 4"],
    gradients: GradientTable,
    mask: Bool[np.ndarray, "x y z"],
    *,
    slice_axis: int = 2,
    num_threads: int = 1,
) -> tuple[Bool[np.ndarray, "slice volume"], Float[np.ndarray, "slice volume"]]:
    """Flag slices that have lost signal: nothing is replaced.

    Volumes are brought to the reference position, each is predicted from the others, and the
    prediction is taken back to where the volume was acquired. The log ratio of the mean measured
    to the mean predicted signal in the brain's part of a slice is compared with those of its
    shell.

    Parameters
    ----------
    dwi, vox2ras
        Series as acquired.
    affines
        Reference position to each volume, RAS+ millimetres.
    gradients
        Table in the frame of the reference position.
    mask
        Brain in the reference position.
    slice_axis
        Voxel axis that slices were acquired along.
    num_threads
        Volumes that are worked on at a time; the result does not depend on it.

    Returns
    -------
    outliers
        Flags.
    deviations
        Robust standard deviations from the prediction; not a number where there is no brain.

    References
    ----------
    Andersson et al. 2016, doi:10.1016/j.neuroimage.2016.06.058.
    """
    dwi, mask = np.moveaxis(dwi, slice_axis, 2), np.moveaxis(mask, slice_axis, 2)
    vox2ras = vox2ras[:, [*sorted({0, 1, 2} - {slice_axis}), slice_axis, 3]]
    blocks_mm = (_IN_PLANE_MM, _IN_PLANE_MM, 0.0)
    small = shrink_series(dwi, vox2ras, blocks_mm, num_threads=num_threads)
    ratios = _log_ratios(small, affines, gradients, small.share_of(mask))
    deviations = np.full(ratios.shape, np.nan)
    for volumes in groups(gradients):
        deviations[:, volumes] = _robust_deviations(ratios[:, volumes])
    outliers = (deviations < -_THRESHOLD_SD) & (ratios < np.log(1 - _LEAST_LOSS))
    return outliers, deviations


def _log_ratios(
    small: ShrunkenSeries,
    affines: Float[np.ndarray, "volume 3 4"],
    gradients: GradientTable,
    brain: Float[np.ndarray, "x y z"],
) -> Float[np.ndarray, "z volume"]:
    grid = Grid((brain.shape[0], brain.shape[1], brain.shape[2]), small.vox2ras)
    series, num_threads = np.stack(small.images, axis=-1), small.num_threads
    aligned = resample_series(series, grid.vox2ras, affines, grid, num_threads=num_threads)
    signals = aligned.reshape(-1, aligned.shape[3]).T
    inside = brain.ravel() > 0
    predicted = np.zeros_like(signals)
    with threadpool_limits(1):  # sums in BLAS must not depend on the number of threads
        predicted[:, inside] = predict_left_out(signals[:, inside], gradients)
    points_mm = grid.points_mm()
    where = Sampler(brain, grid.vox2ras)
    ratios = np.full((grid.shape[2], len(affines)), np.nan)

    def compare(volume: int) -> None:
        inverse = np.linalg.inv(np.vstack([affines[volume], [0, 0, 0, 1]]))[:3]
        back_mm = apply_affine(inverse, points_mm)
        # The prediction ends at the mask: only what is well inside is taken back.
        counts = where(back_mm) > 0.95
        expected = Sampler(predicted[volume].reshape(grid.shape), grid.vox2ras)(back_mm)
        measured = series[..., volume]
        n = counts.sum(axis=(0, 1))
        sums = [(image * counts).sum(axis=(0, 1)) for image in (measured, expected)]
        usable = (n >= _LEAST_BRAIN * max(n.max(), 1)) & (sums[1] > 0)
        floor = 1e-3 * np.abs(sums[1])  # an empty slice has lost 99.9%
        ratio = np.log(np.maximum(sums[0], floor)[usable] / sums[1][usable])
        ratios[usable, volume] = ratio - np.median(ratio) if usable.any() else ratio

    for_each(compare, len(affines), num_threads)
    return ratios


def _robust_deviations(ratios: Float[np.ndarray, "z n"]) -> Float[np.ndarray, "z n"]:
    """Scale by the spread of all slices of a shell, or of the same slice where that is wider."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # slices without brain: all not a number
        centred = ratios - np.nanmedian(ratios, axis=1, keepdims=True)
        own = 1.4826 * np.nanmedian(np.abs(centred), axis=1, keepdims=True)
        shell = 1.4826 * np.nanmedian(np.abs(centred))
    return centred / np.maximum(np.maximum(own, shell), 1e-6)
