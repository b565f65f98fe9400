"""fODF images, ours and those of other programs: read into MRtrix3's basis, written in any.

Coefficients refer to axes as well as to a basis. MRtrix3, QSIRecon and this package take scanner
(RAS+) axes. DIPY takes those of the b-vectors it was given, which in FSL's files are voxel axes.
Nothing here rotates an fODF: where the two kinds of axes differ, a note says so.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from difftract_bids.errors import FodfError, InputError
from difftract_bids.io.fodf_checks import (
    check_affine,
    check_values,
    checked_lmax,
    not_four_dimensional,
    zero_if_not_finite,
)
from difftract_bids.io.images import load_volume, readable_image, save_volume
from difftract_bids.io.lengths import check_length
from difftract_bids.io.mif import load_mif, read_mif_header

if TYPE_CHECKING:
    from torch import Tensor

    from difftract_bids.core.sh_bases import ShBasis

_NIFTI, _MRTRIX = (".nii", ".nii.gz"), (".mif", ".mif.gz", ".mih")
#: The word for each basis in a sidecar. BEP016's draft defines "mrtrix3" and "descoteaux"; the
#: formula it gives for the latter is that of DIPY's legacy basis.
_SIDECAR_NAMES: dict[ShBasis, str] = {
    "mrtrix3": "mrtrix3",
    "descoteaux07": "descoteaux07",
    "descoteaux07_legacy": "descoteaux",
    "tournier07_legacy": "tournier07_legacy",
}
#: Words that others write, in small letters.
_KNOWN_WORDS: dict[str, ShBasis] = {
    **{word: basis for basis, word in _SIDECAR_NAMES.items()},
    "descoteaux07_legacy": "descoteaux07_legacy",
    "mrtrix": "mrtrix3",
    "tournier": "mrtrix3",
    "tournier07": "mrtrix3",
}
#: Voxel axes that differ from scanner axes by less are the same but for rounding.
_SAME_AXES = 1e-3


@dataclass(frozen=True)
class FodfImage:
    """fODFs in MRtrix3's basis.

    Attributes
    ----------
    sh_coeffs
        SH coefficients, float32, finite.
    vox2ras
        Voxels to RAS+ millimetres.
    basis_found
        The basis that they are in in the file.
    notes
        What the user should be told: a basis that was assumed, voxels that were set to zero, axes
        that may be meant otherwise.
    """

    sh_coeffs: Float[np.ndarray, "x y z coeff"]
    vox2ras: Float[np.ndarray, "4 4"]
    basis_found: ShBasis
    notes: tuple[str, ...] = ()

    @property
    def lmax(self) -> int:
        """Maximum degree."""
        return checked_lmax(self.sh_coeffs.shape)


def sidecar_name(basis: ShBasis) -> str:
    """Give ``OrientationEncoding.SphericalHarmonicBasis`` of an image in a basis."""
    return _SIDECAR_NAMES[basis]


def check_fodf_image(path: str | os.PathLike[str], basis: ShBasis | None = None) -> int:
    """Check an fODF image by its header and its sidecar, without its values.

    Parameters
    ----------
    path
        As for `load_fodf`.
    basis
        The basis, if the user names it; else it must be clear from the sidecar, if there is one.

    Returns
    -------
    int
        The maximum degree.

    Raises
    ------
    InputError
        If the file is missing, truncated, or not an image of a kind that can be read.
    FodfError
        If it cannot be an fODF image that can be tracked.
    """
    shape, vox2ras = _read_header(Path(path))
    lmax = checked_lmax(shape, path)
    check_affine(vox2ras, path)
    _find_basis(Path(path), basis)
    return lmax


def load_fodf(path: str | os.PathLike[str], basis: ShBasis | None = None) -> FodfImage:
    """Load an fODF image, from whatever program, into MRtrix3's basis.

    Parameters
    ----------
    path
        ``.nii``, ``.nii.gz``, ``.mif``, ``.mif.gz`` or ``.mih``; QSIRecon's are named
        ``..._param-fod_label-WM_dwimap.mif.gz``.
    basis
        The basis of its coefficients; if left out, ``SphericalHarmonicBasis`` of
        ``OrientationEncoding`` in the JSON sidecar, else ``mrtrix3``, with a note.

    Returns
    -------
    FodfImage
        Coefficients are taken to refer to scanner axes, whatever the axes of the voxels. The notes
        say where that may be wrong (see the top of this module).

    Raises
    ------
    InputError
        As `check_fodf_image`.
    FodfError
        As `check_fodf_image`, and if the values cannot be those of fODFs: all zero, not positive
        on average over the sphere, or all positive.
    """
    place = Path(path)
    check_fodf_image(place, basis)
    found, notes = _find_basis(place, basis)
    volume = load_mif(place) if _suffix(place) in _MRTRIX else load_volume(place, ndim=4)
    data, n_mended = zero_if_not_finite(volume.data)
    if n_mended:
        notes.append(f"{n_mended} voxels held values that are not finite; they are set to zero.")
    check_values(data, place)
    notes += _notes_on_axes(place, volume.vox2ras, found)
    return FodfImage(_converted(data, found), volume.vox2ras, found, tuple(notes))


def save_fodf(
    sh_coeffs: Float[np.ndarray, "x y z coeff"] | Float[Tensor, "x y z coeff"],
    vox2ras: Float[np.ndarray, "4 4"],
    path: str | os.PathLike[str],
    basis: ShBasis = "mrtrix3",
) -> Path:
    """Save fODFs as NIfTI, float32; the directions stay in scanner axes in every basis.

    Parameters
    ----------
    sh_coeffs
        Coefficients in MRtrix3's basis; a single one, of grey matter or CSF, is the same in all.
    vox2ras
        Voxels to RAS+ millimetres.
    path
        Name of the file, ``.nii`` or ``.nii.gz``. Its sidecar is the caller's, with
        ``sidecar_name(basis)`` for the basis.
    basis
        The basis to write. DIPY reads ``descoteaux07`` with ``legacy=False``, and
        ``descoteaux07_legacy`` by default.

    Returns
    -------
    Path
        The absolute path written.

    Raises
    ------
    FodfError
        If the coefficients are not those of an image, or the basis is not known.
    """
    from difftract_bids.core.sh_bases import to_basis

    coefficients = _as_tensor(sh_coeffs)
    if coefficients.ndim != 4:
        raise not_four_dimensional(tuple(coefficients.shape), path)
    if coefficients.shape[-1] > 1:
        coefficients = to_basis(coefficients, basis)
    return save_volume(coefficients.numpy(), np.asarray(vox2ras, dtype=np.float64), path)


def _as_tensor(sh_coeffs: NDArray[np.floating] | Tensor) -> Tensor:
    import torch

    return torch.as_tensor(sh_coeffs).detach().to("cpu", torch.float32)


def _converted(data: NDArray[np.float32], basis: ShBasis) -> NDArray[np.float32]:
    if basis == "mrtrix3":
        return data
    from difftract_bids.core.sh_bases import from_basis

    return from_basis(_as_tensor(data), basis).numpy()


def _suffix(path: Path) -> str:
    """Give the ending by which the format is known.

    Raises
    ------
    InputError
        If it is none of those that can be read.
    """
    name = path.name.lower()
    for suffix in (*_NIFTI, *_MRTRIX):
        if name.endswith(suffix):
            return suffix
    raise InputError(
        f"The file name ends in none of {', '.join((*_NIFTI, *_MRTRIX))}.",
        where=path,
        remedy="Convert it: mrconvert IMAGE IMAGE.nii.gz.",
    )


def _read_header(path: Path) -> tuple[tuple[int, ...], Float[np.ndarray, "4 4"]]:
    """Read shape and affine, and check that the values are there."""
    if _suffix(path) in _MRTRIX:
        header = read_mif_header(path)
        return header.shape, header.vox2ras
    with readable_image(path):
        image = nib.load(path)
    if image.get_data_dtype().kind not in "fiu":
        raise FodfError(
            f"The image holds {image.get_data_dtype()}, not one real number a voxel and volume.",
            where=path,
            remedy="Give an image of SH coefficients.",
        )
    itemsize = image.get_data_dtype().itemsize
    check_length(path, int(image.dataobj.offset) + math.prod(image.shape) * itemsize)
    return image.shape, np.asarray(image.affine, dtype=np.float64)


def _find_basis(path: Path, given: ShBasis | None) -> tuple[ShBasis, list[str]]:
    """Choose the basis, and collect what there is to say about the choice.

    Raises
    ------
    FodfError
        If the user or the sidecar names a basis that is not known.
    """
    if given is not None:
        if given not in _SIDECAR_NAMES:
            raise FodfError(
                f"The spherical harmonic basis {given!r} is not known.",
                where=path,
                remedy=f"Choose one of {', '.join(_SIDECAR_NAMES)}.",
            )
        return given, []
    word = _orientation_encoding(path).get("SphericalHarmonicBasis")
    if word is None:
        return "mrtrix3", ["No sidecar names the basis of the fODFs; MRtrix3's is assumed."]
    basis = _KNOWN_WORDS.get(str(word).lower())
    if basis is None:
        raise FodfError(
            f"The sidecar names the spherical harmonic basis {word!r}, which is not known.",
            where=path,
            remedy=f"Name it otherwise; known are {', '.join(_KNOWN_WORDS)}.",
        )
    if basis == "descoteaux07":
        return basis, [
            "The sidecar says descoteaux07; DIPY's with legacy=False is meant, not its default."
        ]
    return basis, []


def _orientation_encoding(path: Path) -> dict[str, object]:
    """Read ``OrientationEncoding`` of the sidecar; empty if there is none."""
    sidecar = path.with_name(path.name[: -len(_suffix(path))] + ".json")
    if not sidecar.is_file():
        return {}
    try:
        content = json.loads(sidecar.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"The sidecar cannot be read: {error}.", where=sidecar, remedy="Mend or remove it."
        ) from error
    encoding = content.get("OrientationEncoding") if isinstance(content, dict) else None
    return encoding if isinstance(encoding, dict) else {}


def _notes_on_axes(path: Path, vox2ras: Float[np.ndarray, "4 4"], basis: ShBasis) -> list[str]:
    """Say whether directions may be meant along voxel axes that are not the scanner's."""
    reference = _orientation_encoding(path).get("Reference")
    if reference not in ("ijk", "bvec") and not (
        basis.startswith("descoteaux07") and reference is None
    ):
        return []
    axes = vox2ras[:3, :3] / np.linalg.norm(vox2ras[:3, :3], axis=0)
    if np.abs(axes - np.eye(3)).max() < _SAME_AXES:
        return []
    reason = (
        f"The sidecar says that directions refer to {reference!r}"
        if reference
        else "DIPY's fODFs usually refer to voxel axes"
    )
    note = (
        f"{reason}, and the voxel axes of this image are not those of the scanner; directions "
        "are taken as the scanner's. If streamlines do not follow the anatomy, fit the fODFs "
        "again with b-vectors in scanner axes."
    )
    return [note]
