"""Whether a parcellation lies on the brain: in the mask, on the right side, on grey matter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from difftract_bids.checks.findings import Findings
from difftract_bids.checks.verdict import Check, Light, judged
from difftract_bids.io.images import Volume

NAME = "parcellation"
#: Share of parcel voxels outside the brain: none as registered, 0.03 to 0.08 after a shift by 5 to
#: 10 mm in a person, 0.2 after 15 mm.
_OUTSIDE = {"look": 0.05, "bad": 0.18}
_LOST = {"look": 1e-6, "bad": 0.1}
#: A parcel is on the wrong side if its centre is this far across the midline.
_ACROSS_MM = 5.0
_WRONG_SIDE = {"look": 0.05, "bad": 0.5}
_SIDED_AT_LEAST = 4
#: Voxels above this are in bundles of white matter; their share within the parcels over that in
#: the whole brain was 0.16 and 0.28 as registered, 0.35 to 1.3 after shifts by 6 to 15 mm. An
#: atlas with parcels of white matter does it, too, so that it is never ``bad``.
_WHITE_FA = 0.4
_WHITE_RATIO = 0.42
#: White matter is 0.2 to 0.3 of a brain; of more than this share, noise or lost volumes make FA
#: high anywhere, and it tells nothing of where parcels are.
_WHITE_IN_BRAIN = 0.45
_NAMED = 3


def check_parcellation(
    labels: Volume,
    mask: Volume,
    *,
    atlas: str,
    index: Sequence[int],
    names: Sequence[str],
    sides: Sequence[str],
    fa: Volume | None = None,
) -> Check:
    """Judge where the parcels of an atlas are.

    Parameters
    ----------
    labels
        Label image on the grid of the diffusion images, 0 for none.
    mask
        Brain mask, same grid.
    atlas
        Name of the atlas.
    index, names
        Label value and name of each node.
    sides
        ``left``, ``right`` or anything else for each node.
    fa
        Fractional anisotropy, same grid.

    Returns
    -------
    Check
        ``parcellation`` of the atlas; its value is the share of parcel voxels that are outside
        the mask, 0 to 1.
    """
    brain, inside = labels.data > 0, mask.data > 0
    findings, total = Findings(), int(brain.sum())
    if not total:
        findings.found.append("no voxel of the brain is in a parcel")
        findings.judge("bad", "The atlas was not brought to this brain: look at its registration.")
        return replace(findings.check(NAME, f"Parcellation {atlas}", NAME), of=atlas)
    outside = int((brain & ~inside).sum()) / total
    findings.found.append(f"{outside:.1%} of the voxels of parcels are outside the brain mask")
    findings.judge(
        judged(outside, **_OUTSIDE),
        "Look at the outlines: was the parcellation registered to this brain, and does the mask "
        "hold all of it?",
    )
    sizes, centres_mm = _centres(labels, index)
    _judge_lost(findings, names, sizes)
    swapped = _judge_sides(findings, sides, sizes, centres_mm) == "bad"
    if fa is not None:
        _judge_white_matter(findings, fa.data[brain & inside], fa.data[inside])
    # Outlines do not say of which side a parcel is, nodes do.
    figure = "nodes" if swapped else NAME
    check = findings.check(NAME, f"Parcellation {atlas}", figure, value=round(outside, 4))
    return replace(check, of=atlas)


def _centres(
    labels: Volume, index: Sequence[int]
) -> tuple[Float[np.ndarray, " node"], Float[np.ndarray, " node"]]:
    """Count each node's voxels, and find the mean x of them (RAS+ millimetres)."""
    voxels = np.argwhere(labels.data > 0)
    values = labels.data[tuple(voxels.T)]
    x_mm = voxels @ labels.vox2ras[0, :3] + labels.vox2ras[0, 3]
    order = np.argsort(np.asarray(index))
    ranked = np.asarray(index)[order]
    at = np.minimum(np.searchsorted(ranked, values), len(ranked) - 1)
    known = ranked[at] == values
    node = order[at[known]]
    sizes = np.bincount(node, minlength=len(order)).astype(np.float64)
    sums_mm = np.bincount(node, weights=x_mm[known], minlength=len(order))
    return sizes, sums_mm / np.maximum(sizes, 1)


def _judge_lost(findings: Findings, names: Sequence[str], sizes: Float[np.ndarray, " n"]) -> None:
    lost = [name for name, size in zip(names, sizes, strict=True) if not size]
    shown = ", ".join(lost[:_NAMED]) + (", ..." if len(lost) > _NAMED else "")
    findings.found.append(
        f"{len(lost)} of {len(names)} parcels have no voxel ({shown})"
        if lost
        else f"all {len(names)} parcels are there"
    )
    findings.judge(
        judged(len(lost) / max(len(names), 1), **_LOST),
        "Their rows of the matrix are zero: leave them out of statistics, or use an atlas with "
        "larger parcels. If many are lost, look at the registration and the field of view.",
    )


def _judge_sides(
    findings: Findings,
    sides: Sequence[str],
    sizes: Float[np.ndarray, " node"],
    x_mm: Float[np.ndarray, " node"],
) -> Light:
    """Compare the side of each name with that of its parcel, about halfway between the sides."""
    left, right = ((np.array(sides) == side) & (sizes > 0) for side in ("left", "right"))
    n_sided = int(left.sum() + right.sum())
    if not (left.any() and right.any()) or n_sided < _SIDED_AT_LEAST:
        return "unknown"
    midline_mm = (x_mm[left].mean() + x_mm[right].mean()) / 2
    beyond_mm = np.where(left, x_mm - midline_mm, midline_mm - x_mm)
    wrong = int((beyond_mm[left | right] > _ACROSS_MM).sum())
    findings.found.append(
        f"{wrong} of {n_sided} parcels with a side in their name are on the other side"
        if wrong
        else "left and right are as the names say"
    )
    light = judged(wrong / n_sided, **_WRONG_SIDE)
    findings.judge(
        light,
        "Left and right do not fit: look at the orientation in the header of the label image, and "
        "whether the table is the one that belongs to it.",
    )
    return light


def _judge_white_matter(
    findings: Findings, of_parcels: Float[np.ndarray, " a"], of_brain: Float[np.ndarray, " b"]
) -> None:
    in_brain = float((of_brain > _WHITE_FA).mean()) if of_brain.size else 0.0
    if not (in_brain and of_parcels.size):
        return
    in_parcels = float((of_parcels > _WHITE_FA).mean())
    findings.found.append(
        f"FA is above {_WHITE_FA} in {in_parcels:.0%} of the parcels and {in_brain:.0%} of the "
        "brain"
    )
    if in_brain > _WHITE_IN_BRAIN:
        findings.found.append("which here does not tell white matter")
        return
    findings.judge(
        "look" if in_parcels > _WHITE_RATIO * in_brain else "good",
        "The parcels cover much white matter: look at the outlines, unless the atlas is meant to.",
    )
