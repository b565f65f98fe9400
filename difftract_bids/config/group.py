"""What is made of the connectomes of many participants."""

from __future__ import annotations

from dataclasses import dataclass

from difftract_bids.validation import Validated, setting


@dataclass(frozen=True)
class GroupConfig(Validated):
    """What is made of the connectomes of many participants."""

    consistency_threshold: float | None = setting(
        None,
        "Share of participants that must have an edge for it to be kept in a group connectome; "
        "none is made if left out.",
    )
    outlier_threshold: float = setting(
        3.5,
        "Robust standard deviations (1.4826 times the median absolute deviation) from the group's "
        "median beyond which a quality measure is flagged.",
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        share = self.consistency_threshold
        self._require(
            "consistency_threshold", ok=share is None or 0 < share <= 1, rule="above 0, to 1"
        )
        self._require("outlier_threshold", ok=self.outlier_threshold > 0, rule="above 0")
