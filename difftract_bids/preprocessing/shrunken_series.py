"""A series as its alignment sees it: larger voxels, smoothed, compared at points of the brain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from scipy import ndimage

from difftract_bids.errors import InputError
from difftract_bids.io.images import Volume
from difftract_bids.preprocessing.bias import estimate_bias
from difftract_bids.preprocessing.resampling import (
    Grid,
    Sampler,
    apply_affine,
    for_each,
    isotropic_grid,
)

#: Volumes are compared at points this far apart.
_SAMPLING_MM = 4.0
#: Voxels are averaged into blocks of no more than this.
_WORKING_MM = 3.0
#: How far beyond the mask volumes are compared: its edge is what tells most.
_MARGIN_MM = 4.0


@dataclass(frozen=True)
class Samples:
    """Where volumes are compared.

    Attributes
    ----------
    grid
        A box around the brain, in the reference position.
    inside
        Which of its points count.
    """

    grid: Grid
    inside: Bool[np.ndarray, "x y z"]

    @property
    def points_mm(self) -> Float[np.ndarray, "3 n"]:
        """Positions that count, RAS+ millimetres."""
        return self.grid.points_mm()[:, self.inside]

    def slope(self, image: Float[np.ndarray, "x y z"]) -> Float[np.ndarray, "3 n"]:
        """Differentiate an image on the grid, per millimetre along RAS+ axes, where it counts."""
        along = np.stack([part[self.inside] for part in np.gradient(image)])
        return np.linalg.inv(self.grid.vox2ras[:3, :3]).T @ along


def sample_brain(
    mask: Bool[np.ndarray, "x y z"],
    vox2ras: Float[np.ndarray, "4 4"],
    sampling_mm: float = _SAMPLING_MM,
    *,
    margin_mm: float = _MARGIN_MM,
) -> Samples:
    """Lay sampling points over a brain and some millimetres around it.

    Raises
    ------
    InputError
        If the mask is empty, or the slab too thin.
    """
    if not mask.any():
        raise InputError("The brain mask is empty.", remedy="Look at the b=0 volumes.")
    whole = isotropic_grid(mask.shape, vox2ras, sampling_mm)
    size_mm = np.linalg.norm(vox2ras[:3, :3], axis=0)
    near = ndimage.distance_transform_edt(~mask, sampling=size_mm) <= margin_mm
    voxels = apply_affine(np.linalg.inv(vox2ras)[:3], whole.points_mm())
    inside = ndimage.map_coordinates(near.astype(np.uint8), voxels, order=0) > 0
    if min(whole.shape) < 2 or not inside.any():
        raise InputError(
            f"The slab is thinner than the {2 * sampling_mm:g} mm that motion can be found in.",
            remedy="Use --motion-correction none.",
        )
    box, start = [], np.zeros(3)
    for axis in range(3):
        filled = np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {axis})))
        start[axis] = max(filled[0] - 1, 0)  # one more on each side, for differences
        box.append(slice(int(start[axis]), int(filled[-1]) + 2))
    inside = inside[tuple(box)]
    corner = whole.vox2ras.copy()
    corner[:3, 3] += corner[:3, :3] @ start
    return Samples(Grid((inside.shape[0], inside.shape[1], inside.shape[2]), corner), inside)


@dataclass(frozen=True)
class ShrunkenSeries:
    """All volumes, averaged over blocks of voxels.

    Attributes
    ----------
    images
        The volumes; values that were not finite count as 0.
    vox2ras
        Of the blocks.
    factors
        Voxels of a block along each axis.
    num_threads
        Volumes that are worked on at a time.
    """

    images: list[Float[np.ndarray, "x y z"]]
    vox2ras: Float[np.ndarray, "4 4"]
    factors: list[int]
    num_threads: int

    def share_of(self, mask: Bool[np.ndarray, "x y z"]) -> Float[np.ndarray, "p q r"]:
        """Give how much of each block is in a mask on the grid before shrinking."""
        return _shrink(mask.astype(np.float32), self.factors)

    def evened(self, b0: Int[np.ndarray, " n"], mask: Bool[np.ndarray, "x y z"]) -> ShrunkenSeries:
        """Take out how bright the coils, which do not move with the head, make each place.

        Parameters
        ----------
        b0
            Volumes that it is judged by.
        mask
            Brain, on the grid before shrinking.
        """
        mean = np.mean([self.images[volume] for volume in b0], axis=0)
        field = estimate_bias(Volume(mean, self.vox2ras), self.share_of(mask) > 0.5)
        return replace(self, images=[image / field for image in self.images])

    def smoothed(self, volumes: Int[np.ndarray, " n"], sd_mm: float) -> list[Sampler]:
        """Smooth some volumes by a Gaussian, and make them ready to be interpolated."""
        sd_vox = sd_mm / np.linalg.norm(self.vox2ras[:3, :3], axis=0)
        made: dict[int, Sampler] = {}

        def make(index: int) -> None:
            image = ndimage.gaussian_filter(self.images[volumes[index]], sd_vox, mode="nearest")
            made[index] = Sampler(image, self.vox2ras)

        for_each(make, len(volumes), self.num_threads)
        return [made[index] for index in range(len(volumes))]


def shrink_series(
    dwi: NDArray[Any],
    vox2ras: Float[np.ndarray, "4 4"],
    largest_mm: Sequence[float] = (_WORKING_MM,) * 3,
    *,
    num_threads: int = 1,
) -> ShrunkenSeries:
    """Average a series over blocks of voxels, which are no larger than asked for.

    Parameters
    ----------
    dwi, vox2ras
        The series, of any type; it may stay on disk.
    largest_mm
        Size of the blocks along each axis at most; where voxels are larger they stay as they are.
    num_threads
        Volumes that are worked on at a time.
    """
    size_mm = np.linalg.norm(vox2ras[:3, :3], axis=0)
    factors = [
        max(1, int(most / size + 1e-3)) for most, size in zip(largest_mm, size_mm, strict=True)
    ]
    images = []
    for index in range(dwi.shape[3]):
        volume = np.asarray(dwi[..., index], np.float32)
        images.append(_shrink(np.nan_to_num(volume, posinf=0.0, neginf=0.0), factors))
    step = np.diag([*map(float, factors), 1.0])
    step[:3, 3] = (np.array(factors) - 1) / 2
    return ShrunkenSeries(images, vox2ras @ step, factors, num_threads)


def _shrink(image: Float[np.ndarray, "x y z"], factors: list[int]) -> Float[np.ndarray, "p q r"]:
    """Average blocks of voxels; what is left over at the far ends is dropped."""
    count = [length // factor for length, factor in zip(image.shape, factors, strict=True)]
    whole = image[tuple(slice(0, c * f) for c, f in zip(count, factors, strict=True))]
    blocks = whole.reshape([n for pair in zip(count, factors, strict=True) for n in pair])
    return blocks.mean(axis=(1, 3, 5))
