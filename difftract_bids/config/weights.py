"""How streamline weights are fitted to fODFs."""

from __future__ import annotations

from dataclasses import dataclass

from difftract_bids.validation import Validated, setting


@dataclass(frozen=True)
class SIFT2Config(Validated):
    """How streamline weights are fitted to fODFs; the defaults are tcksift2's."""

    sift2_total_variation: float = setting(
        0.1,
        "Strength of the regularisation that keeps a streamline's weight near the mean of the "
        "streamlines that it runs with.",
    )
    sift2_tikhonov: float = setting(
        0.0, "Strength of the regularisation that keeps weights near 1 (Tikhonov)."
    )
    sift2_min_density_fraction: float = setting(
        0.1,
        "fODF lobes of whose density streamlines make up less than this share are left out of "
        "the fit.",
    )
    sift2_min_streamlines: int = setting(
        1,
        "fODF lobes that fewer streamlines run through are left out of the fit; MRtrix3 after "
        "3.0.3 takes 2.",
    )
    sift2_min_iterations: int = setting(10, "Least number of iterations of the fit.")
    sift2_max_iterations: int = setting(1000, "Largest number of iterations of the fit.")
    sift2_min_cost_decrease: float = setting(
        2.5e-5, "The fit ends when an iteration lowers its cost by less than this share of it."
    )
    sift2_max_step: float = setting(
        1.0, "Largest change of the logarithm of a weight in an iteration."
    )
    sift2_max_weight: float | None = setting(
        None, "Largest weight of a streamline; default no limit."
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        self._require_positive("sift2_max_step", "sift2_max_iterations", "sift2_max_weight")
        for name in (
            "sift2_total_variation",
            "sift2_tikhonov",
            "sift2_min_streamlines",
            "sift2_min_iterations",
        ):
            value = getattr(self, name)
            self._require(name, ok=0 <= value < float("inf"), rule="at least 0, and finite")
        for name in ("sift2_min_density_fraction", "sift2_min_cost_decrease"):
            self._require(name, ok=0 <= getattr(self, name) < 1, rule="from 0 to below 1")
