"""Chains of spatial transforms, and their one file: ITK's HDF5, as ANTs and fMRIPrep write it.

Such a file lists its transforms from the last one applied to the first, each either an affine or
a displacement field. It is read straight into single precision: a field of a whole head at 1 mm
takes 100 MB that way, and no more than that twice.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import SimpleITK as sitk  # noqa: N813 (its customary name)
from jaxtyping import Float

from difftract_bids.errors import InputError
from difftract_bids.io.transforms import (
    RAS_TO_LPS,
    CompositeTransform,
    LinearTransform,
    NonlinearTransform,
    Transform,
    linear_of_itk,
    load_linear,
)

#: The names of two fields were misspelt before ITK 5; files of either kind are about.
_SPELLINGS = ("Transform", "Tranform")
_LPS_SIGNS = np.array([-1.0, -1.0, 1.0], dtype=np.float32)
#: One transform of a chain.
Step = LinearTransform | NonlinearTransform
#: Linear kinds, whose parameters are a matrix, a translation and a centre.
_MATRIX_KINDS = ("AffineTransform", "MatrixOffsetTransformBase")
#: Those whose parameters are angles and the like, which ITK itself turns into a matrix.
_RIGID_KINDS = ("Euler3DTransform", "VersorRigid3DTransform", "Similarity3DTransform")
_KINDS = (
    "DisplacementFieldTransform",
    *_MATRIX_KINDS,
    *_RIGID_KINDS,
    "IdentityTransform",
    "TranslationTransform",
)


def load_transform(path: str | os.PathLike[str]) -> Transform:
    """Read a transform from ITK text or ITK HDF5 (``.h5``).

    Returns
    -------
    Transform
        Fixed to moving points; a chain if the file holds several that are not linear.

    Raises
    ------
    InputError
        If the file cannot be read or holds a kind of transform that is not known here.
    """
    if Path(path).suffix.lower() not in (".h5", ".hdf5", ".hdf"):
        return load_linear(path)
    with _stored_parts(path) as stored:
        parts = [_read_part(item) for item in stored]
    return _simplified(list(reversed(parts)), path)


def check_transform(path: str | os.PathLike[str]) -> None:
    """Check in moments that an ITK HDF5 file holds transforms of the kinds that are known here.

    Raises
    ------
    InputError
        If it does not, or cannot be read.
    """
    with _stored_parts(path) as stored:
        for item in stored:
            if not _kind_of(item).startswith(_KINDS):
                raise ValueError(f"it holds a {_kind_of(item).split('_', maxsplit=1)[0]}")


@contextmanager
def _stored_parts(path: str | os.PathLike[str]) -> Iterator[list[h5py.Group]]:
    """Open a file of transforms, and say in one way what is wrong with it."""
    try:
        with h5py.File(path, "r") as file:
            group = file["TransformGroup"]
            stored = [group[key] for key in sorted(group, key=int)]
            yield [item for item in stored if "Composite" not in _kind_of(item)]
    except (OSError, KeyError, ValueError, IndexError) as error:
        raise InputError(
            f"The transform cannot be read: {error}.",
            where=path,
            remedy="Give an ITK composite transform of affines and displacement fields, as ANTs "
            "writes it, or leave the file out, so that the registration is made here.",
        ) from error


def save_composite_h5(transforms: Sequence[Transform], path: str | os.PathLike[str]) -> Path:
    """Write a chain of transforms as one ITK HDF5 file, in single precision and compressed.

    Parameters
    ----------
    transforms
        From the fixed image outwards: the first is applied first.
    path
        Where to write, ``.h5``. ``antsApplyTransforms -t <path>`` and nitransforms read it.

    Returns
    -------
    Path
        The absolute path written.
    """
    target = Path(path).absolute()
    parts = [step for transform in transforms for step in _steps_of(transform)]
    with h5py.File(target, "w") as file:
        file["ITKVersion"], file["HDFVersion"] = [b"5.4.0"], [b"1.14"]
        file["OSName"], file["OSVersion"] = [b"any"], [b"any"]
        group = file.create_group("TransformGroup")
        group.create_group("0")["TransformType"] = [b"CompositeTransform_float_3_3"]
        for number, part in enumerate(reversed(parts), start=1):
            _write_part(group.create_group(str(number)), part)
    return target


def _kind_of(item: h5py.Group) -> str:
    kind = item["TransformType"][0]
    return kind.decode() if isinstance(kind, bytes) else str(kind)


def _read_part(item: h5py.Group) -> Step:
    kind = _kind_of(item)
    name = next(name for name in (*_SPELLINGS, "") if not name or f"{name}Parameters" in item)
    parameters, fixed = item[f"{name}Parameters"], item[f"{name}FixedParameters"][()]
    if kind.startswith("DisplacementFieldTransform"):
        return _read_field(parameters, fixed)
    if kind.startswith(_MATRIX_KINDS):
        return _linear_of(parameters[()], fixed)
    if kind.startswith(_RIGID_KINDS):
        itk = getattr(sitk, kind.split("_", maxsplit=1)[0])()
        itk.SetFixedParameters(fixed.astype(np.float64).tolist())
        itk.SetParameters(parameters[()].astype(np.float64).tolist())
        return linear_of_itk(itk)
    if kind.startswith("IdentityTransform"):
        return LinearTransform(np.eye(4))
    if kind.startswith("TranslationTransform"):
        values = np.concatenate([np.eye(3).ravel(), parameters[()]])
        return _linear_of(values, np.zeros(3))
    raise ValueError(f"it holds a {kind.split('_', maxsplit=1)[0]}")


def _linear_of(
    parameters: Float[np.ndarray, " 12"], centre: Float[np.ndarray, " 3"]
) -> LinearTransform:
    lps = np.eye(4)
    lps[:3, :3] = np.reshape(parameters[:9], (3, 3))
    lps[:3, 3] = parameters[9:12] + centre[:3] - lps[:3, :3] @ centre[:3]
    return LinearTransform(RAS_TO_LPS @ lps @ RAS_TO_LPS)


def _read_field(parameters: h5py.Dataset, fixed: Float[np.ndarray, " 18"]) -> NonlinearTransform:
    shape = np.rint(fixed[:3]).astype(int)
    if fixed.size != 18 or parameters.size != 3 * np.prod(shape):
        raise ValueError(f"a field of {parameters.size} numbers does not fill its grid {shape}")
    # HDF5 converts to single precision while it reads: there is never a copy in double.
    values = np.empty(parameters.shape, dtype=np.float32)
    parameters.read_direct(values)
    field = values.reshape(*shape[::-1], 3)
    field *= _LPS_SIGNS
    vox2lps = np.eye(4)
    vox2lps[:3, :3] = np.reshape(fixed[9:18], (3, 3)) * fixed[6:9]
    vox2lps[:3, 3] = fixed[3:6]
    return NonlinearTransform(np.eye(4), field.transpose(2, 1, 0, 3), RAS_TO_LPS @ vox2lps)


def _simplified(parts: list[Step], path: object) -> Transform:
    """Join neighbours that one transform can express: a field and what is linear after it."""
    joined: list[Step] = []
    for part in parts:
        before = joined[-1] if joined else None
        if isinstance(part, LinearTransform) and isinstance(before, LinearTransform):
            joined[-1] = LinearTransform(part.matrix @ before.matrix)
        elif isinstance(part, LinearTransform) and isinstance(before, NonlinearTransform):
            joined[-1] = NonlinearTransform(
                part.matrix @ before.affine, before.displacement_mm, before.vox2ras
            )
        else:
            joined.append(part)
    if not joined:
        raise InputError(
            "The file holds no transform.",
            where=path,
            remedy="Leave it out, so that the registration is made here.",
        )
    return joined[0] if len(joined) == 1 else CompositeTransform(tuple(joined))


def _steps_of(transform: Transform) -> list[Step]:
    """Take a transform apart into what ITK has a kind for: affines and bare fields."""
    if isinstance(transform, CompositeTransform):
        return [step for part in transform.parts for step in _steps_of(part)]
    if isinstance(transform, LinearTransform) or np.array_equal(transform.affine, np.eye(4)):
        return [transform]
    bare = NonlinearTransform(np.eye(4), transform.displacement_mm, transform.vox2ras)
    return [bare, LinearTransform(transform.affine)]


def _write_part(group: h5py.Group, part: Step) -> None:
    if isinstance(part, LinearTransform):
        lps = RAS_TO_LPS @ part.matrix @ RAS_TO_LPS
        group["TransformType"] = [b"AffineTransform_float_3_3"]
        group["TransformParameters"] = np.concatenate([lps[:3, :3].ravel(), lps[:3, 3]])
        group["TransformFixedParameters"] = np.zeros(3)
        return
    lps = RAS_TO_LPS @ part.vox2ras
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    fixed = [part.displacement_mm.shape[:3], lps[:3, 3], spacing, (lps[:3, :3] / spacing).ravel()]
    values = part.displacement_mm.transpose(2, 1, 0, 3).astype(np.float32) * _LPS_SIGNS
    group["TransformType"] = [b"DisplacementFieldTransform_float_3_3"]
    group["TransformFixedParameters"] = np.concatenate(fixed).astype(np.float64)
    group.create_dataset("TransformParameters", data=values.ravel(), compression="gzip")
