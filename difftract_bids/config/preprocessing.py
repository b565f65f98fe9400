"""What happens to the diffusion images before any model is fitted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from difftract_bids.validation import Validated, setting

DenoiseMethod = Literal["mppca", "none"]


@dataclass(frozen=True)
class PreprocessingConfig(Validated):
    """What happens to the diffusion images before any model is fitted."""

    denoise_method: DenoiseMethod = setting("mppca", "Denoising: Marchenko-Pastur PCA, or none.")
    b0_threshold_s_mm2: float = setting(
        50.0, "Volumes with a b-value up to this one count as b=0.", unit="s/mm²"
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        self._require("b0_threshold_s_mm2", ok=self.b0_threshold_s_mm2 >= 0, rule="0 or more")
