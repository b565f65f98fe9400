"""Whether white matter is as anisotropic as it is."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from difftract_bids.checks.findings import Findings
from difftract_bids.checks.verdict import Check, judged

NAME, TITLE = "anisotropy", "Anisotropy of white matter"
#: Nine tenths of a brain's voxels are below: about the middle of its white matter.
_WHITE_PERCENTILE = 90.0
#: 0.43 to 0.49 in scans of two people, 0.81 in the phantom. With the b-vectors dealt to the wrong
#: volumes it is 0.19 to 0.28; in newborns it is low as well.
_LOOK_WHITE, _BAD_WHITE = 0.38, 0.30
#: Median over the brain, mostly of grey matter: 0.16 to 0.21, and 0.33 with a signal of 7 times
#: the noise at b=0.
_LOOK_MEDIAN, _BAD_MEDIAN = 0.35, 0.55


def check_anisotropy(fa: Float[np.ndarray, "x y z"], mask: Bool[np.ndarray, "x y z"]) -> Check:
    """Judge whether white matter stands out in a map of fractional anisotropy.

    b-values or b-vectors in another order than the volumes make an image that looks like a brain
    and has little anisotropy anywhere; noise makes anisotropy everywhere.

    Parameters
    ----------
    fa
        Fractional anisotropy, 0 to 1.
    mask
        Brain.
    """
    findings = Findings()
    inside = fa[mask & np.isfinite(fa)]
    if not inside.any():
        findings.found.append("the map of FA is empty in the brain mask")
        findings.judge("bad", "look at the mask and at the b-values")
        return findings.check(NAME, TITLE, "fa")
    white, middle = np.percentile(inside, [_WHITE_PERCENTILE, 50.0])
    findings.found.append(
        f"FA is {white:.2f} in white matter (90th percentile of the brain), {middle:.2f} in the "
        "median of the brain"
    )
    findings.judge(
        judged(white, look=_LOOK_WHITE, bad=_BAD_WHITE),
        "do the b-values and b-vectors belong to these volumes, in this order? In infants low FA "
        "is as it should be",
    )
    findings.judge(
        judged(middle, look=_LOOK_MEDIAN, bad=_BAD_MEDIAN),
        "grey matter and fluid seem anisotropic, as noise and motion make them: see those lights",
    )
    return findings.check(NAME, TITLE, "fa", value=float(white))
