"""Alignment of two averages of different contrast, which are nearly aligned already."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk  # noqa: N813 (its customary name)
from jaxtyping import Bool, Float

from difftract_bids.errors import InputError
from difftract_bids.io.transforms import to_itk
from difftract_bids.preprocessing.resampling import Grid

_BINS = 32
#: RAS+ to ITK's LPS+ and back.
_FLIP = np.array([-1.0, -1.0, 1.0])


def link(
    fixed: Float[np.ndarray, "x y z"],
    moving: Float[np.ndarray, "x y z"],
    grid: Grid,
    inside: Bool[np.ndarray, "x y z"],
    centre_mm: Float[np.ndarray, " 3"],
) -> tuple[Float[np.ndarray, "3 4"], float]:
    """Find the small rigid motion between two images on one grid by mutual information.

    All voxels inside are samples, and one thread adds them up: the same result every time.

    Parameters
    ----------
    fixed, moving
        Such as the averages of b=0 and of diffusion-weighted volumes.
    grid
        Their grid.
    inside
        Where to compare.
    centre_mm
        Centre of rotation, RAS+ millimetres.

    Returns
    -------
    moved
        Fixed to moving points, RAS+ millimetres, (3, 4).
    information
        How much the one tells of the other there.

    Raises
    ------
    InputError
        If an image is empty or flat.

    References
    ----------
    Mattes et al. 2003, doi:10.1109/TMI.2003.809072.
    """
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(_BINS)
    method.SetMetricFixedMask(to_itk(inside.astype(np.uint8), grid.vox2ras))
    method.SetInterpolator(sitk.sitkBSpline3)
    method.SetNumberOfThreads(1)
    method.SetNumberOfWorkUnits(1)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=1.0, minStep=1e-4, numberOfIterations=200, relaxationFactor=0.6
    )
    method.SetOptimizerScalesFromPhysicalShift()
    transform = sitk.Euler3DTransform()
    transform.SetCenter((centre_mm * _FLIP).tolist())
    method.SetInitialTransform(transform, inPlace=True)
    try:
        method.Execute(
            to_itk(fixed.astype(np.float32), grid.vox2ras),
            to_itk(moving.astype(np.float32), grid.vox2ras),
        )
    except RuntimeError as error:
        raise InputError(
            f"The b=0 and the weighted volumes cannot be aligned: {str(error).splitlines()[-1]}",
            remedy="Look at them: some may be empty. Otherwise use --motion-correction none.",
        ) from error
    rotation = np.reshape(transform.GetMatrix(), (3, 3)) * np.outer(_FLIP, _FLIP)
    shift = np.array(transform.GetTranslation()) * _FLIP
    moved = np.column_stack([rotation, shift + centre_mm - rotation @ centre_mm])
    return moved, -method.GetMetricValue()
