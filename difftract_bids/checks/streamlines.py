"""Whether tracking gave streamlines as whole brains do: from many seeds, of some length."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from difftract_bids.checks.findings import Findings
from difftract_bids.checks.verdict import Check, judged

NAME, TITLE = "streamlines", "Streamlines"
#: Share of seeds that gave one: 0.71 and 0.32 of seeds anywhere in the brain; where tissues say
#: what is kept it is less.
_KEPT = {"look": 0.08, "bad": 0.03}
#: 40 mm in a person, 44 mm simulated; 30 mm simulated with an axis of the b-vectors reversed.
_MEDIAN_MM = {"look": 32.0, "bad": 18.0}
#: Share of ends for one reason. With gradients as they should be, 2% or less turned too sharply
#: in a simulated head, 10% in a person; the mask ended 12%.
_TURNED = {"look": 0.35, "bad": 0.6}
_CUT = {"look": 0.4, "bad": 0.7}
#: Ends that the mask or the image makes: nothing was known of the tissue beyond.
_CUT_REASONS = ("left_mask", "outside_image")
_TURNED_REASONS = ("high_curvature",)
_NONE_REMEDY = (
    "Look at the mask and the fODF peaks; lower the cutoff, or check the gradients. Nothing can "
    "be said of the connectome."
)


def check_streamlines(
    lengths_mm: Float[np.ndarray, " streamline"],
    *,
    n_seeds: int = 0,
    stop_reasons: Mapping[str, int] | None = None,
    whole_brain: bool = True,
) -> Check:
    """Judge how many seeds gave a streamline, how long these are and why they ended.

    Parameters
    ----------
    lengths_mm
        Length of each streamline that was kept, millimetres.
    n_seeds
        Seeds tried; 0 if not known.
    stop_reasons
        How many ends stopped for each reason, by the names of
        :class:`difftract_bids.core.streamlines.StopReason` in lower case.
    whole_brain
        Whether streamlines may start and go anywhere: a region that few reach says nothing of
        the fODFs.

    Returns
    -------
    Check
        ``streamlines``; its value is their median length, millimetres.
    """
    findings, count = Findings(), len(lengths_mm)
    if not count:
        findings.found.append("there is not one streamline")
        findings.judge("bad", _NONE_REMEDY)
        return findings.check(NAME, TITLE, "tractogram")
    median_mm = float(np.median(lengths_mm))
    findings.found.append(f"{count:,} streamlines")
    if n_seeds:
        _judge_yield(findings, count / n_seeds, n_seeds, whole_brain=whole_brain)
    findings.found.append(f"half of them longer than {median_mm:.0f} mm")
    findings.judge(
        judged(median_mm, **_MEDIAN_MM),
        "Streamlines are short: look at the fODF peaks. A flipped gradient axis, noise or a high "
        "cutoff breaks bundles up.",
    )
    _judge_ends(findings, stop_reasons or {})
    return findings.check(NAME, TITLE, "tractogram", value=round(median_mm, 1), unit="mm")


def _judge_yield(findings: Findings, share: float, n_seeds: int, *, whole_brain: bool) -> None:
    findings.found[-1] += f" from {share:.{0 if share > 0.1 else 1}%} of {n_seeds:,} seeds"
    if not whole_brain:
        findings.found[-1] += ", in the regions that were given"
        return
    findings.judge(
        judged(share, **_KEPT),
        "Look at the fODF peaks: where they are short or random, the cutoff may be too high for "
        "these data, or a gradient axis may be flipped.",
    )


def _judge_ends(findings: Findings, stop_reasons: Mapping[str, int]) -> None:
    total = sum(number for name, number in stop_reasons.items() if name != "none")
    if not total:
        return
    turned = sum(stop_reasons.get(name, 0) for name in _TURNED_REASONS) / total
    cut = sum(stop_reasons.get(name, 0) for name in _CUT_REASONS) / total
    findings.found.append(
        f"{turned:.0%} of the ends turned too sharply, {cut:.0%} came to the border of the mask "
        "or the image"
    )
    findings.judge(
        judged(turned, **_TURNED),
        "Many streamlines end at a turn: look for random or wrongly turned fODF peaks; step size "
        "and largest angle may not go together.",
    )
    findings.judge(
        judged(cut, **_CUT),
        "Many streamlines are cut off by the brain mask or the field of view: look at the mask.",
    )
