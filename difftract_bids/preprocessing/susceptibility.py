"""Susceptibility distortion found from the T1w: displacement along the phase-encoding axis.

A T1w is hardly distorted. The b=0 image is registered to it by a smooth displacement along the
one axis on which echo-planar images are distorted, its intensities changed as the displacement
compresses and stretches them (Studholme et al. 2000, doi:10.1109/42.896788). The contrasts are
made alike first, as in INVERSION (Bhushan et al. 2015, doi:10.1016/j.neuroimage.2015.03.050),
but by the median b=0 value of each T1w value, times a smooth bias. Other measures of likeness are
compared by Wang et al. 2017, doi:10.3389/fninf.2017.00017; on the phantom the robust squared
difference used here was more accurate than local cross-correlation, and ten times as fast.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from difftract_bids.errors import InputError
from difftract_bids.io.images import Volume
from difftract_bids.io.transforms import LinearTransform
from difftract_bids.preprocessing.displacement_fit import Pair, fit_displacement
from difftract_bids.preprocessing.registration import dilate_mm, register_rigid, resample

#: Neighbouring voxels never come closer than this share of their distance.
SMALLEST_STRETCH = 0.2
_AXES = "ijk"
#: Beyond the brain mask, for what is displaced out of it.
_MARGIN_MM = 14.0
#: The rigid motion is found with the distorted b=0 first, and again with what was mended.
_PASSES = 2


def estimate_from_t1w(
    dwiref: Volume, mask: Bool[np.ndarray, "x y z"], t1w: Volume, axis: str
) -> Float[np.ndarray, "x y z"]:
    """Estimate the susceptibility displacement of a b=0 image from a T1w of the same head.

    Parameters
    ----------
    dwiref
        Mean b=0 image.
    mask
        Brain mask on its grid.
    t1w
        T1w, with or without skull; its position need not agree.
    axis
        Phase-encoding voxel axis, ``i``, ``j`` or ``k``. The direction does not matter.

    Returns
    -------
    numpy.ndarray
        Millimetres along that voxel axis, positive towards larger indices: what belongs at x lies
        at x + d(x). Never folds: 1 + dd/dx is at least 0.2.

    Raises
    ------
    InputError
        If the mask is empty, or the images cannot be registered.
    """
    if not mask.any():
        raise InputError("The brain mask is empty.", remedy="Look at the b=0 reference.")
    n, sizes_mm = _AXES.index(axis), dwiref.voxel_sizes_mm
    box = _box(mask, sizes_mm)
    corrected, field = dwiref.data.astype(np.float64), np.zeros(mask.shape)
    near = dilate_mm(mask, dwiref.vox2ras, 8.0)
    for _ in range(_PASSES):
        reference = Volume(corrected.astype(np.float32), dwiref.vox2ras)
        rigid = register_rigid(reference, t1w, fixed_mask=near)
        target = _t1w_on_grid(t1w, dwiref, rigid)
        epi, anatomy, weight, start = (
            np.ascontiguousarray(np.moveaxis(image[box].astype(np.float64), n, -1))
            for image in (dwiref.data, target, mask, field)
        )
        order = [*(k for k in range(3) if k != n), n]
        pair = Pair(epi, anatomy, weight, tuple(float(sizes_mm[k]) for k in order))
        found = np.moveaxis(fit_displacement(pair, start), -1, n)
        around = [(s.start, size - s.stop) for s, size in zip(box, mask.shape, strict=True)]
        field = _unfolded(np.pad(found, around, mode="edge"), n, float(sizes_mm[n]))
        corrected = undistort(dwiref.data, field, axis, float(sizes_mm[n]))
    return field.astype(np.float32)


def undistort(
    image: Float[np.ndarray, "x y z"],
    displacement_mm: Float[np.ndarray, "x y z"],
    axis: str,
    voxel_size_mm: float,
) -> Float[np.ndarray, "x y z"]:
    """Undo a displacement along a voxel axis, intensities included (linear interpolation).

    Parameters
    ----------
    image
        Distorted.
    displacement_mm
        Of :func:`estimate_from_t1w`.
    axis, voxel_size_mm
        Voxel axis of the displacement, and length of a voxel along it.
    """
    n = _AXES.index(axis)
    shift = np.moveaxis(displacement_mm.astype(np.float64) / voxel_size_mm, n, -1)
    place = np.indices(shift.shape, dtype=np.float64)
    place[-1] += shift
    source = np.moveaxis(image.astype(np.float64), n, -1)
    moved = ndimage.map_coordinates(source, place, order=1, mode="constant")
    return np.moveaxis(moved * (1.0 + np.gradient(shift, axis=-1)), -1, n)


def undistort_mask(
    mask: Bool[np.ndarray, "x y z"],
    displacement_mm: Float[np.ndarray, "x y z"],
    axis: str,
    voxel_size_mm: float,
) -> Bool[np.ndarray, "x y z"]:
    """Find where a mask of distorted images lies without their distortion (nearest neighbour).

    Parameters as for :func:`undistort`.
    """
    n = _AXES.index(axis)
    place = np.indices(mask.shape, dtype=np.float64)
    place[n] += displacement_mm / voxel_size_mm
    return ndimage.map_coordinates(mask.astype(np.uint8), place, order=0, mode="constant") > 0


def displacement_from_field(
    field_hz: Float[np.ndarray, "x y z"], sign: int, readout_s: float, voxel_size_mm: float
) -> Float[np.ndarray, "x y z"]:
    """Turn an off-resonance field into a displacement along the phase-encoding voxel axis.

    With positive blips signal of a higher field is displaced towards larger indices (FSL's topup
    user's guide; Jezzard and Balaban 1995, doi:10.1002/mrm.1910340111).

    Parameters
    ----------
    field_hz
        Field, Hz.
    sign
        Of the phase encoding, 1 or -1.
    readout_s
        Total readout time, seconds: one voxel is displaced by 1/readout Hz.
    voxel_size_mm
        Along the phase-encoding axis.
    """
    return (sign * readout_s * voxel_size_mm * field_hz).astype(np.float32)


def _box(
    mask: Bool[np.ndarray, "x y z"], sizes_mm: Float[np.ndarray, " 3"]
) -> tuple[slice, slice, slice]:
    low_high = []
    for indices, size_mm, n in zip(np.nonzero(mask), sizes_mm, mask.shape, strict=True):
        margin = round(_MARGIN_MM / float(size_mm))
        low_high.append(
            slice(max(0, int(indices.min()) - margin), min(n, int(indices.max()) + margin + 1))
        )
    return low_high[0], low_high[1], low_high[2]


def _t1w_on_grid(
    t1w: Volume, dwiref: Volume, rigid: LinearTransform
) -> Float[np.ndarray, "x y z"]:
    """Sample the T1w at the b=0 voxels, what is finer than them averaged out before."""
    ratio = dwiref.voxel_sizes_mm.mean() / t1w.voxel_sizes_mm
    data = np.nan_to_num(t1w.data.astype(np.float32), posinf=0.0, neginf=0.0)
    smooth = ndimage.gaussian_filter(data, 0.35 * np.sqrt(np.maximum(ratio**2 - 1, 0)))
    return resample(
        Volume(smooth, t1w.vox2ras), dwiref.data.shape, dwiref.vox2ras, [rigid]
    ).astype(np.float64)


def _unfolded(
    field_mm: Float[np.ndarray, "x y z"], axis: int, size_mm: float
) -> Float[np.ndarray, "x y z"]:
    """Weaken a field until no two voxels come closer than allowed; the fit rarely leaves any."""
    steepest = np.diff(field_mm, axis=axis).min() / size_mm
    return field_mm * min(1.0, (SMALLEST_STRETCH - 1.0) / min(steepest, -1e-9))
