"""Spatial transforms: what they mean, and their files.

Every transform here maps points of the *fixed* image to points of the *moving* image, both in
RAS+ millimetres: it is what resampling the moving image onto the fixed grid needs. In BIDS words,
the file of such a transform is ``from-<moving>_to-<fixed>_mode-image_xfm``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813 (its customary name)
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from difftract_bids.errors import InputError

#: RAS+ to ITK's LPS+ and back.
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class LinearTransform:
    """A rigid or affine map of fixed to moving points.

    Attributes
    ----------
    matrix
        Homogeneous, RAS+ millimetres to RAS+ millimetres.
    """

    matrix: Float[np.ndarray, "4 4"]

    def points(self, points_mm: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 3"]:
        """Map points of the fixed image to the moving image."""
        return points_mm @ self.matrix[:3, :3].T + self.matrix[:3, 3]

    def inverse(self) -> LinearTransform:
        """Swap fixed and moving."""
        return LinearTransform(np.linalg.inv(self.matrix))


@dataclass(frozen=True)
class NonlinearTransform:
    """A map of fixed to moving points: first displaced within the fixed space, then ``affine``.

    Attributes
    ----------
    affine
        Homogeneous, fixed to moving, RAS+ millimetres.
    displacement_mm
        Displacement vectors, RAS+ millimetres, on a grid in the fixed space.
    vox2ras
        Voxels of that grid to RAS+ millimetres. Beyond it the vectors of its edge hold.
    """

    affine: Float[np.ndarray, "4 4"]
    displacement_mm: Float[np.ndarray, "x y z 3"]
    vox2ras: Float[np.ndarray, "4 4"]

    def points(self, points_mm: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 3"]:
        """Map points of the fixed image to the moving image (trilinear displacements)."""
        voxels = LinearTransform(np.linalg.inv(self.vox2ras)).points(points_mm)
        coordinates = np.moveaxis(voxels, -1, 0)
        moved = points_mm + np.stack(
            [
                map_coordinates(
                    self.displacement_mm[..., axis], coordinates, order=1, mode="nearest"
                )
                for axis in range(3)
            ],
            axis=-1,
        )
        return LinearTransform(self.affine).points(moved)


@dataclass(frozen=True)
class CompositeTransform:
    """Several transforms in a row, such as a field between two affines.

    Attributes
    ----------
    parts
        From the fixed space outwards: the first is applied first, the last ends in the moving
        image.
    """

    parts: tuple[LinearTransform | NonlinearTransform, ...]

    def points(self, points_mm: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 3"]:
        """Map points of the fixed image to the moving image."""
        for part in self.parts:
            points_mm = part.points(points_mm)
        return points_mm


Transform = LinearTransform | NonlinearTransform | CompositeTransform


def save_linear(transform: LinearTransform, path: str | os.PathLike[str]) -> Path:
    """Write a linear transform as ITK text (ANTs, Slicer, nitransforms read it)."""
    lps = RAS_TO_LPS @ transform.matrix @ RAS_TO_LPS
    itk = sitk.AffineTransform(3)
    itk.SetMatrix(lps[:3, :3].ravel().tolist())
    itk.SetTranslation(lps[:3, 3].tolist())
    target = Path(path).absolute()
    sitk.WriteTransform(itk, str(target))
    return target


def load_linear(path: str | os.PathLike[str]) -> LinearTransform:
    """Read a linear transform from ITK text.

    Raises
    ------
    InputError
        If the file cannot be read or holds another kind of transform.
    """
    try:
        itk = sitk.ReadTransform(str(path))
    except RuntimeError as error:
        raise _unreadable(path) from error
    if not itk.IsLinear() or itk.GetDimension() != 3:
        raise _unreadable(path)
    return linear_of_itk(itk)


def linear_of_itk(itk: sitk.Transform) -> LinearTransform:
    """Take over ITK's transform, or several in a row, that is linear."""
    lps = np.eye(4)
    lps[:3, 3] = itk.TransformPoint((0.0, 0.0, 0.0))
    columns = [np.array(itk.TransformPoint(axis)) - lps[:3, 3] for axis in np.eye(3).tolist()]
    lps[:3, :3] = np.stack(columns, axis=1)
    return LinearTransform(RAS_TO_LPS @ lps @ RAS_TO_LPS)


def save_nonlinear(
    transform: NonlinearTransform,
    warp: str | os.PathLike[str],
    affine: str | os.PathLike[str],
) -> tuple[Path, Path]:
    """Write the two parts: an ITK displacement field (``.nii.gz``) and an ITK text file.

    ``antsApplyTransforms -t <affine> -t <warp>`` applies them in the order meant here.

    Returns
    -------
    tuple of Path
        ``warp`` and ``affine``, absolute.
    """
    target = Path(warp).absolute()
    lps = transform.displacement_mm.astype(np.float32) * np.array([-1, -1, 1], np.float32)
    image = sitk.GetImageFromArray(np.ascontiguousarray(lps.transpose(2, 1, 0, 3)), isVector=True)
    set_geometry(image, transform.vox2ras)
    sitk.WriteImage(image, str(target))
    return target, save_linear(LinearTransform(transform.affine), affine)


def load_nonlinear(
    warp: str | os.PathLike[str], affine: str | os.PathLike[str]
) -> NonlinearTransform:
    """Read what :func:`save_nonlinear` wrote.

    Raises
    ------
    InputError
        If a file cannot be read or holds another kind of transform.
    """
    try:
        image = sitk.ReadImage(str(warp))
    except RuntimeError as error:
        raise _unreadable(warp) from error
    if image.GetNumberOfComponentsPerPixel() != 3 or image.GetDimension() != 3:
        raise _unreadable(warp)
    vectors = sitk.GetArrayFromImage(image).transpose(2, 1, 0, 3).astype(np.float32)
    vox2lps = np.eye(4)
    vox2lps[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * np.array(image.GetSpacing())
    vox2lps[:3, 3] = image.GetOrigin()
    displacement_mm = vectors * np.array([-1, -1, 1], np.float32)
    return NonlinearTransform(load_linear(affine).matrix, displacement_mm, RAS_TO_LPS @ vox2lps)


def to_itk(data: NDArray[np.generic], vox2ras: Float[np.ndarray, "4 4"]) -> sitk.Image:
    """Make a SimpleITK image of a scalar one, (x, y, z)."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(data.transpose(2, 1, 0)))
    set_geometry(image, vox2ras)
    return image


def set_geometry(image: sitk.Image, vox2ras: Float[np.ndarray, "4 4"]) -> None:
    """Give a SimpleITK image the geometry of a NIfTI affine (a shear, if any, is dropped)."""
    lps = RAS_TO_LPS @ vox2ras
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    u, _, vh = np.linalg.svd(lps[:3, :3] / spacing)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((u @ vh).ravel().tolist())


def _unreadable(path: object) -> InputError:
    return InputError(
        "The file holds no transform of the kind needed.",
        where=path,
        remedy="Delete it, so that it is made again.",
    )
