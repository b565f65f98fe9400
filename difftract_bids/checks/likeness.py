"""How well one image of a brain is explained by others, wherever it is put.

The measure is a correlation ratio of several images at once (Roche et al. 1998,
doi:10.1007/BFb0056301, with a smooth function in place of bins): the share of an image's variance
inside the brain that a polynomial of the other images explains. It needs no agreement of
contrasts, lies between 0 and 1, and is not the mutual information that registrations maximise.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import ndimage, optimize

from difftract_bids.io.images import Volume

_DEGREE = 4
#: The brightest hundredth of an image is fat and vessels: their brightness does not count.
_TOP_PERCENTILE = 99.0
#: First step of a search along each axis: millimetres, and degrees.
_FIRST_STEP = 4.0
_SAMPLING_SEED = 0
#: A position: shifts along x, y, z in millimetres, and turns about them in degrees.
Pose = NDArray[np.float64]


@dataclass(frozen=True)
class Likeness:
    """An image that is moved, and what it is compared with at some points of the brain.

    Attributes
    ----------
    points_mm
        Where they are compared, RAS+ millimetres.
    basis
        Orthonormal functions of the other images at these points.
    image, ras2vox
        What is moved, smoothed, and RAS+ millimetres to its voxels.
    """

    points_mm: Float[np.ndarray, "point 3"]
    basis: Float[np.ndarray, "function point"]
    image: Float[np.ndarray, "x y z"]
    ras2vox: Float[np.ndarray, "4 4"]

    @classmethod
    def of(
        cls,
        fixed: Sequence[Float[np.ndarray, "x y z"]],
        mask: Volume,
        moving: Volume,
        *,
        sigma_mm: float,
        spacing_mm: float,
    ) -> Self:
        """Prepare a comparison at a scale.

        Parameters
        ----------
        fixed
            Images on the grid of the mask.
        mask
            Brain mask; only what is inside counts.
        moving
            The image to be moved, on any grid; see :func:`shrunken`.
        sigma_mm
            Smoothing of all images (Gaussian's standard deviation).
        spacing_mm
            How far apart points are on average.

        Raises
        ------
        ValueError
            If the mask is empty.
        """
        sizes_mm = mask.voxel_sizes_mm
        inside = np.argwhere(mask.data > 0)
        if not len(inside):
            message = "the brain mask is empty"
            raise ValueError(message)
        count = max(1, round(len(inside) * float(np.prod(sizes_mm)) / spacing_mm**3))
        picked = np.random.default_rng(_SAMPLING_SEED).permutation(len(inside))[:count]
        voxels = inside[picked]
        values = [
            _smoothed(np.nan_to_num(image), sigma_mm / sizes_mm)[tuple(voxels.T)]
            for image in fixed
        ]
        return cls(
            points_mm=voxels @ mask.vox2ras[:3, :3].T + mask.vox2ras[:3, 3],
            basis=_basis(values),
            image=_smoothed(moving.data, sigma_mm / moving.voxel_sizes_mm),
            ras2vox=np.linalg.inv(moving.vox2ras),
        )

    def moved_mm(
        self, pose: Pose, flip: tuple[int, int, int] = (1, 1, 1)
    ) -> Float[np.ndarray, "point 3"]:
        """Give the points moved: mirrored first, then turned about the brain's centre."""
        centre = self.points_mm.mean(axis=0)
        turned = ((self.points_mm - centre) * flip) @ _rotation(pose[3:]).T
        moved: Float[np.ndarray, "point 3"] = turned + (centre + pose[:3])
        return moved

    def explained(self, pose: Pose, flip: tuple[int, int, int] = (1, 1, 1)) -> float:
        """Give the share of the image's variance that is explained at a position, 0 to 1."""
        voxels = self.moved_mm(pose, flip) @ self.ras2vox[:3, :3].T + self.ras2vox[:3, 3]
        values = ndimage.map_coordinates(self.image, voxels.T, order=1, output=np.float32)
        values -= values.mean()
        total = float(values @ values)
        return float(((self.basis @ values) ** 2).sum()) / total if total > 0 else 0.0

    def climb(
        self, start: Pose, flip: tuple[int, int, int] = (1, 1, 1), *, tolerance: float = 0.2
    ) -> tuple[Pose, float]:
        """Find the best position near one (Powell's method), and what is explained there."""

        def unexplained(pose: Pose) -> float:
            return 1.0 - self.explained(pose, flip)

        steps = _FIRST_STEP * np.eye(6)  # a new one each time: the search changes it
        options = {"xtol": tolerance, "ftol": 1e-3, "maxiter": 3, "direc": steps}
        found = optimize.minimize(unexplained, start, method="Powell", options=options)
        return np.asarray(found.x, dtype=np.float64), 1.0 - float(found.fun)

    def displacement_mm(self, pose: Pose) -> float:
        """Give how far a position moves the brain, on average over its points, millimetres."""
        return float(np.linalg.norm(self.moved_mm(pose) - self.points_mm, axis=1).mean())


def shrunken(volume: Volume, size_mm: float = 2.0) -> Volume:
    """Average blocks of voxels to about a size, and cut off what is brighter than tissue."""
    factors = np.maximum(1, np.floor(size_mm / volume.voxel_sizes_mm + 0.01)).astype(int)
    shape = np.array(volume.data.shape) // factors
    cut = volume.data[tuple(slice(0, n) for n in shape * factors)]
    blocks = cut.reshape([n for pair in zip(shape, factors, strict=True) for n in pair])
    data = np.nan_to_num(blocks.mean(axis=(1, 3, 5), dtype=np.float32))
    tissue = data[data > 0]
    if tissue.size:
        data = np.minimum(data, np.percentile(tissue, _TOP_PERCENTILE)).astype(np.float32)
    vox2ras = volume.vox2ras @ np.diag([*factors.tolist(), 1.0])
    vox2ras[:3, 3] += volume.vox2ras[:3, :3] @ ((factors - 1) / 2)
    return Volume(data, vox2ras)


def _smoothed(
    data: NDArray[np.generic], sigma_vox: Float[np.ndarray, " 3"]
) -> Float[np.ndarray, "x y z"]:
    smooth: Float[np.ndarray, "x y z"] = ndimage.gaussian_filter(
        data.astype(np.float32, copy=False), sigma_vox, truncate=2.5
    )
    return smooth


def _basis(values: Sequence[NDArray[np.generic]]) -> Float[np.ndarray, "function point"]:
    """Make orthonormal polynomials of the ranks, which know no units and no outliers."""
    n_points = len(values[0])
    ranks = [np.argsort(np.argsort(v, kind="stable")) / n_points * 2 - 1 for v in values]
    columns = [np.ones(n_points)]
    columns += [rank**power for rank in ranks for power in range(1, _DEGREE + 1)]
    for one, other in itertools.combinations(ranks, 2):
        columns += [one * other, one**2 * other, one * other**2]
    basis, _ = np.linalg.qr(np.stack(columns, axis=1))
    return np.ascontiguousarray(basis.T, dtype=np.float32)


def _rotation(angles_deg: Float[np.ndarray, " 3"]) -> Float[np.ndarray, "3 3"]:
    """Turn about x, then y, then z."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(np.deg2rad(angles_deg)), np.sin(np.deg2rad(angles_deg))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    product: Float[np.ndarray, "3 3"] = about_z @ about_y @ about_x
    return product
