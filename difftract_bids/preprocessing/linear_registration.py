"""Linear registration by mutual information: T1w to diffusion, brain to template.

SimpleITK with the mutual information of Mattes et al. 2003, doi:10.1109/TMI.2003.809072 (faster
than DIPY's at the same accuracy). Samples are jittered from a fixed seed and one thread adds them
up, so that a result is the same every time and with any number of CPUs.

Transforms map points of the fixed image to points of the moving image, RAS+ millimetres
(:mod:`difftract_bids.io.transforms`).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk  # noqa: N813 (its customary name)
from jaxtyping import Bool, Float
from scipy import ndimage

from difftract_bids.errors import InputError
from difftract_bids.io.images import Volume
from difftract_bids.io.transforms import RAS_TO_LPS, LinearTransform, to_itk

#: Images are registered at about this voxel size: diffusion voxels are no smaller.
WORKING_MM = 2.0
#: Size of the voxels at which starting positions are compared.
_COARSE_MM = 8.0
#: Pitch of the head (about the left-right axis) at the start; it is what differs between scans.
_START_PITCH_DEG = (0.0, -25.0, 25.0)
#: Scans of the whole head reach down the neck, so that centres of mass differ along z.
_START_HEIGHT_MM = (0.0, -25.0, 25.0)
_MI_BINS = 32
#: SimpleITK jitters its regular samples, by the clock where no seed is given.
_SAMPLING_SEED = 1


def register_rigid(
    fixed: Volume,
    moving: Volume,
    *,
    fixed_mask: Bool[np.ndarray, "x y z"] | None = None,
) -> LinearTransform:
    """Find the rigid motion between two images of one head by mutual information.

    The headers need not agree: the search starts from several relative positions.

    Parameters
    ----------
    fixed, moving
        Images with or without skull, of any contrast, such as b=0 and T1w.
    fixed_mask
        Where the fixed image counts; give a generous brain mask.

    Returns
    -------
    LinearTransform
        Fixed to moving points.

    Raises
    ------
    InputError
        If an image is empty or they cannot be brought to overlap.
    """
    return _register_linear(fixed, moving, _rigid_starts(fixed, moving), fixed_mask)


def register_affine(
    fixed: Volume,
    moving: Volume,
    *,
    fixed_mask: Bool[np.ndarray, "x y z"] | None = None,
) -> LinearTransform:
    """Find the affine map between two brains without skull, a rigid one first.

    Parameters, result and errors as for :func:`register_rigid`.
    """
    rigid = register_rigid(fixed, moving, fixed_mask=fixed_mask)
    start = sitk.AffineTransform(3)
    _set_matrix(start, rigid.matrix, _centre_mm(fixed))
    return _register_linear(fixed, moving, [start], fixed_mask)


def _register_linear(
    fixed: Volume,
    moving: Volume,
    starts: Sequence[sitk.Transform],
    fixed_mask: Bool[np.ndarray, "x y z"] | None,
) -> LinearTransform:
    """Try each start on coarse images, and refine the best one."""
    images = _working_image(fixed), _working_image(moving)
    coarse = _coarser(images[0]), _coarser(images[1])
    mask = None
    if fixed_mask is not None:
        mask = to_itk(fixed_mask.astype(np.uint8), fixed.vox2ras)
    try:
        rough = [_optimise(_coarse_method(), coarse, start, mask) for start in starts]
        _, best = min(rough, key=lambda candidate: candidate[0])
        _, found = _optimise(_fine_method(), images, best, mask)
    except RuntimeError as error:
        raise InputError(
            f"The images cannot be registered: {str(error).strip().splitlines()[-1]}",
            remedy="Look at both: one may be empty, cropped or not of this head.",
        ) from error
    return LinearTransform(_matrix_of(found))


def _coarse_method() -> sitk.ImageRegistrationMethod:
    method = sitk.ImageRegistrationMethod()
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=4.0, minStep=0.2, numberOfIterations=60, relaxationFactor=0.6
    )
    return method


def _fine_method() -> sitk.ImageRegistrationMethod:
    method = sitk.ImageRegistrationMethod()
    method.SetShrinkFactorsPerLevel([2, 1])
    method.SetSmoothingSigmasPerLevel([2.0, 0.0])
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(0.3, seed=_SAMPLING_SEED)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=1.0, minStep=1e-3, numberOfIterations=150, relaxationFactor=0.6
    )
    return method


def _optimise(
    method: sitk.ImageRegistrationMethod,
    fixed_and_moving: tuple[sitk.Image, sitk.Image],
    start: sitk.Transform,
    mask: sitk.Image | None,
) -> tuple[float, sitk.Transform]:
    method.SetMetricAsMattesMutualInformation(_MI_BINS)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetNumberOfThreads(1)
    method.SetNumberOfWorkUnits(1)
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetOptimizerScalesFromPhysicalShift()
    if mask is not None:
        method.SetMetricFixedMask(mask)
    transform = type(start)(start)
    method.SetInitialTransform(transform, inPlace=True)
    method.Execute(*fixed_and_moving)
    return float(method.GetMetricValue()), transform


def _rigid_starts(fixed: Volume, moving: Volume) -> list[sitk.Transform]:
    centre, other = _centre_mm(fixed), _centre_mm(moving)
    starts: list[sitk.Transform] = []
    for pitch_deg, height_mm in itertools.product(_START_PITCH_DEG, _START_HEIGHT_MM):
        angle = np.deg2rad(pitch_deg)
        matrix = np.eye(4)
        matrix[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        matrix[:3, 3] = other + np.array([0.0, 0.0, height_mm]) - matrix[:3, :3] @ centre
        starts.append(_euler(matrix, centre))
    return [*starts, _euler(np.eye(4), centre)]


def _euler(matrix: Float[np.ndarray, "4 4"], centre: Float[np.ndarray, " 3"]) -> sitk.Transform:
    transform = sitk.Euler3DTransform()
    _set_matrix(transform, matrix, centre)
    return transform


def _set_matrix(
    transform: sitk.Transform, matrix: Float[np.ndarray, "4 4"], centre: Float[np.ndarray, " 3"]
) -> None:
    flip = np.array([-1.0, -1.0, 1.0])
    rotation = matrix[:3, :3] * np.outer(flip, flip)
    moved = (matrix[:3, :3] @ centre + matrix[:3, 3]) * flip
    transform.SetCenter((centre * flip).tolist())
    transform.SetMatrix(rotation.ravel().tolist())
    transform.SetTranslation((moved - centre * flip).tolist())


def _matrix_of(transform: sitk.Transform) -> Float[np.ndarray, "4 4"]:
    lps = np.eye(4)
    lps[:3, :3] = np.reshape(transform.GetMatrix(), (3, 3))
    centre = np.array(transform.GetCenter())
    lps[:3, 3] = np.array(transform.GetTranslation()) + centre - lps[:3, :3] @ centre
    return RAS_TO_LPS @ lps @ RAS_TO_LPS


def _centre_mm(volume: Volume) -> Float[np.ndarray, " 3"]:
    values = np.nan_to_num(volume.data.astype(np.float64), posinf=0.0, neginf=0.0)
    weights = np.clip(values, 0, None)
    if not weights.any():
        raise InputError(
            "An image to be registered is empty.",
            remedy="Look at it: it may not have been copied completely.",
        )
    # Equal weight for all of the head: a bright neck or eye must not pull.
    voxel = ndimage.center_of_mass(weights > 0.2 * np.percentile(weights, 98))
    return LinearTransform(volume.vox2ras).points(np.array(voxel))


def _working_image(volume: Volume) -> sitk.Image:
    data = np.nan_to_num(volume.data.astype(np.float32), posinf=0.0, neginf=0.0)
    return sitk.BinShrink(to_itk(data, volume.vox2ras), shrink_factors(volume))


def _coarser(image: sitk.Image) -> sitk.Image:
    factors = [max(1, round(_COARSE_MM / size)) for size in image.GetSpacing()]
    return sitk.BinShrink(image, factors)


def shrink_factors(volume: Volume) -> list[int]:
    """How many voxels along each axis make one of the working size."""
    return [max(1, round(WORKING_MM / float(size))) for size in volume.voxel_sizes_mm]
