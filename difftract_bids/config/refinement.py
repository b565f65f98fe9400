"""Whether fODFs are adjusted to a connectome or a tractogram, and how far."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

from difftract_bids.validation import Validated, setting

#: What a target may be, by the end of its name.
_TARGETS: dict[str, Literal["connectome", "tractogram"]] = {
    ".tsv": "connectome",
    ".tck": "tractogram",
    ".trk": "tractogram",
    ".trx": "tractogram",
}


@dataclass(frozen=True)
class RefinementConfig(Validated):
    """Whether fODFs are adjusted to a connectome or a tractogram, and how far."""

    refine_fodf: str | None = setting(
        None,
        "Connectome (.dense.tsv with the names of an atlas's nodes) or tractogram (.tck, .trk, "
        ".trx in the space of the diffusion data) that the fODFs are adjusted to before they are "
        "tracked. They are no longer an unbiased estimate: this shows what the data allow.",
        unit="file",
    )
    refine_steps: int = setting(50, "Most steps of the adjustment.")
    # A fit of few directions leaves next to no misfit, of which twice is still next to none.
    refine_weight: float = setting(
        0.1,
        "How much a doubled misfit of the diffusion signal counts beside the loss against the "
        "target; 0 not at all.",
    )
    refine_seeds: int = setting(10_000, "Seeds, or streamlines of the target, of each step.")

    def __post_init__(self) -> None:
        """Check the ranges, and what kind of file is given."""
        super().__post_init__()
        for name in ("refine_steps", "refine_seeds"):
            self._require(name, ok=getattr(self, name) >= 1, rule="1 or more")
        weight_ok = math.isfinite(self.refine_weight) and self.refine_weight >= 0
        self._require("refine_weight", ok=weight_ok, rule="0 or more, and finite")
        if self.refine_fodf is not None:
            ok = PurePath(self.refine_fodf).suffix in _TARGETS
            self._require("refine_fodf", ok=ok, rule=f"a file ending in {', '.join(_TARGETS)}")

    @property
    def is_wanted(self) -> bool:
        """Whether fODFs are adjusted at all."""
        return self.refine_fodf is not None

    @property
    def kind(self) -> Literal["connectome", "tractogram"]:
        """What the target is."""
        return _TARGETS[PurePath(self.refine_fodf or "").suffix]
