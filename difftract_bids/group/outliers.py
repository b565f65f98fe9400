"""Which runs stand apart from the others, measure by measure."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from difftract_bids.group.quality_columns import Fault

#: Of fewer, the median absolute deviation rests on one or two of them.
LEAST_RUNS = 5
_MAD_TO_SD = 1.4826
_MEAN_DEVIATION_TO_SD = 1.2533


@dataclass(frozen=True)
class Spread:
    """Where most runs are.

    Attributes
    ----------
    median, robust_sd
        Middle and spread of the values that are known.
    low, high
        Limits; ``None`` on a side where nothing is flagged.
    """

    median: float
    robust_sd: float
    low: float | None
    high: float | None

    def flagged(self, values: Float[np.ndarray, " run"]) -> Bool[np.ndarray, " run"]:
        """Say which values are beyond a limit; what is not known is not."""
        beyond = np.zeros(len(values), dtype=bool)
        if self.low is not None:
            beyond |= values < self.low
        if self.high is not None:
            beyond |= values > self.high
        return beyond


def spread_of(values: Float[np.ndarray, " run"], threshold: float, fault: Fault) -> Spread | None:
    """Find the limits beyond which a value stands apart.

    Parameters
    ----------
    values
        Of all runs; NaN where it is not known.
    threshold
        Robust standard deviations from the median. One is 1.4826 times the median absolute
        deviation; where that is 0, since more than half of the values are the same, 1.2533 times
        the mean absolute deviation.
    fault
        The side that is flagged.

    Returns
    -------
    Spread or None
        Nothing, if fewer than :data:`LEAST_RUNS` values are known.

    References
    ----------
    Iglewicz and Hoaglin 1993, How to Detect and Handle Outliers, ISBN 978-0-87389-247-6 (the
    modified z-score, its usual threshold of 3.5, and the mean deviation where the median one is
    0).
    """
    known = values[np.isfinite(values)]
    if len(known) < LEAST_RUNS:
        return None
    median = float(np.median(known))
    deviations = np.abs(known - median)
    robust_sd = _MAD_TO_SD * float(np.median(deviations))
    if robust_sd == 0.0:
        robust_sd = _MEAN_DEVIATION_TO_SD * float(deviations.mean())
    # Rounding must not flag values that are all the same.
    reach = threshold * robust_sd + 1e-9 * abs(median)
    low = median - reach if fault in ("low", "either") else None
    high = median + reach if fault in ("high", "either") else None
    return Spread(median, robust_sd, low, high)


def robust_z(value: float, spread: Spread) -> float:
    """Say how many robust standard deviations a value is from the median."""
    if spread.robust_sd == 0.0:
        return 0.0 if value == spread.median else math.copysign(math.inf, value - spread.median)
    return (value - spread.median) / spread.robust_sd
