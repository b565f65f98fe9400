"""Whether T1w and template are where the brain of the diffusion images is.

Neither check repeats what was minimised: they ask, by another measure, where the image would fit
best, and tell how many millimetres of the brain's way that is from where it was put.

Limits are from a person at two resolutions, that person's T1w on another's diffusion images, and
three simulated heads, with faults planted: as registered, the best place was 0.1 to 1.0 mm away,
and shifts and turns that were planted were found to within 1 mm.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float

from difftract_bids.checks.findings import Findings
from difftract_bids.checks.placement import Placement, clearly_better, place
from difftract_bids.checks.verdict import Check, judged
from difftract_bids.io.images import Volume

_AWAY_MM = {"look": 3.0, "bad": 8.5}
#: Share of variance explained: of a T1w by b=0 and FA 0.60 and 0.70 in people (by b=0 alone 0.39
#: and 0.48), 0.91 simulated; upside down 0.2.
_ALIKE = {"look": 0.3, "bad": 0.2}
#: By a template that was warped to it, 0.66; with the warp of no use, 0.1 to 0.3.
_TEMPLATE_ALIKE = {"look": 0.45, "bad": 0.25}
#: Above this, an image that is no better than its mirror image is that of a symmetric head;
#: another person's T1w reached 0.53, and its mirror image 0.56.
_SURELY_ALIKE = 0.75
#: Dice: 0.98 in a person, 0.92 in a small simulated head of coarse voxels; shifts lower it slowly.
_OVERLAP = {"look": 0.9, "bad": 0.84}
_TISSUE_OUTSIDE = {"look": 0.1, "bad": 0.25}
_T1W_REMEDY = (
    "Look at the edges of one image over the other. Was the right scan taken, and does it show "
    "the whole head? A T1w without skull is often easier to register."
)
_TEMPLATE_REMEDY = (
    "Look at the template's edges over the T1w. A T1w that is misplaced misleads this "
    "registration, and so does a brain mask that is too large or too small."
)
_AXES = ("left to right", "front to back", "top to bottom")


def check_coregistration(
    t1w: Volume,
    dwiref: Volume,
    mask: Volume,
    *,
    fa: Volume | None = None,
    five_tissue_types: Volume | None = None,
) -> Check:
    """Judge whether the T1w lies where the brain of the diffusion images is, and is that brain's.

    Parameters
    ----------
    t1w
        T1w in the space of the diffusion images, on any grid, with or without skull.
    dwiref
        Mean b=0 image.
    mask
        Brain mask, same grid.
    fa
        Fractional anisotropy, same grid. Without it, what is found is less certain, and another
        person's T1w is not told.
    five_tissue_types
        Tissues of the T1w (x, y, z, tissue), in that space, on any grid: MRtrix's order.

    Returns
    -------
    Check
        ``coreg``; its value is the distance between where the T1w is and where it fits best,
        millimetres.

    Raises
    ------
    ValueError
        If the mask is empty.
    """
    fixed = [dwiref.data] if fa is None else [dwiref.data, fa.data]
    found = place(fixed, mask, t1w)
    findings = Findings()
    _judge_place(findings, found, "b=0 image" if fa is None else "b=0 image and FA", _T1W_REMEDY)
    _judge_flips(findings, found, surely=fa is not None)
    if five_tissue_types is not None:
        outside = tissue_outside(five_tissue_types, mask)
        findings.found.append(f"{outside:.0%} of its grey and white matter is outside the mask")
        findings.judge(
            judged(outside, **_TISSUE_OUTSIDE),
            "Look at the brain mask: parts of the brain are not in it, or the T1w is misplaced.",
        )
    value = round(found.distance_mm, 2)
    return findings.check("coreg", "T1w to diffusion", "coreg", value=value, unit="mm")


def check_template(
    t1w: Volume,
    mask: Volume,
    template: Float[np.ndarray, "x y z"],
    *,
    name: str,
    image: str = "T1w",
) -> Check:
    """Judge whether a template that was warped to a participant covers the participant's brain.

    Parameters
    ----------
    t1w
        T1w in the space of the diffusion images, on any grid, with or without skull.
    mask
        Brain mask in that space.
    template
        The template's T1w without skull, brought onto the mask's grid by the transform.
    name
        Name of the template.
    image
        What ``t1w`` is, in words, where it is something else in its place.

    Returns
    -------
    Check
        ``template``; its value is the overlap (Dice) of the two brains, 0 to 1.

    Raises
    ------
    ValueError
        If the mask is empty.
    """
    found = place([template], mask, t1w, with_flips=False)
    overlap = dice(template > 0, mask.data > 0)
    findings = Findings()
    findings.found.append(f"the template's brain overlaps the brain mask by {overlap:.2f} (Dice)")
    findings.judge(judged(overlap, **_OVERLAP), _TEMPLATE_REMEDY)
    _judge_place(findings, found, "warped template", _TEMPLATE_REMEDY, image)
    findings.judge(judged(found.explained_here, **_TEMPLATE_ALIKE), _TEMPLATE_REMEDY)
    check = findings.check("template", f"Template {name}", "template", value=round(overlap, 3))
    return replace(check, of=name)


def dice(one: Bool[np.ndarray, "x y z"], other: Bool[np.ndarray, "x y z"]) -> float:
    """Give the overlap of two masks: 1 if they are the same, 0 if they share nothing."""
    both = int(one.sum()) + int(other.sum())
    return 2.0 * int((one & other).sum()) / both if both else 0.0


def tissue_outside(five_tissue_types: Volume, mask: Volume) -> float:
    """Give the share of grey and white matter that lies outside a brain mask, 0 to 1."""
    tissue = five_tissue_types.data[..., :3].sum(axis=-1) > 0.5
    voxels = np.argwhere(tissue)
    if not len(voxels):
        return float("nan")
    to_mask = np.linalg.inv(mask.vox2ras) @ five_tissue_types.vox2ras
    there = np.rint(voxels @ to_mask[:3, :3].T + to_mask[:3, 3]).astype(int)
    within = ((there >= 0) & (there < mask.data.shape)).all(axis=1)
    inside = mask.data[tuple(there[within].T)] > 0
    return 1.0 - float(inside.sum()) / len(voxels)


def _judge_place(
    findings: Findings, found: Placement, others: str, remedy: str, image: str = "T1w"
) -> None:
    if found.explained < _ALIKE["look"]:
        findings.found.append(
            f"nowhere does the {image} fit the {others}: at best {found.explained:.0%} of its "
            "contrast is explained"
        )
    else:
        findings.found.append(
            f"the {image} fits the {others} best {found.distance_mm:.1f} mm from where it is"
        )
        findings.found.append(f"{found.explained:.0%} of its contrast is explained there")
    findings.judge(judged(found.distance_mm, **_AWAY_MM), remedy)
    findings.judge(judged(found.explained, **_ALIKE), remedy)


def _judge_flips(findings: Findings, found: Placement, *, surely: bool) -> None:
    """Judge which way round the T1w is, and by its mirror image whether its folds fit."""
    if max(found.explained, found.flipped) < _ALIKE["look"]:
        return  # it resembles the brain in no way
    flips = [axis for axis, sign in zip(_AXES, found.flip, strict=True) if sign < 0]
    if flips:
        findings.found.append(f"flipped {' and '.join(flips)} it fits better: {found.flipped:.0%}")
        findings.judge(
            "bad",
            "Check the orientation in the headers of T1w and diffusion images: one is flipped.",
        )
    elif found.mirrored is not None and clearly_better(found.explained, found.mirrored):
        findings.found.append(f"mirrored left to right it fits worse: {found.mirrored:.0%}")
    elif surely and found.explained < _SURELY_ALIKE:
        findings.found.append(
            "mirrored left to right it fits as well, as another person's T1w would"
        )
        findings.judge(
            "look",
            "Make sure that the T1w is this participant's: compare the folds of the cortex.",
        )
    else:
        findings.found.append("left and right cannot be told apart in these images")
