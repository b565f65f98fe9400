"""NIfTI images as arrays with their voxel-to-RAS+ affine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from jaxtyping import Float
from nibabel.filebasedimages import ImageFileError
from numpy.typing import DTypeLike, NDArray

from difftract_bids.errors import InputError


class Volume(NamedTuple):
    """An image: ``data`` (x, y, z[, t]) and ``vox2ras`` (4, 4), voxels to RAS+ millimetres."""

    data: NDArray[Any]
    vox2ras: Float[np.ndarray, "4 4"]

    @property
    def voxel_sizes_mm(self) -> Float[np.ndarray, " 3"]:
        """Length of a voxel along each of its axes, millimetres."""
        return np.linalg.norm(self.vox2ras[:3, :3], axis=0)


@contextmanager
def readable_image(path: str | os.PathLike[str]) -> Iterator[None]:
    """Say which image it is that cannot be read, and what to do about it.

    Raises
    ------
    InputError
        If what is done with the image fails because of the file.
    """
    try:
        yield
    except (OSError, EOFError, ValueError, ImageFileError) as error:
        raise InputError(
            f"The image cannot be read: {error}.",
            where=path,
            remedy="Check that it was copied completely, or convert it again.",
        ) from error


def load_volume(
    path: str | os.PathLike[str], *, ndim: int | None = None, dtype: DTypeLike = np.float32
) -> Volume:
    """Load an image whole.

    Parameters
    ----------
    path
        NIfTI file.
    ndim
        Required number of dimensions, if any.
    dtype
        Type of the array returned; an integer type rounds.

    Raises
    ------
    InputError
        If the file is missing, truncated or no image, or has another number of dimensions.
    """
    with readable_image(path):
        image = nib.load(path)
        data = np.asanyarray(image.dataobj)
    if ndim == 3 and data.ndim > 3 and data.shape[3:] == (1,) * (data.ndim - 3):
        data = data.reshape(data.shape[:3])  # some converters write x, y, z, 1
    if ndim is not None and data.ndim != ndim:
        raise InputError(
            f"The image has {data.ndim} dimensions {data.shape}, {ndim} are needed.",
            where=path,
            remedy="Convert it again, or leave the participant out.",
        )
    if np.issubdtype(np.dtype(dtype), np.integer) and np.issubdtype(data.dtype, np.floating):
        data = np.rint(data)
    return Volume(np.asarray(data, dtype=dtype), np.asarray(image.affine, dtype=np.float64))


def save_volume(
    data: NDArray[np.generic],
    vox2ras: Float[np.ndarray, "4 4"],
    path: str | os.PathLike[str],
) -> Path:
    """Save an image as NIfTI-1 in its own data type (booleans as uint8), sform and qform set.

    Returns
    -------
    Path
        The absolute path written.
    """
    target = Path(path).absolute()
    array = data.astype(np.uint8) if data.dtype == np.bool_ else data
    image = nib.Nifti1Image(array, vox2ras)
    image.header.set_xyzt_units("mm")
    image.set_sform(vox2ras, code="scanner")
    image.set_qform(vox2ras, code="scanner")
    nib.save(image, target)
    return target
