"""Whether an image can be one of fODFs; if not, what it seems to be instead."""

from __future__ import annotations

import math
import os

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from difftract_bids.errors import FodfError

#: Sine of the smallest angle between the axes of a grid.
_FLAT = 1e-3
#: Share of the sum of all means that noise may make negative; of peaks it is a third to a half.
_NEGATIVE_SHARE = 0.2
#: Share of voxels without any negative coefficient above which an image is one of signals.
_POSITIVE_SHARE = 0.8


def checked_lmax(shape: tuple[int, ...], path: str | os.PathLike[str] | None = None) -> int:
    """Find the maximum degree from the shape (x, y, z, coefficient) of an image.

    Raises
    ------
    FodfError
        If it has not four dimensions, or no even degree from 2 to 12 has that many coefficients;
        says what the image may be instead.
    """
    from difftract_bids.core.sh import lmax_of

    if len(shape) != 4:
        raise not_four_dimensional(shape, path)
    try:
        return lmax_of(shape[3])
    except FodfError as error:
        what, remedy = _what_it_may_be(shape[3]) or (error.what, error.remedy)
        raise FodfError(what, where=path, remedy=remedy) from error


def not_four_dimensional(shape: tuple[int, ...], path: str | os.PathLike[str] | None) -> FodfError:
    """Make the error for an image of another number of dimensions."""
    return FodfError(
        f"The image has {len(shape)} dimensions {shape}, 4 are needed.",
        where=path,
        remedy="Give an image of SH coefficients: x, y, z, coefficient.",
    )


def _what_it_may_be(n_volumes: int) -> tuple[str, str] | None:
    """Recognise an image by its number of volumes: what is wrong, and the remedy."""
    from difftract_bids.core.sh import MAX_LMAX, n_coefficients

    root, most = math.isqrt(n_volumes), n_coefficients(MAX_LMAX)
    higher = {n_coefficients(lmax): lmax for lmax in range(MAX_LMAX + 2, 2 * MAX_LMAX + 1, 2)}
    has = f"The image has {n_volumes} coefficients"
    if n_volumes == 1:
        return (
            "The image has 1 coefficient, and so no directions: that of grey matter or CSF?",
            "Give the fODFs of white matter.",
        )
    if root * root == n_volumes:
        what = (
            f"{has}: that looks like a full basis of lmax {root - 1}, with odd degrees. "
            "Asymmetric fODFs cannot be tracked."
        )
        return what, "Give symmetric fODFs, of even degrees only."
    if n_volumes in higher:
        return (
            f"{has}, lmax {higher[n_volumes]}; lmax {MAX_LMAX} is the highest possible.",
            f"Leave the others out: mrconvert IMAGE -coord 3 0:{most - 1} SMALLER.nii.gz.",
        )
    if n_volumes % 3 == 0:
        return (
            f"{has}, which belong to no even degree. Are these {n_volumes // 3} peaks?",
            "Give the fODFs that the peaks were found in.",
        )
    return None


def check_affine(vox2ras: Float[np.ndarray, "4 4"], path: str | os.PathLike[str]) -> None:
    """Check that an affine, voxels to RAS+ millimetres, can be inverted.

    Raises
    ------
    FodfError
        If it is not finite, or maps the grid onto a plane.
    """
    lengths = np.linalg.norm(vox2ras[:3, :3], axis=0)
    sound = bool(np.isfinite(vox2ras).all() and (lengths > 0).all())
    if not sound or abs(np.linalg.det(vox2ras[:3, :3] / lengths)) < _FLAT:
        raise FodfError(
            f"The affine cannot be inverted: {np.round(vox2ras[:3], 4).tolist()}.",
            where=path,
            remedy="Take it from the diffusion data: the header of this image is damaged.",
        )


def zero_if_not_finite(
    data: Float[np.ndarray, "x y z coeff"],
) -> tuple[Float[np.ndarray, "x y z coeff"], int]:
    """Set voxels that hold a value that is not finite to zero, and count them.

    The whole voxel: a part of a series is another function.
    """
    damaged = ~np.isfinite(data).all(axis=-1)
    n_damaged = int(np.count_nonzero(damaged))
    if n_damaged:
        data = np.where(damaged[..., None], np.zeros((), data.dtype), data)
    return data, n_damaged


def check_values(data: Float[np.ndarray, "x y z coeff"], path: str | os.PathLike[str]) -> None:
    """Check that values can be coefficients of fODFs, in whatever basis.

    In every basis the first coefficient is the mean of a function that is nowhere much below zero,
    and some of the others are negative unless all fibres point the same way.

    Raises
    ------
    FodfError
        If all are zero, many means are negative, or hardly any value is.
    """
    occupied: NDArray[np.floating] = data[np.asarray(data.any(axis=-1))]
    if not len(occupied):
        raise FodfError(
            "The image is zero everywhere.", where=path, remedy="Give the fODFs of white matter."
        )
    mean = occupied[:, 0].astype(np.float64)
    if -mean[mean < 0].sum() > _NEGATIVE_SHARE * np.abs(mean).sum():
        raise FodfError(
            f"The first coefficient, an fODF's mean, is negative in {(mean < 0).mean():.0%} of "
            "the voxels: these are no fODFs (peaks, or coefficients in another order?).",
            where=path,
            remedy="Give SH coefficients, that of l=0 first.",
        )
    if (occupied > 0).all(axis=-1).mean() > _POSITIVE_SHARE:
        raise FodfError(
            "Nearly all values are positive, as in a diffusion-weighted image; of the SH "
            "coefficients of fODFs, some are negative.",
            where=path,
            remedy="Give the fODFs, not the data that they are fitted to.",
        )
