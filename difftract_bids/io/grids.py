"""Bringing an image that was stored with other axes onto the grid of another, if it is that."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from nibabel.orientations import (
    apply_orientation,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)
from numpy.typing import NDArray

from difftract_bids.errors import InputError
from difftract_bids.io.images import Volume

#: Grids whose corners are further apart than this share of a voxel are different ones.
_TOLERANCE = 0.1


def onto_grid(
    volume: Volume, shape: tuple[int, ...], vox2ras: Float[np.ndarray, "4 4"], *, where: object
) -> Volume:
    """Turn an image's axes to those of a grid with the same voxels; values are untouched.

    Vectors and SH coefficients in the voxels keep their meaning if they refer to scanner axes.

    Parameters
    ----------
    volume
        Image whose axes may be permuted or reversed.
    shape, vox2ras
        The grid wanted: voxels along each axis, and its affine.
    where
        What the error names.

    Returns
    -------
    Volume
        With the affine of the grid.

    Raises
    ------
    InputError
        If it has other voxels; the message says by how much.
    """
    check_same_voxels(volume.data.shape[:3], volume.vox2ras, shape, vox2ras, where=where)
    turn = ornt_transform(io_orientation(volume.vox2ras), io_orientation(vox2ras))
    return Volume(np.ascontiguousarray(apply_orientation(volume.data, turn)), vox2ras)


def check_same_voxels(
    shape: tuple[int, ...],
    vox2ras: Float[np.ndarray, "4 4"],
    wanted_shape: tuple[int, ...],
    wanted_vox2ras: Float[np.ndarray, "4 4"],
    *,
    where: object,
) -> None:
    """Check that two grids have the same voxels, in whatever order and direction of the axes.

    Parameters
    ----------
    shape, vox2ras
        Voxels along each axis of an image, and its affine.
    wanted_shape, wanted_vox2ras
        The grid wanted.
    where
        What the error names.

    Raises
    ------
    InputError
        If they differ by more than a tenth of a voxel.
    """
    turn = ornt_transform(io_orientation(vox2ras), io_orientation(wanted_vox2ras))
    turned_shape = tuple(shape[axis] for axis in np.argsort(turn[:, 0]))
    turned = vox2ras @ inv_ornt_aff(turn, shape[:3])
    apart_mm = np.abs((turned - wanted_vox2ras) @ _corners(wanted_shape)).max()
    voxel_mm = np.linalg.norm(wanted_vox2ras[:3, :3], axis=0).min()
    if turned_shape == tuple(wanted_shape[:3]) and apart_mm <= _TOLERANCE * voxel_mm:
        return
    by = " by "
    raise InputError(
        f"The image has {by.join(map(str, turned_shape))} voxels, the diffusion run "
        f"{by.join(map(str, wanted_shape[:3]))}; their corners are up to {apart_mm:.1f} mm apart.",
        where=where,
        remedy="Give as BIDS_DIR the (preprocessed) images that it was made from, or resample it "
        "onto the run's grid (mrtransform -template).",
    )


def _corners(shape: tuple[int, ...]) -> NDArray[np.float64]:
    ends = [(0.0, float(n - 1)) for n in shape[:3]]
    return np.array(np.meshgrid(*ends, [1.0])).reshape(4, -1)
