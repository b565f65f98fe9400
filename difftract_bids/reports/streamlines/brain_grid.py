"""An image of the brain on a grid along the scanner's axes, small enough for a page."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from scipy import ndimage

_SPACING_MM = 1.5
#: A brain that has more voxels of that size (an adult's has 450,000) gets larger ones.
_MAX_VOXELS = 350_000
#: Black and white: what is darker or brighter than all but these percentages of the brain.
_WINDOW_PERCENT = (1.0, 99.5)


@dataclass(frozen=True)
class BrainGrid:
    """Grey values of the brain in scanner axes.

    Attributes
    ----------
    grey
        0 (black) to 255 (white); 0 outside the brain.
    inside
        Brain, without holes, and a black rim of one voxel.
    origin_mm
        Centre of the first voxel, RAS+ millimetres.
    spacing_mm
        Of the grid, which is along the axes of RAS+.
    """

    grey: NDArray[np.uint8]
    inside: Bool[np.ndarray, "x y z"]
    origin_mm: Float[np.ndarray, " 3"]
    spacing_mm: float

    @property
    def last_mm(self) -> Float[np.ndarray, " 3"]:
        """Centre of the last voxel, RAS+ millimetres."""
        return self.origin_mm + self.spacing_mm * (np.array(self.grey.shape) - 1)

    @property
    def middle_mm(self) -> Float[np.ndarray, " 3"]:
        """Centre of gravity of the brain, on a voxel's centre, RAS+ millimetres."""
        where = np.argwhere(self.inside)
        centre = where.mean(axis=0) if len(where) else (np.array(self.grey.shape) - 1) / 2
        return self.origin_mm + self.spacing_mm * np.round(centre)


def brain_grid(
    image: Float[np.ndarray, "x y z"],
    mask: Bool[np.ndarray, "x y z"],
    vox2ras: Float[np.ndarray, "4 4"],
    mask_vox2ras: Float[np.ndarray, "4 4"],
) -> BrainGrid:
    """Bring the brain of an image onto a grid along the axes of RAS+, oblique images too.

    Parameters
    ----------
    image
        Any intensities; what is not finite counts as 0.
    mask
        Brain, on a grid of its own; all of that grid if it is empty.
    vox2ras, mask_vox2ras
        Voxels of image and mask to RAS+ millimetres.
    """
    mask = ndimage.binary_fill_holes(mask) if mask.any() else np.ones(mask.shape, dtype=bool)
    image = np.nan_to_num(np.asarray(image, dtype=np.float32), posinf=0.0, neginf=0.0)
    voxel_mm3 = abs(float(np.linalg.det(mask_vox2ras[:3, :3])))
    spacing_mm = max(_SPACING_MM, (mask.sum() * voxel_mm3 / _MAX_VOXELS) ** (1 / 3))
    spacing_mm = round(spacing_mm + 0.049, 1)  # a number that a slider can step by
    corners_mm = _corners(mask) @ mask_vox2ras[:3, :3].T + mask_vox2ras[:3, 3]
    low = np.floor(corners_mm.min(axis=0) / spacing_mm) - 2
    high = np.ceil(corners_mm.max(axis=0) / spacing_mm) + 2
    origin_mm = low * spacing_mm
    shape = tuple((high - low + 1).astype(int))
    grid = np.diag([spacing_mm] * 3 + [1.0])
    grid[:3, 3] = origin_mm
    # Wider voxels than the image's take in what lies between them.
    finer = np.maximum(spacing_mm / np.linalg.norm(vox2ras[:3, :3], axis=0) - 1, 0)
    values = _onto(ndimage.gaussian_filter(image, 0.3 * finer), vox2ras, grid, shape)
    inside = _onto(mask.astype(np.float32), mask_vox2ras, grid, shape)
    brain = inside > 0.5
    # A black rim, so that slices fade out instead of ending in steps.
    box, inside = _cropped(ndimage.binary_dilation(brain))
    return BrainGrid(
        np.where(brain[box], _grey(values[box], brain[box]), np.uint8(0)),
        inside,
        origin_mm + spacing_mm * np.array([axis.start for axis in box]),
        float(spacing_mm),
    )


def _corners(mask: Bool[np.ndarray, "x y z"]) -> Float[np.ndarray, "8 3"]:
    where = np.argwhere(mask)
    ends = np.stack([where.min(axis=0), where.max(axis=0)])
    return np.stack(np.meshgrid(*ends.T, indexing="ij"), axis=-1).reshape(-1, 3).astype(float)


def _onto(
    image: NDArray[np.float32],
    vox2ras: Float[np.ndarray, "4 4"],
    grid: Float[np.ndarray, "4 4"],
    shape: tuple[int, ...],
) -> NDArray[np.float32]:
    map_ = np.linalg.inv(vox2ras) @ grid
    return ndimage.affine_transform(
        image, map_[:3, :3], map_[:3, 3], output_shape=shape, order=1, cval=0.0
    )


def _cropped(
    inside: Bool[np.ndarray, "x y z"],
) -> tuple[tuple[slice, ...], Bool[np.ndarray, "x y z"]]:
    """Cut to what is inside; if a brain is less than a voxel, that is everything."""
    if not inside.any():
        inside = np.ones_like(inside)
    (box,) = ndimage.find_objects(inside.astype(np.int8))
    return box, inside[box]


def _grey(values: NDArray[np.float32], inside: Bool[np.ndarray, "x y z"]) -> NDArray[np.uint8]:
    if not inside.any():
        return np.zeros(values.shape, dtype=np.uint8)
    black, white = np.percentile(values[inside], _WINDOW_PERCENT)
    share = (values - black) / (white - black) if white > black else np.zeros_like(values)
    return np.round(255 * np.clip(share, 0.0, 1.0)).astype(np.uint8)
