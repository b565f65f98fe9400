"""Whether the brain mask is the brain: the whole of it, and nothing else."""

from __future__ import annotations

import nibabel as nib
import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from difftract_bids.checks.brain_tissue import distance_mm, find_tissue
from difftract_bids.checks.findings import Findings
from difftract_bids.checks.verdict import Check, judged

NAME, TITLE = "mask", "Brain mask"
_FIGURE = "mask"
#: Tissue further than this outside the mask is left out, unless voxels are larger.
_RIM_MM = 2.5
#: Shares of the mask that are left out. In good masks of two people and a phantom up to 0.1%; with
#: 60 to 80 mL of the temporal poles missing 2 to 4%, without the cerebellum 10 to 18%.
_LOOK_LEFT_OUT, _BAD_LEFT_OUT = 0.005, 0.05
#: What is further than this from tissue is not brain; fluid about the brain may be further.
_TISSUE_MM, _FLUID_MM = 4.0, 8.0
#: Fluid is brighter at b=0 than this share of the median of tissue.
_FLUID = 0.5
#: Shares of the mask that are not brain. In good masks up to 0.1%, in those grown by a voxel of
#: 2.4 mm 0.6%, by two 5%; with the eyes 1%, with neck 2 to 9%.
_LOOK_NOT_BRAIN, _BAD_NOT_BRAIN = 0.008, 0.04
#: Human brains from childhood on, mL. Children and animals are not wrong.
_SMALL_ML, _LARGE_ML = 800.0, 2200.0
#: Size of the second largest piece over that of the largest.
_LOOK_PIECE, _BAD_PIECE = 0.01, 0.1
#: Area of the mask on a face of the image over its largest section parallel to it. A brain stem
#: that leaves the image takes 2%, the lack of 5 mm at the top 12%, of 40 mm 80%.
_LOOK_CUT, _BAD_CUT = 0.1, 0.5
#: An image with fewer values than this about the mask was cut out with it.
_CUT_OUT = 0.05
_FACES = ("left", "right"), ("back", "front"), ("lower", "upper")
_WHY = "it is made from the mean b=0 and diffusion-weighted images: see there what misled it"


def check_mask(
    mask: Bool[np.ndarray, "x y z"],
    b0: Float[np.ndarray, "x y z"],
    powder: Float[np.ndarray, "x y z"],
    vox2ras: Float[np.ndarray, "4 4"],
) -> Check:
    """Compare a brain mask with where diffusion-weighted signal is bright.

    What is bright, and connected with the bright part of the mask, is brain; a mask that leaves
    some of it out is too small, and one that goes further than the fluid about it too large. The
    volume alone never makes a mask ``bad``.

    Parameters
    ----------
    mask
        Brain mask.
    b0
        b=0 reference.
    powder
        Mean over the directions of a shell near b = 1000 s/mm².
    vox2ras
        Voxels to RAS+ millimetres.
    """
    if not mask.any():
        return Check(
            NAME,
            TITLE,
            "bad",
            "The brain mask is empty.",
            "Look at the b=0 volumes: they may be empty, or not of a head.",
            _FIGURE,
        )
    sizes_mm = np.linalg.norm(vox2ras[:3, :3], axis=0)
    voxel_ml = float(np.prod(sizes_mm)) / 1000
    findings, total = Findings(), int(mask.sum())
    _judge_size(findings, mask, voxel_ml)
    left_out, not_brain = _voxels_amiss(mask, b0, powder, sizes_mm)
    findings.found.append(
        f"{left_out * voxel_ml:,.0f} mL of brain left out, {not_brain * voxel_ml:,.0f} mL that is "
        "not brain taken in"
    )
    findings.judge(
        judged(left_out / total, look=_LOOK_LEFT_OUT, bad=_BAD_LEFT_OUT),
        f"the mask leaves bright tissue out, where nothing is tracked: {_WHY}",
    )
    findings.judge(
        judged(not_brain / total, look=_LOOK_NOT_BRAIN, bad=_BAD_NOT_BRAIN),
        f"the mask holds more than brain (skull, neck, eyes): {_WHY}",
    )
    if not _has_surroundings(mask, b0):
        findings.found.append("about it the images are empty: what they lack cannot be seen")
    _judge_border(findings, mask, vox2ras)
    value_mm3 = total * voxel_ml * 1000
    return findings.check(NAME, TITLE, _FIGURE, value=value_mm3, unit="mm^3")


