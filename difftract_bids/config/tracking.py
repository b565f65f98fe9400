"""How streamlines are propagated."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from difftract_bids.validation import Validated, setting

Integrator = Literal["euler", "midpoint", "rk4", "rk4_classic"]
Backend = Literal["auto", "cpu", "cuda", "reference"]
Device = Literal["auto", "cpu", "cuda"]
Algorithm = Literal["sd_stream", "tensor_det"]


@dataclass(frozen=True)
class TrackingConfig(Validated):
    """How streamlines are propagated; ``None`` is MRtrix's default for integrator and voxel size.

    References
    ----------
    Tournier et al. 2012, doi:10.1002/ima.22005; MRtrix3 3.0.3 ``tckgen -algorithm SD_STREAM``.
    """

    algorithm: Algorithm = setting(
        "sd_stream",
        "Tracking algorithm: peaks of the fODF, or the principal direction of the tensor.",
    )
    integrator: Integrator = setting(
        "euler", "Integrator; rk4 is MRtrix's (normalised), rk4_classic the textbook one."
    )
    peak_tolerance: float = setting(
        1e-4,
        "Peak search ends when its update is smaller than this; below 1e-4 it finishes with "
        "Newton steps.",
        unit="rad",
    )
    step_size_mm: float | None = setting(
        None, "Step size; default 0.1 voxel (Euler) or 0.25 voxel (the others).", unit="mm"
    )
    max_angle_deg: float | None = setting(
        None, "Largest angle between successive steps; default 60.", unit="degrees"
    )
    cutoff: float | None = setting(
        None,
        "fODF amplitude (sd_stream) or fractional anisotropy (tensor_det) below which tracking "
        "stops; default 0.1, or 0.05 with anatomical constraints.",
    )
    min_length_mm: float | None = setting(
        None,
        "Shorter streamlines are dropped; default 5 voxels, or 2 with anatomical constraints.",
        unit="mm",
    )
    max_length_mm: float | None = setting(
        None, "Streamlines end at this length; default 100 voxels.", unit="mm"
    )
    one_way: bool = setting(
        default=False, desc="Follow only the direction found at the seed, not its opposite."
    )
    gradient_window_mm: float | None = setting(
        None,
        "Derivatives fade by 1/e over this length on their way back along a streamline; default "
        "not at all (the exact gradient).",
        unit="mm",
    )
    gradient_growth_limit: float | None = setting(
        None,
        "How many times as long as those that went in a derivative may become on its way back "
        "along a streamline; default without limit (the exact gradient).",
    )
    backend: Backend = setting(
        "auto",
        "Implementation of the propagator: kernels for the device in use (auto, or cpu, cuda by "
        "name), or the readable reference in PyTorch.",
    )
    device: Device = setting(
        "auto", "Where to track; auto is a GPU if there is one that the kernels can use."
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        self._require_positive("peak_tolerance", "step_size_mm", "max_length_mm")
        self._require_positive("gradient_window_mm", "gradient_growth_limit")
        follows_fodf = self.algorithm == "sd_stream" or self.backend in ("auto", "reference")
        self._require(
            "backend", ok=follows_fodf, rule="auto or reference with the algorithm tensor_det"
        )
        angle_ok = self.max_angle_deg is None or 0 < self.max_angle_deg <= 90
        self._require("max_angle_deg", ok=angle_ok, rule="above 0 and at most 90")
        for name in ("cutoff", "min_length_mm"):
            value = getattr(self, name)
            ok = value is None or (math.isfinite(value) and value >= 0)
            self._require(name, ok=ok, rule="0 or more, and finite")
        if self.min_length_mm is not None and self.max_length_mm is not None:
            ok = self.min_length_mm <= self.max_length_mm
            self._require(
                "min_length_mm", ok=ok, rule=f"at most {self.max_length_mm} (the longest)"
            )

    def resolve(self, voxel_size_mm: float, *, act: bool = False) -> Self:
        """Fill in MRtrix's defaults for a voxel size.

        Parameters
        ----------
        voxel_size_mm
            Cube root of the voxel volume, millimetres.
        act
            Whether streamlines obey tissue: it decides where they end, so the cutoff is half as
            high then, and 2 voxels are long enough.
        """
        step = 0.1 if self.integrator == "euler" else 0.25
        defaults: dict[str, Any] = {
            "step_size_mm": step * voxel_size_mm,
            "max_angle_deg": 60.0,
            "cutoff": 0.05 if act else 0.1,
            "min_length_mm": (2.0 if act else 5.0) * voxel_size_mm,
            "max_length_mm": 100.0 * voxel_size_mm,
        }
        return replace(
            self,
            **{name: value for name, value in defaults.items() if getattr(self, name) is None},
        )
