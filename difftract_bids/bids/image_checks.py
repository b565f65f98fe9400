"""Whether images can be used, found by their headers and lengths: in moments, before any work."""

from __future__ import annotations

import math
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.spatialimages import SpatialImage

from difftract_bids.bids.anatomy import Anatomy
from difftract_bids.bids.runs import PreprocessedDWI
from difftract_bids.errors import InputError
from difftract_bids.io.images import readable_image
from difftract_bids.io.lengths import check_length

_GZIP = b"\x1f\x8b"
_REMEDIES = {
    3: "Keep one volume of it (one echo, or their average), or leave the participant out.",
    4: "Convert the DICOM files again, or leave the participant out.",
}


def check_image_file(path: Path, *, ndim: int) -> SpatialImage:
    """Check that an image is there, whole, and of the dimensions needed.

    Parameters
    ----------
    path
        The image.
    ndim
        Number of dimensions; of 3, further ones of length 1 do not count.

    Raises
    ------
    InputError
        What is wrong with it.
    """
    check_file(path)
    _check_compression(path)
    with readable_image(path):
        image = nib.load(path)
    shape = image.shape
    if ndim == 3 and shape[3:] == (1,) * (len(shape) - 3):  # some converters write x, y, z, 1
        shape = shape[:3]
    if len(shape) != ndim or 0 in shape:
        raise InputError(
            f"The image has the shape {shape}; {ndim} dimensions are needed.",
            where=path,
            remedy=_REMEDIES[ndim],
        )
    affine = np.asarray(image.affine)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-6:
        raise InputError(
            "The affine of the image is not invertible.",
            where=path,
            remedy="Convert the DICOM files again: the header's sform or qform is damaged.",
        )
    itemsize = image.header.get_data_dtype().itemsize
    # MGH headers have numpy's numbers, which overflow.
    n_voxels = math.prod(int(n) for n in image.shape)
    check_length(path, int(image.dataobj.offset) + n_voxels * itemsize)
    return image


def check_file(path: Path) -> None:
    """Check that a file is there and not empty.

    Raises
    ------
    InputError
        If it is not; a link into a data store that has not been fetched is told of as such.
    """
    if path.is_symlink() and not path.exists():
        raise InputError(
            "The file is a link to content that is not here.",
            where=path,
            remedy="Fetch it first, with `datalad get` or `git annex get`, or mend the link.",
        )
    if not path.is_file():
        raise InputError("There is no such file.", where=path, remedy="Copy the dataset again.")
    if not path.stat().st_size:
        raise InputError(
            "The file is empty (0 bytes).", where=path, remedy="Copy or convert it again."
        )


def check_anatomy(anatomy: Anatomy) -> None:
    """Check every file of an anatomy.

    Whether a T1w is of the participant's own head cannot be told here.

    Raises
    ------
    InputError
        What is wrong, with which file.
    """
    for path in anatomy.images:
        check_image_file(path, ndim=3)
    for path in anatomy.from_template.values():
        from difftract_bids.io.composite_transforms import check_transform  # with SimpleITK

        check_file(path)
        check_transform(path)


def check_preprocessed(given: PreprocessedDWI) -> None:
    """Check that the mask of a preprocessed series lies on its grid.

    Raises
    ------
    InputError
        If it does not, or cannot be read.
    """
    if given.mask is None:
        return
    dwi, mask = nib.load(given.dwi), check_image_file(given.mask, ndim=3)
    if mask.shape[:3] != dwi.shape[:3] or not np.allclose(mask.affine, dwi.affine, atol=1e-2):
        raise InputError(
            f"The image is not on the grid of {given.dwi.name}.",
            where=given.mask,
            remedy="Copy the derivatives again: the two are not of one run of the program.",
        )


def _check_compression(path: Path) -> None:
    """Compare what a file is with what its name says: programs go by the name."""
    with path.open("rb") as stream:
        is_gzip = stream.read(2) == _GZIP
    if is_gzip and path.suffix == ".nii":
        raise InputError(
            "The image is compressed, but its name does not say so.",
            where=path,
            remedy=f"Rename it to {path.name}.gz.",
        )
    if not is_gzip and path.suffix == ".gz":
        raise InputError(
            "The image cannot be read: it is not compressed, though its name ends in .gz.",
            where=path,
            remedy=f"If it is an image, rename it to {path.stem}; else convert it again.",
        )