def _judge_size(findings: Findings, mask: Bool[np.ndarray, "x y z"], voxel_ml: float) -> None:
    parts, count = ndimage.label(mask)
    sizes = np.sort(np.bincount(parts.ravel())[1:])[::-1]
    second = float(sizes[1] / sizes[0]) if count > 1 else 0.0
    volume_ml = float(mask.sum()) * voxel_ml
    findings.found.append(f"{volume_ml:,.0f} mL")
    if second >= _LOOK_PIECE:
        findings.found.append(f"a second piece has {sizes[1] * voxel_ml:,.0f} mL of them")
    findings.judge(
        judged(second, look=_LOOK_PIECE, bad=_BAD_PIECE),
        f"the mask is in pieces: {_WHY}",
    )
    usual = _SMALL_ML <= volume_ml <= _LARGE_ML
    findings.judge(
        "good" if usual else "look",
        f"human brains have {_SMALL_ML:,.0f} to {_LARGE_ML:,.0f} mL, those of infants and animals "
        "less: is this the whole brain, and are the voxel sizes right?",
    )


def _voxels_amiss(
    mask: Bool[np.ndarray, "x y z"],
    b0: Float[np.ndarray, "x y z"],
    powder: Float[np.ndarray, "x y z"],
    sizes_mm: Float[np.ndarray, " 3"],
) -> tuple[int, int]:
    """Count the voxels of brain that are left out, and those taken in that are not brain."""
    tissue = find_tissue(powder, mask, sizes_mm)
    if not tissue.any():
        return 0, int(mask.sum())
    rim_mm = max(_RIM_MM, 1.1 * float(sizes_mm.max()))
    left_out = tissue & (distance_mm(mask, sizes_mm) > rim_mm)
    away_mm = distance_mm(tissue, sizes_mm)
    about_mm = max(_FLUID_MM, 2 * float(sizes_mm.max()))
    fluid = (b0 > _FLUID * np.nanmedian(b0[tissue])) & (away_mm <= about_mm)
    not_brain = mask & (away_mm > max(_TISSUE_MM, rim_mm)) & ~fluid
    return int(left_out.sum()), int(not_brain.sum())


def _has_surroundings(mask: Bool[np.ndarray, "x y z"], image: Float[np.ndarray, "x y z"]) -> bool:
    """Say whether an image goes on about the mask, or was cut out with one."""
    about = ndimage.binary_dilation(mask, iterations=2) & ~mask
    return not about.any() or bool((image[about] != 0).mean() > _CUT_OUT)


def _judge_border(
    findings: Findings, mask: Bool[np.ndarray, "x y z"], vox2ras: Float[np.ndarray, "4 4"]
) -> None:
    """Judge how much of the mask lies on the faces of the image."""
    cuts: dict[str, float] = {}
    for axis, (anatomical, sign) in enumerate(nib.io_orientation(vox2ras)):
        areas = mask.sum(axis=tuple({0, 1, 2} - {axis}))
        for end in (0, -1):
            face = _FACES[int(anatomical)][int((sign > 0) == (end == -1))]
            cuts[face] = float(areas[end] / areas.max())
    told = [face for face, cut in cuts.items() if cut >= _LOOK_CUT]
    if told:
        findings.found.append(
            f"cut off at the {' and '.join(told)} face of the image ({max(cuts.values()):.0%} of "
            "its largest section)"
        )
    findings.judge(
        judged(max(cuts.values()), look=_LOOK_CUT, bad=_BAD_CUT),
        "the field of view ends within the brain: what is beyond it is in no connectome",
    )
