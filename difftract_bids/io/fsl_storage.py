"""Images stored as FSL holds them in memory, and tables along those axes.

FSL reverses the first voxel axis of images whose affine has a positive determinant
(https://fsl.fmrib.ox.ac.uk/fsl/docs, Orientation Explained), and means its own axes in b-vectors
and in tables of phase encoding. Images are stored with a negative determinant before they are
given to it, so that what is on disk and what FSL holds are one.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from jaxtyping import Float

from difftract_bids.errors import InputError
from difftract_bids.io.images import Volume

#: Axes of two scans of one session are this parallel at least (their cosine), or are other axes.
_LEAST_COSINE = 0.9
_SIZE_TOLERANCE = 0.02


def is_reversed(vox2ras: Float[np.ndarray, "4 4"]) -> bool:
    """Say whether FSL reverses the first axis of an image with this affine."""
    return bool(np.linalg.det(vox2ras[:3, :3]) > 0)


def stored_for_fsl(volume: Volume) -> Volume:
    """Store an image with a negative determinant: its first axis reversed where need be."""
    return _reversed(volume) if is_reversed(volume.vox2ras) else volume


def restored(volume: Volume, vox2ras: Float[np.ndarray, "4 4"]) -> Volume:
    """Bring what FSL made of :func:`stored_for_fsl` back to the axes of the original affine."""
    return _reversed(volume) if is_reversed(vox2ras) else volume


def misfit(
    shape: tuple[int, ...],
    vox2ras: Float[np.ndarray, "4 4"],
    other_shape: tuple[int, ...],
    other_vox2ras: Float[np.ndarray, "4 4"],
) -> str:
    """Say why an image cannot be put in one series with a diffusion image; empty if it can.

    FSL goes by voxels: their number, size and axes must be alike; where they lie may differ, as
    the head moves.

    Parameters
    ----------
    shape, vox2ras
        Grid of the image.
    other_shape, other_vox2ras
        Grid of the diffusion image.
    """
    if tuple(shape[:3]) != tuple(other_shape[:3]):
        sizes = (" x ".join(str(int(n)) for n in one[:3]) for one in (shape, other_shape))
        return "it has {} voxels, the diffusion image {}".format(*sizes)
    axes = [affine[:3, :3] for affine in (vox2ras, other_vox2ras)]
    length, other_length = (np.linalg.norm(each, axis=0) for each in axes)
    if not np.allclose(length, other_length, rtol=_SIZE_TOLERANCE):
        return "its voxels are not of the size that those of the diffusion image have"
    if ((axes[0] * axes[1]).sum(axis=0) < _LEAST_COSINE * length * other_length).any():
        return "its voxel axes run other ways than those of the diffusion image"
    return ""


def signed_direction(direction: str, vox2ras: Float[np.ndarray, "4 4"]) -> str:
    """Give the phase-encoding direction along the axes as :func:`stored_for_fsl` stores them."""
    if direction[0] != "i" or not is_reversed(vox2ras):
        return direction
    return "i" if direction.endswith("-") else "i-"


def read_eddy_motion(path: str | os.PathLike[str]) -> Float[np.ndarray, "volume 6"]:
    """Read the movement of each volume from ``eddy_parameters``.

    Returns
    -------
    numpy.ndarray
        Translations along x, y and z, millimetres, then rotations about them, radians.

    Raises
    ------
    InputError
        If the file is no such table.
    """
    try:
        table = np.loadtxt(Path(path), ndmin=2, dtype=np.float64)
    except (OSError, ValueError) as error:
        raise _no_table(path, str(error)) from error
    if table.shape[1] < 6:
        raise _no_table(path, f"it has {table.shape[1]} columns")
    return table[:, :6]


def eddy_affines(
    movement: Float[np.ndarray, "volume 6"],
    shape: tuple[int, ...],
    vox2ras: Float[np.ndarray, "4 4"],
) -> Float[np.ndarray, "volume 3 4"]:
    """Turn eddy's movement into rigid transforms, RAS+ millimetres.

    Rotations are about x, y and z of the image's own axes in turn, about its centre. FSL does not
    document which way they go: sizes, such as framewise displacement, do not depend on it.

    Parameters
    ----------
    movement
        Of :func:`read_eddy_motion`.
    shape, vox2ras
        Grid of the image that eddy wrote.
    """
    from scipy.spatial.transform import Rotation  # only now: plans need no SciPy

    axes = vox2ras[:3, :3] / np.linalg.norm(vox2ras[:3, :3], axis=0)
    centre = vox2ras[:3, :3] @ ((np.array(shape[:3]) - 1) / 2) + vox2ras[:3, 3]
    turns = Rotation.from_euler("xyz", movement[:, 3:]).as_matrix()
    rotations = axes @ turns @ np.linalg.inv(axes)
    shifts = movement[:, :3] @ axes.T + centre - rotations @ centre
    return np.concatenate([rotations, shifts[:, :, None]], axis=2)


def _no_table(path: object, why: str) -> InputError:
    return InputError(
        f"eddy's parameters cannot be read: {why}.",
        where=path,
        remedy="Look at eddy's output; delete the working folder and run again.",
    )


def _reversed(volume: Volume) -> Volume:
    flip = np.diag([-1.0, 1.0, 1.0, 1.0])
    flip[0, 3] = volume.data.shape[0] - 1
    return Volume(np.ascontiguousarray(volume.data[::-1]), volume.vox2ras @ flip)
