"""A parcellation as the searches look at it: along axes near RAS, as MRtrix3 does."""

from __future__ import annotations

from functools import lru_cache
from itertools import permutations
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from difftract_bids.core.interpolation import Grid

#: Axes of voxels whose directions have a product smaller than this are at right angles.
_RIGHT_ANGLE = 1e-4


class LabelImage(NamedTuple):
    """A parcellation with its axes as near RAS as they come, and its affines (3, 4).

    Attributes
    ----------
    image
        All labels, in the order in which they are stored.
    layout
        Voxels along x, y, z; steps in ``image`` along x, y, z; where voxel (0, 0, 0) is.
    vox2ras, ras2vox
        From voxels along these axes to RAS+ millimetres, and back.
    """

    image: NDArray[np.integer[Any]]
    layout: Int[np.ndarray, " 7"]
    vox2ras: Float[np.ndarray, "3 4"]
    ras2vox: Float[np.ndarray, "3 4"]


def turned_to_ras(parcellation: Int[Tensor, "x y z"], vox2ras: Float[Tensor, "4 4"]) -> LabelImage:
    """Look at a parcellation along the axes nearest to RAS, as MRtrix does."""
    order, flipped, affine = turn(vox2ras, tuple(parcellation.shape))
    wide = parcellation.dtype in (torch.int64, torch.uint32, torch.uint64)
    dtype = torch.int64 if wide else torch.int32
    image = parcellation.to(dtype=dtype, device="cpu").contiguous()
    shape = [parcellation.shape[axis] for axis in order]
    steps = [image.stride(axis) for axis in order]
    start = sum(steps[axis] * (shape[axis] - 1) for axis in flipped)
    for axis in flipped:
        steps[axis] *= -1
    layout = np.array([*shape, *steps, start], dtype=np.int64)
    inverse = np.linalg.inv(affine)
    return LabelImage(image.numpy().ravel(), layout, affine[:3].copy(), inverse[:3].copy())


def turn(
    vox2ras: Float[Tensor, "4 4"], shape: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...], Float[np.ndarray, "4 4"]]:
    """Find the order of axes, which of these to reverse then, and the affine that results."""
    affine = vox2ras.detach().to(device="cpu", dtype=torch.float64).contiguous().numpy()
    order, flipped, turned = _turn(affine.tobytes(), affine.shape, shape)
    return order, flipped, turned.copy()


@lru_cache(maxsize=16)  # it is asked for with every block of a tractogram
def _turn(
    content: bytes, affine_shape: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...], Float[np.ndarray, "4 4"]]:
    affine = np.frombuffer(content).reshape(affine_shape).copy()
    # It checks the affine.
    Grid.from_affine(shape, torch.from_numpy(affine), torch.device("cpu"))
    direction = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    order = max(permutations(range(3)), key=lambda axes: float(_along(direction, axes)))
    affine[:, :3] = affine[:, list(order)]
    flipped = tuple(axis for axis in range(3) if affine[axis, axis] < 0)
    for axis in flipped:
        affine[:3, 3] += affine[:3, axis] * (shape[order[axis]] - 1)
        affine[:3, axis] *= -1
    return order, flipped, affine


def _along(direction: Float[np.ndarray, "3 3"], axes: tuple[int, ...]) -> np.floating[Any]:
    return np.abs(direction[np.arange(3), list(axes)]).sum()


def search_order(
    vox2ras: Float[np.ndarray, "_ 4"], radius_mm: float
) -> tuple[Int[np.ndarray, "k 3"], Float[np.ndarray, " k"], float]:
    """List voxel offsets that can matter, nearest first, with their length and half a diagonal."""
    return _search_order(vox2ras[:3, :3].tobytes(), radius_mm)


@lru_cache(maxsize=16)
def _search_order(
    content: bytes, radius_mm: float
) -> tuple[Int[np.ndarray, "k 3"], Float[np.ndarray, " k"], float]:
    linear = np.frombuffer(content).reshape(3, 3)
    sizes = np.linalg.norm(linear, axis=0)
    skewed = np.abs(linear.T @ linear / np.outer(sizes, sizes) - np.eye(3)).max() > _RIGHT_ANGLE
    corners = np.stack(np.meshgrid(*[[-0.5, 0.5]] * 3), axis=-1).reshape(-1, 3)
    half_mm = float(np.linalg.norm(corners @ linear.T, axis=1).max())
    reach_mm = radius_mm + half_mm
    extents = np.ceil(reach_mm * np.linalg.norm(np.linalg.inv(linear), axis=1)).astype(int)
    axes = [np.arange(-extent, extent + 1) for extent in extents[::-1]]
    z, y, x = (axis.ravel() for axis in np.meshgrid(*axes, indexing="ij"))
    offsets = np.stack([x, y, z], axis=1)
    if skewed:
        length = np.linalg.norm(offsets @ linear.T, axis=1)
    else:  # summed as MRtrix does: which of two equal lengths is first depends on it
        length = np.sqrt((z * sizes[2]) ** 2 + (y * sizes[1]) ** 2 + (x * sizes[0]) ** 2)
    order = np.argsort(length, kind="stable")
    order = order[length[order] <= reach_mm]
    return offsets[order], length[order], half_mm
