"""The brain in a T1w image, by way of a template that was registered to it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from difftract_bids.errors import InputError
from difftract_bids.io.images import Volume
from difftract_bids.io.transforms import LinearTransform, Transform
from difftract_bids.preprocessing.registration import dilate_mm, resample

#: The brain reaches no further beyond the mask of the diffusion image: that one is distorted.
_REACH_MM = 8.0
#: The rim of the template's mask cuts the crowns of some gyri: this much further, tissue counts.
_GROWTH_MM = 2.0
#: In the rim, what is this much brighter than white matter is fat or a vessel.
_TOO_BRIGHT = 1.2
#: There, too, what is darker than this share of white matter is fluid or bone, and left out.
_TOO_DARK = 0.35
_RIM_MM = 3.0
_OPENING_MM = 1.5
_MARGIN_MM = 6.0


def t1w_brain_mask(
    t1w: Volume,
    template: Volume,
    to_template: Sequence[Transform],
    dwi_mask: Volume | None = None,
) -> Bool[np.ndarray, "x y z"]:
    """Carry the template's brain into a T1w, and let its rim follow the intensities.

    Parameters
    ----------
    t1w
        The T1w, with or without skull.
    template
        The template's T1w without skull: 0 outside the brain.
    to_template
        From points of the T1w to points of the template, outermost last.
    dwi_mask
        Brain mask of diffusion images in the T1w's space, on any grid: more than 8 mm outside it
        there is no brain.

    Raises
    ------
    InputError
        If nothing of the template's brain falls on the T1w.
    """
    brain = Volume((template.data > 0).astype(np.float32), template.vox2ras)
    mask = resample(brain, t1w.data.shape, t1w.vox2ras, to_template) > 0.5
    mask &= t1w.data > 0  # a T1w without skull knows its brain already
    if dwi_mask is not None:
        # Grown on its own grid, which has a tenth of the voxels.
        reach = dilate_mm(dwi_mask.data > 0, dwi_mask.vox2ras, _REACH_MM).astype(np.uint8)
        near = Volume(reach, dwi_mask.vox2ras)
        mask &= resample(near, mask.shape, t1w.vox2ras, [], labels=True) > 0
    if not mask.any():
        raise InputError(
            "No brain was found in the T1w.",
            remedy="Look at its registration in the report; or leave the T1w out.",
        )
    box = box_around(mask, t1w.vox2ras, _MARGIN_MM)
    refined = np.zeros_like(mask)
    refined[box] = _refined(Volume(t1w.data[box], t1w.vox2ras), mask[box])
    return refined


def box_around(
    mask: Bool[np.ndarray, "x y z"], vox2ras: Float[np.ndarray, "4 4"], margin_mm: float
) -> tuple[slice, slice, slice]:
    """Find the smallest box of voxels that holds a mask that is not empty, and a margin."""
    sizes_mm = np.linalg.norm(vox2ras[:3, :3], axis=0)
    box = []
    for axis, size_mm in enumerate(sizes_mm):
        hit = np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))
        margin = int(np.ceil(margin_mm / size_mm))
        first, last = int(hit[0]) - margin, int(hit[-1]) + 1 + margin
        box.append(slice(max(0, first), min(mask.shape[axis], last)))
    i, j, k = box
    return i, j, k


def cropped(volume: Volume, box: tuple[slice, slice, slice]) -> Volume:
    """Cut a box out of an image: the grid is the same, only smaller."""
    vox2ras = volume.vox2ras.copy()
    vox2ras[:3, 3] += vox2ras[:3, :3] @ [side.start for side in box]
    return Volume(np.ascontiguousarray(volume.data[box]), vox2ras)


def around_brain(
    template: Volume, mask: Volume, to_template: Sequence[Transform], size_mm: float = 1.5
) -> tuple[Volume, Volume]:
    """Sample a template and a brain mask on one fine RAS+ grid around the brain.

    Parameters
    ----------
    template
        An image in the template's space.
    mask
        Brain mask of the participant.
    to_template
        From points of the participant's space to points of the template, outermost last.
    size_mm
        Voxel size of the grid.

    Raises
    ------
    InputError
        If the mask is empty.
    """
    voxels = np.argwhere(mask.data > 0)
    if not len(voxels):
        raise InputError("The brain mask is empty.", remedy="Look at the b=0 reference.")
    corners = LinearTransform(mask.vox2ras).points(voxels.astype(np.float64))
    low, high = corners.min(axis=0) - _MARGIN_MM, corners.max(axis=0) + _MARGIN_MM
    shape = (np.ceil((high - low) / size_mm).astype(int) + 1).tolist()
    vox2ras = np.diag([size_mm] * 3 + [1.0])
    vox2ras[:3, 3] = low
    brain = resample(mask, shape, vox2ras, [], labels=True) > 0
    sampled = resample(template, shape, vox2ras, to_template)
    return Volume(sampled, vox2ras), Volume(brain, vox2ras)


def _refined(t1w: Volume, mask: Bool[np.ndarray, "x y z"]) -> Bool[np.ndarray, "x y z"]:
    sizes_mm = t1w.voxel_sizes_mm
    depth_mm = ndimage.distance_transform_edt(mask, sampling=sizes_mm)
    bright = float(np.percentile(t1w.data[mask], 90))
    is_tissue = (t1w.data > _TOO_DARK * bright) & (t1w.data < _TOO_BRIGHT * bright)
    # By a voxel at least, and a little more for rounding.
    grown = dilate_mm(mask, t1w.vox2ras, max(_GROWTH_MM, 1.01 * float(sizes_mm.max())))
    # Fluid within the mask stays; beyond it only tissue is taken, and fat is cut from the rim.
    refined = (mask & (depth_mm > _RIM_MM)) | (grown & is_tissue)
    refined |= mask & (t1w.data <= _TOO_DARK * bright)
    return _solid(refined, sizes_mm)


def _solid(
    mask: Bool[np.ndarray, "x y z"], sizes_mm: Float[np.ndarray, " 3"]
) -> Bool[np.ndarray, "x y z"]:
    """Cut thin bridges, keep the largest piece and fill its holes."""
    core = ndimage.distance_transform_edt(mask, sampling=sizes_mm) > _OPENING_MM
    labels, count = ndimage.label(core)
    if not count:
        return mask
    largest = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    outward_mm = ndimage.distance_transform_edt(~largest, sampling=sizes_mm)
    return ndimage.binary_fill_holes(mask & (outward_mm <= _OPENING_MM + float(sizes_mm.max())))
