"""Where the head lies in the scanner, and how it moves from volume to volume."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.ndimage import affine_transform
from scipy.spatial.transform import Rotation

from difftract_bids.errors import UsageError

_RAS_AXES = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}


def rigid(
    translation_mm: Float[np.ndarray, " 3"], rotation_deg: Float[np.ndarray, " 3"]
) -> Float[np.ndarray, "4 4"]:
    """Build a rigid transform: rotate about the fixed x, y and z axes in turn, then translate."""
    transform = np.eye(4)
    transform[:3, :3] = Rotation.from_euler("xyz", rotation_deg, degrees=True).as_matrix()
    transform[:3, 3] = translation_mm
    return transform


def random_rigid(
    rng: np.random.Generator, sd_mm: float, sd_deg: float
) -> Float[np.ndarray, "4 4"]:
    """Draw a rigid transform: six independent normal parameters, kept within 2 deviations."""
    draws = np.clip(rng.standard_normal((2, 3)), -2.0, 2.0)
    return rigid(sd_mm * draws[0], sd_deg * draws[1])


class Grid(NamedTuple):
    """An image grid: number of voxels along each axis, and voxels to RAS+ millimetres."""

    shape: tuple[int, int, int]
    vox2ras: Float[np.ndarray, "4 4"]


def make_grid(
    field_of_view_mm: tuple[float, float, float],
    voxel_size_mm: float,
    axes: str,
    oblique_deg: float,
) -> Grid:
    """Lay a grid around the scanner's origin.

    Parameters
    ----------
    field_of_view_mm
        Extent along the x, y and z axes (before the tilt), millimetres.
    voxel_size_mm
        Isotropic voxel size, millimetres.
    axes
        Where each voxel axis points, as in "LAS".
    oblique_deg
        How far the slices are tilted about the x axis, and half as far about z, degrees.

    Raises
    ------
    UsageError
        If the letters do not name three different axes.
    """
    directions = [_RAS_AXES.get(letter) for letter in axes.upper()]
    named = [direction for direction in directions if direction is not None]
    if len(axes) != 3 or sorted(axis for axis, _ in named) != [0, 1, 2]:
        raise UsageError(
            f"{axes!r} does not name three different axes.",
            where="--axes",
            remedy="Give one letter each of R/L, A/P and S/I, as in LAS or RPI.",
        )
    scaling = np.zeros((3, 3))
    for column, (axis, sign) in enumerate(named):
        scaling[axis, column] = sign * voxel_size_mm
    i, j, k = (round(field_of_view_mm[axis] / voxel_size_mm) for axis, _ in named)
    tilt = rigid(np.zeros(3), np.array([oblique_deg, 0.0, oblique_deg / 2]))
    affine = np.eye(4)
    affine[:3, :3] = tilt[:3, :3] @ scaling
    affine[:3, 3] = -affine[:3, :3] @ ((np.array((i, j, k)) - 1) / 2)
    return Grid((i, j, k), affine)


def move_volume(
    volume: Float[np.ndarray, "x y z"],
    motion: Float[np.ndarray, "4 4"],
    vox2ras: Float[np.ndarray, "4 4"],
) -> Float[np.ndarray, "x y z"]:
    """Resample a volume as if the head had moved by ``motion`` (scanner axes, millimetres).

    Cubic interpolation of the noise-free volume, clipped at 0: it blurs a little, as the average
    over a moving head does.
    """
    if np.allclose(motion, np.eye(4)):
        return volume
    pull = np.linalg.inv(vox2ras) @ np.linalg.inv(motion) @ vox2ras
    moved = affine_transform(volume, pull[:3, :3], pull[:3, 3], order=3, mode="constant")
    return np.maximum(moved, 0.0)
