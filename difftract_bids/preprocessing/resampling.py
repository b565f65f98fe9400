"""The one interpolation of a diffusion series: motion, distortion and voxel size together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import ndimage

from difftract_bids.errors import InputError

#: Cubic B-splines: sharper than linear interpolation, which also loses noise between voxels.
_SPLINE_ORDER = 3
#: Affines closer to each other than this are rounding, not another grid.
_SAME = 1e-5


@dataclass(frozen=True)
class Grid:
    """Voxels of an image: how many along each axis, and voxels to RAS+ millimetres."""

    shape: tuple[int, int, int]
    vox2ras: Float[np.ndarray, "4 4"]

    def points_mm(self) -> Float[np.ndarray, "3 x y z"]:
        """Give the positions of all voxels, RAS+ millimetres."""
        voxels = np.indices(self.shape, dtype=np.float64)
        rotated = np.tensordot(self.vox2ras[:3, :3], voxels, axes=1)
        return rotated + self.vox2ras[:3, 3, None, None, None]

    def is_same(self, other: Grid) -> bool:
        """Say whether two grids have the same voxels."""
        return self.shape == other.shape and np.allclose(self.vox2ras, other.vox2ras, atol=_SAME)


@dataclass(frozen=True)
class Displacement:
    """Susceptibility distortion in the reference position.

    Attributes
    ----------
    along_mm
        What belongs at x lies, in the distorted image, ``along_mm`` millimetres further along the
        phase-encoding voxel axis (positive towards larger indices); on the grid of the series.
    axis
        Which voxel axis that is: 0, 1 or 2.
    """

    along_mm: Float[np.ndarray, "x y z"]
    axis: int


def isotropic_grid(
    shape: tuple[int, ...], vox2ras: Float[np.ndarray, "4 4"], resolution_mm: float
) -> Grid:
    """Lay cubic voxels over an image's field of view, along the same axes.

    The field of view is kept to the last voxel begun, and shares its centre.

    Parameters
    ----------
    shape, vox2ras
        Grid of the image; only the first three axes are looked at.
    resolution_mm
        Edge of the new voxels, millimetres.
    """
    size_mm = np.linalg.norm(vox2ras[:3, :3], axis=0)
    extent_mm = size_mm * shape[:3]
    # Rounding must not add a voxel where the extent is a whole number of them.
    count = np.maximum(np.ceil(extent_mm / resolution_mm - 1e-4), 1).astype(int)
    grid = np.eye(4)
    grid[:3, :3] = vox2ras[:3, :3] / size_mm * resolution_mm
    centre_mm = vox2ras[:3, :3] @ ((np.array(shape[:3]) - 1) / 2) + vox2ras[:3, 3]
    grid[:3, 3] = centre_mm - grid[:3, :3] @ ((count - 1) / 2)
    return Grid((int(count[0]), int(count[1]), int(count[2])), grid)


def resample_series(
    dwi: NDArray[Any],
    vox2ras: Float[np.ndarray, "4 4"],
    affines: Float[np.ndarray, "volume 3 4"] | None,
    target: Grid,
    *,
    displacement: Displacement | None = None,
    num_threads: int = 1,
) -> Float[np.ndarray, "x y z volume"]:
    """Bring every volume to the reference position and onto one grid, interpolating once.

    The value at x of volume v is that of the acquired volume at M_v(x + d(x) e), by cubic
    B-splines, times the volume that the tissue took up there: (1 + ∂d/∂e) |det M_v|. Points more
    than half a voxel outside the acquired field of view become 0, and so do the undershoots of
    the splines at edges. A volume that neither moves nor changes its grid is returned as it is.

    Parameters
    ----------
    dwi
        Series, (x, y, z, volume); it may be of any type, and stay on disk.
    vox2ras
        Its grid.
    affines
        M_v: RAS+ millimetres of the reference position to those of each volume. Default: none
        moved.
    target
        Grid of the result.
    displacement
        Susceptibility distortion d, if it is known.
    num_threads
        Volumes that are resampled at a time; the result does not depend on it.

    Raises
    ------
    InputError
        If there is not one affine a volume, or the displacement has another grid.

    References
    ----------
    Unser 1999, doi:10.1109/79.799930 (B-splines);
    Jones and Cercignani 2010, doi:10.1002/nbm.1543 (intensity after distortion correction).
    """
    moves = np.tile(np.eye(4)[:3], (dwi.shape[3], 1, 1)) if affines is None else affines
    source = Grid((dwi.shape[0], dwi.shape[1], dwi.shape[2]), vox2ras)
    _check(dwi, moves, displacement)
    points_mm = target.points_mm()
    stretch: Float[np.ndarray, "x y z"] | float = 1.0
    if displacement is not None:
        points_mm, stretch = _displaced(points_mm, source, displacement)
    stays = displacement is None and source.is_same(target)
    out = np.empty((*target.shape, dwi.shape[3]), np.float32)

    def fill(index: int) -> None:
        volume = np.asarray(dwi[..., index], np.float32)
        move = moves[index]
        if stays and np.allclose(move, np.eye(4)[:3], atol=_SAME):
            out[..., index] = volume
            return
        values = Sampler(volume, vox2ras)(apply_affine(move, points_mm))
        out[..., index] = (values * (stretch * abs(np.linalg.det(move[:, :3])))).clip(min=0)

    for_each(fill, dwi.shape[3], num_threads)
    return out


class Sampler:
    """Values of an image between its voxels, by cubic B-splines; 0 outside the field of view.

    Parameters
    ----------
    image
        The image; values that are not finite count as 0.
    vox2ras
        Its grid.
    """

    def __init__(
        self, image: Float[np.ndarray, "x y z"], vox2ras: Float[np.ndarray, "4 4"]
    ) -> None:
        clean = np.nan_to_num(image, posinf=0.0, neginf=0.0)
        self._ras2vox = np.linalg.inv(vox2ras)[:3]
        # A spline needs two voxels along an axis; single slices are constant across.
        self._coefficients = ndimage.spline_filter(
            clean, order=_SPLINE_ORDER, output=np.float32, mode="mirror"
        )

    def __call__(self, points_mm: Float[np.ndarray, 3 * n]) -> Float[np.ndarray, "*n"]:
        """Interpolate at positions in RAS+ millimetres."""
        voxels = apply_affine(self._ras2vox, points_mm)
        last = np.reshape(self._coefficients.shape, (3, *[1] * (voxels.ndim - 1))) - 1
        inside = ((voxels > -0.5) & (voxels < last + 0.5)).all(axis=0)
        values = ndimage.map_coordinates(
            self._coefficients,
            np.clip(voxels, 0, last),
            order=_SPLINE_ORDER,
            mode="mirror",
            prefilter=False,
        )
        return np.where(inside, values, np.float32(0))


def apply_affine(
    affine: Float[np.ndarray, "3 4"], points_mm: Float[np.ndarray, 3 * n]
) -> Float[np.ndarray, 3 * n]:
    """Map positions, coordinates first."""
    offset = affine[:3, 3].reshape(3, *[1] * (points_mm.ndim - 1))
    return np.tensordot(affine[:3, :3], points_mm, axes=1) + offset


def for_each(task: Callable[[int], None], count: int, num_threads: int) -> None:
    """Call ``task`` with 0, 1, ..., count - 1, on threads; the first error is raised."""
    if num_threads <= 1:
        for index in range(count):
            task(index)
        return
    with ThreadPoolExecutor(num_threads) as pool:
        done: Iterator[None] = pool.map(task, range(count))
        for _ in done:
            pass


def _displaced(
    points_mm: Float[np.ndarray, "3 x y z"], source: Grid, displacement: Displacement
) -> tuple[Float[np.ndarray, "3 x y z"], Float[np.ndarray, "x y z"]]:
    """Move points along the phase-encoding axis; also give how much space is stretched there."""
    axis_mm = source.vox2ras[:3, displacement.axis]
    voxel_mm = float(np.linalg.norm(axis_mm))
    along_mm = np.asarray(displacement.along_mm, np.float64)
    slope = np.gradient(along_mm, voxel_mm, axis=displacement.axis)
    voxels = apply_affine(np.linalg.inv(source.vox2ras)[:3], points_mm)
    # Beyond its edge the field stays what it is there.
    shift_mm, stretch = (
        ndimage.map_coordinates(image, voxels, order=1, mode="nearest")
        for image in (along_mm, slope)
    )
    moved = points_mm + shift_mm * (axis_mm / voxel_mm)[:, None, None, None]
    return moved, (1.0 + stretch).clip(min=0)


def _check(
    dwi: NDArray[Any],
    affines: Float[np.ndarray, "volume 3 4"],
    displacement: Displacement | None,
) -> None:
    if affines.shape != (dwi.shape[3], 3, 4):
        raise InputError(
            f"The series has {dwi.shape[3]} volumes; the affines' shape is {affines.shape}.",
            remedy="Estimate the head motion again: it is of another series.",
        )
    if displacement is not None and displacement.along_mm.shape != dwi.shape[:3]:
        raise InputError(
            f"The displacement has {displacement.along_mm.shape} voxels, the series "
            f"{dwi.shape[:3]}.",
            remedy="Estimate the distortion again: it is of another series.",
        )
