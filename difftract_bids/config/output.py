"""What is written, and in which form."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from difftract_bids.validation import Validated, setting

TractogramFormat = Literal["trx", "tck", "trk"]
ShBasis = Literal["mrtrix3", "descoteaux07"]


@dataclass(frozen=True)
class OutputConfig(Validated):
    """What is written, and in which form."""

    sh_basis: ShBasis = setting(
        "mrtrix3",
        "Spherical harmonic basis of the saved fODF images; tracking uses MRtrix's in any case.",
    )
    tractogram: bool = setting(
        default=True, desc="Save the tractogram; connectomes are made without it too."
    )
    tractogram_format: TractogramFormat = setting("trx", "File format of the tractogram.")
    tractogram_tolerance_mm: float = setting(
        0.1,
        "Vertices of the saved tractogram that lie within this of the line through the others are "
        "left out; 0 keeps all. Connectomes are made from all.",
        unit="mm",
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        tolerance = self.tractogram_tolerance_mm
        ok = math.isfinite(tolerance) and tolerance >= 0
        self._require("tractogram_tolerance_mm", ok=ok, rule="0 or more, and finite")
