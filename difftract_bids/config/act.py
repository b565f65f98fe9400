"""Tissue that streamlines have to obey: anatomically constrained tracking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from difftract_bids.validation import Validated, setting

AnatomicalConstraints = Literal["auto", "on", "off"]


@dataclass(frozen=True)
class ActConfig(Validated):
    """Anatomically constrained tracking, by MRtrix's rules.

    References
    ----------
    Smith et al. 2012, doi:10.1016/j.neuroimage.2012.06.005; MRtrix3 3.0.3 ``tckgen -act``.
    """

    act: AnatomicalConstraints = setting(
        "auto",
        "Anatomical constraints: streamlines end in grey matter and nowhere else; auto: on where "
        "a tissue image is given, or there is one and distortion is corrected.",
    )
    act_5tt: str | None = setting(
        None,
        "Tissue image to use (MRtrix's 5TT), in the space of the preprocessed diffusion images.",
        unit="image",
    )
    crop_at_gmwmi: bool = setting(
        default=False,
        desc="Move ends in cortical grey matter back onto its interface with white matter.",
    )

    def __post_init__(self) -> None:
        """Check that nothing is asked for of constraints that are off."""
        super().__post_init__()
        off = self.act == "off"
        self._require("act_5tt", ok=self.act_5tt is None or not off, rule="left out with act off")
        self._require(
            "crop_at_gmwmi", ok=not (self.crop_at_gmwmi and off), rule="off with act off"
        )
