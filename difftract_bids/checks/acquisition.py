"""Whether the series has the volumes and the directions that fODFs are made of."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from difftract_bids.checks.findings import Findings
from difftract_bids.checks.verdict import Check, judged
from difftract_bids.errors import GradientError
from difftract_bids.io.gradients import MIN_DIRECTIONS, GradientTable, deconvolution_shell

NAME, TITLE = "acquisition", "Acquisition"
#: The unknowns of an fODF of lmax 4, which is the least that tells crossing fibres apart.
_FEW_DIRECTIONS = 15
#: Axes closer than this are one that was measured again (the head may have turned in between).
_SAME_AXIS_DEG = 3.0
#: Least eigenvalue of the second-order design, 1 for an even scheme. Real schemes have 0.88 to 1
#: (0.63 with the six directions of old), halves of them, cut in the order of acquisition, 0.36 to
#: 0.56 unless the order was made to be cut, and directions within 60 degrees of an axis 0.21.
_LOOK_SPREAD, _BAD_SPREAD = 0.6, 0.25
#: No direction is further than this, over the root of their number, from an axis of an even
#: scheme: degrees, measured on schemes of 10 to 90.
_EVEN_GAP_DEG = 107.0
#: A volume with less than this share of what the best of its shell have, or of b=0, is without
#: signal. Of the best: a scan that was broken off may lack more than half of a shell.
_NO_SIGNAL, _BEST_PERCENT, _NO_SIGNAL_OF_B0 = 0.2, 90.0, 0.02
#: Voxels of the brain that may not be finite before a volume counts as damaged.
_NOT_FINITE = 0.01
#: So many of them are named.
_NAMED = 8


def check_acquisition(
    gradients: GradientTable, damaged: Bool[np.ndarray, " volume"] | None = None
) -> Check:
    """Count b=0 volumes and directions, and judge how these are spread over the sphere.

    What counts are the axes of the shell that single-shell fODFs are made of: an axis that was
    measured twice is one.

    Parameters
    ----------
    gradients
        Table of the series.
    damaged
        Volumes without signal, see `damaged_volumes`.
    """
    findings = Findings()
    _judge_b0(findings, int(gradients.b0_mask.sum()))
    shells = ", ".join(f"{n} at b={bval:.0f}" for bval, n in gradients.shells() if bval > 0)
    findings.found.append(f"directions: {shells or 'none'}")
    n_axes = _judge_directions(findings, gradients)
    if damaged is not None and damaged.any():
        which = np.flatnonzero(damaged)
        more = ", ..." if len(which) > _NAMED else ""
        named = ", ".join(str(volume) for volume in which[:_NAMED])
        findings.found.append(
            f"{_number(len(which), 'volume')} without signal ({named}{more}, counted from 0)"
        )
        findings.judge("bad", "take the volumes without signal out of the series and its tables")
    return findings.check(NAME, TITLE, "gradients", value=n_axes)


def _judge_b0(findings: Findings, n_b0: int) -> None:
    findings.found.append(_number(n_b0, "b=0 volume"))
    findings.judge(
        judged(n_b0, look=1, bad=0),
        "its noise is in all that is computed from the one b=0 volume: acquire more in future"
        if n_b0
        else "diffusion weighting has nothing to be compared with: raise --b0-threshold if a "
        "volume of low b-value is meant as b=0",
    )


def _judge_directions(findings: Findings, gradients: GradientTable) -> float | None:
    """Judge the shell of single-shell fODFs; give how many different axes it has."""
    try:
        bval, volumes = deconvolution_shell(gradients)
    except GradientError as error:
        findings.judge("bad", error.remedy)
        return None
    axes = _axes(gradients.bvecs[volumes])
    even_deg = _EVEN_GAP_DEG / np.sqrt(len(axes))
    findings.found.append(
        f"at b={bval:.0f} {len(axes)} different axes, no direction further than "
        f"{largest_gap_deg(axes):.0f}° from one ({even_deg:.0f}° if they were spread evenly)"
    )
    findings.judge(
        judged(len(axes), look=_FEW_DIRECTIONS - 1, bad=MIN_DIRECTIONS - 1),
        f"{len(axes)} directions at b={bval:.0f} are too few to tell crossing fibres apart: "
        "trust the main direction only",
    )
    findings.judge(
        judged(second_order_spread(axes), look=_LOOK_SPREAD, bad=_BAD_SPREAD),
        "the directions leave a part of the sphere out: was the scan stopped early, or is the "
        "table that of another series?",
    )
    return float(len(axes))


def damaged_volumes(
    dwi: NDArray[np.floating], mask: Bool[np.ndarray, "x y z"], gradients: GradientTable
) -> Bool[np.ndarray, " volume"]:
    """Find volumes without signal, of one value everywhere, or not finite, in the brain.

    Parameters
    ----------
    dwi
        Series (x, y, z, volume).
    mask
        Brain; if it is empty, all voxels are looked at.
    gradients
        Table of the series: signal is compared within a shell, and with b=0.
    """
    where = mask if mask.any() else np.ones_like(mask)
    level = np.zeros(dwi.shape[3])
    damaged = np.zeros(dwi.shape[3], dtype=bool)
    for volume in range(dwi.shape[3]):
        values = dwi[..., volume][where]
        finite = np.isfinite(values)
        usable = values[finite]
        level[volume] = np.median(usable) if usable.size else 0.0
        damaged[volume] = not usable.size or bool(np.ptp(usable) == 0)
        damaged[volume] |= bool(finite.mean() < 1 - _NOT_FINITE)
    for _, volumes in gradients.shell_volumes():
        damaged |= volumes & (level < _NO_SIGNAL * np.percentile(level[volumes], _BEST_PERCENT))
    if gradients.b0_mask.any():
        damaged |= level < _NO_SIGNAL_OF_B0 * np.percentile(
            level[gradients.b0_mask], _BEST_PERCENT
        )
    return damaged


def second_order_spread(axes: Float[np.ndarray, "n 3"]) -> float:
    """Give the least eigenvalue of the design of spherical harmonics up to the second order.

    1 where directions are spread evenly, 0 where they do not determine a tensor.
    """
    x, y, z = axes.T
    # Orthonormal over the sphere.
    design = np.stack(
        [
            np.ones_like(x),
            *(np.sqrt(15) * product for product in (x * y, y * z, x * z)),
            np.sqrt(15) / 2 * (x**2 - y**2),
            np.sqrt(5) / 2 * (3 * z**2 - 1),
        ],
        axis=1,
    )
    return float(np.linalg.eigvalsh(design.T @ design / len(axes))[0])


def largest_gap_deg(axes: Float[np.ndarray, "n 3"]) -> float:
    """Give the angle to the nearest axis from the direction that is furthest from all of them."""
    # A spiral from the equator to the pole: 1,000 directions about 5 degrees apart.
    z = (np.arange(1000) + 0.5) / 1000
    turn = np.arange(1000) * np.pi * (3 - np.sqrt(5))
    radius = np.sqrt(1 - z**2)
    sphere = np.stack([radius * np.cos(turn), radius * np.sin(turn), z], axis=1)
    return float(np.degrees(np.arccos(np.abs(sphere @ axes.T).max(axis=1).min())))


def _axes(bvecs: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "axis 3"]:
    """Keep one of those directions that are the same, or opposite."""
    same = np.abs(bvecs @ bvecs.T) > np.cos(np.radians(_SAME_AXIS_DEG))
    kept: list[int] = []
    for index in range(len(bvecs)):
        if not same[index, kept].any():
            kept.append(index)
    return bvecs[kept]


def _number(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
