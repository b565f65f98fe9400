"""How streamline ends are assigned to parcels."""

from __future__ import annotations

from dataclasses import dataclass

from difftract_bids.validation import Validated, setting


@dataclass(frozen=True)
class ConnectomeConfig(Validated):
    """How streamline ends are assigned to parcels."""

    assignment_radius_mm: float = setting(
        4.0, "An end belongs to the nearest labelled voxel centre closer than this.", unit="mm"
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        self._require_positive("assignment_radius_mm")
