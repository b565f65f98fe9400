"""How much the head moved, and what of the signal fell out."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from difftract_bids.checks.findings import Findings
from difftract_bids.checks.verdict import Check, judged

NAME, TITLE = "motion", "Motion and lost signal"
#: Mean framewise displacement, mm, with rotations as arcs at 50 mm. By sense, in voxels of about
#: 2 mm: up to a quarter of one is usual, and most of one from each volume to the next is much.
_LOOK_MEAN_MM, _BAD_MEAN_MM = 0.5, 1.5
#: Share of slices without their signal.
_LOOK_SLICES, _BAD_SLICES = 0.01, 0.05


def check_motion(
    framewise_displacement_mm: Float[np.ndarray, " volume"] | None,
    outliers: Bool[np.ndarray, "slice volume"] | None,
    voxel_size_mm: float,
    *,
    outliers_replaced: bool = False,
) -> Check:
    """Judge framewise displacement and the slices that fell out.

    Parameters
    ----------
    framewise_displacement_mm
        Of each volume, not a number for the first; None if motion was not estimated.
    outliers
        Slices that fell out; None if they were not looked for.
    voxel_size_mm
        Largest edge of a voxel: a jump further than this mixes tissues within a volume.
    outliers_replaced
        Whether something took the place of these slices.
    """
    findings, mean_mm = Findings(), None
    moved = np.zeros(0) if framewise_displacement_mm is None else framewise_displacement_mm
    moved = moved[np.isfinite(moved)]
    if moved.size:
        mean_mm = _judge_movement(findings, moved, voxel_size_mm)
    if outliers is not None and outliers.size:
        _judge_outliers(findings, outliers, replaced=outliers_replaced)
    if not findings.lights:
        return Check(
            NAME,
            TITLE,
            "unknown",
            "Motion was not corrected here, and so not measured.",
            "If the images were corrected before, look at the report of what corrected them.",
        )
    return findings.check(
        NAME, TITLE, "motion", value=mean_mm, unit="" if mean_mm is None else "mm"
    )


def _judge_movement(
    findings: Findings, moved: Float[np.ndarray, " volume"], voxel_size_mm: float
) -> float:
    mean_mm, largest_mm = float(moved.mean()), float(moved.max())
    findings.found.append(
        f"mean framewise displacement {mean_mm:.2f} mm, largest {largest_mm:.1f} mm"
    )
    findings.judge(
        judged(mean_mm, look=_LOOK_MEAN_MM, bad=_BAD_MEAN_MM),
        "the head moved much: think of its mean displacement as a covariate in group models, "
        "or leave the run out",
    )
    findings.judge(
        "look" if largest_mm > voxel_size_mm else "good",
        f"the head jumped by more than a voxel ({voxel_size_mm:.1f} mm): see in the figure "
        "whether it came to lie where it was before",
    )
    return mean_mm


def _judge_outliers(
    findings: Findings, outliers: Bool[np.ndarray, "slice volume"], *, replaced: bool
) -> None:
    share, volume = float(outliers.mean()), int(outliers.sum(axis=0).argmax())
    most = int(outliers[:, volume].sum())
    worst = f", most in volume {volume}, counted from 0: {most} of {len(outliers)}" if most else ""
    findings.found.append(f"{share:.1%} of the slices fell out{worst}")
    findings.judge(
        judged(share, look=_LOOK_SLICES, bad=_BAD_SLICES),
        "slices that fell out were replaced by what others predict: volumes that have lost many "
        "are better left out"
        if replaced
        else "slices that fell out are flagged and not replaced: --motion-correction eddy "
        "replaces them, and volumes that have lost many are better left out",
    )
