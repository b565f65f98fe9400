"""What is differentiated: edges of the connectome by the image, and their noise."""

from __future__ import annotations

from dataclasses import dataclass

from difftract_bids.validation import Validated, setting


@dataclass(frozen=True)
class SensitivityConfig(Validated):
    """Which edges are differentiated by the image, and how they are made smooth for that."""

    sensitivity: tuple[str, ...] = setting(
        (),
        "Map what in the image makes these connections: A-B for the edge between two nodes, A for "
        "all edges of a node, total for all edges.",
        unit="A-B",
    )
    edge_standard_errors: bool = setting(
        default=False,
        desc="Estimate how much the noise of the images moves each edge (delta method).",
    )
    soft_sigma_mm: float = setting(
        1.0,
        "Width of the soft assignment of ends to parcels that is differentiated; its radius is "
        "that of the assignment.",
        unit="mm",
    )
    sensitivity_softness: float = setting(
        0.05,
        "fODF amplitude over which a streamline's survival of the cutoff is softened, for "
        "sensitivity: wide, so that the whole way counts.",
        unit="amplitude",
    )
    errors_softness: float = setting(
        0.01,
        "The same for standard errors: about a third of the noise in amplitudes, with which the "
        "soft survival varies as much as the decision does.",
        unit="amplitude",
    )
    gradient_streamlines: int = setting(
        100_000,
        "Streamlines that derivatives are worked out from at most; results are scaled to all.",
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        self._require_positive("soft_sigma_mm", "sensitivity_softness", "errors_softness")
        self._require("gradient_streamlines", ok=self.gradient_streamlines >= 1, rule="1 or more")
        named = self.sensitivity
        ok = all(name.strip() for name in named) and len(set(named)) == len(named)
        self._require("sensitivity", ok=ok, rule="distinct names of edges, none empty")

    @property
    def is_wanted(self) -> bool:
        """Whether anything is differentiated."""
        return bool(self.sensitivity) or self.edge_standard_errors
