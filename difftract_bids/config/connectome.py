"""How streamlines are assigned to parcels, and what the matrices hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from difftract_bids.validation import Validated, setting

AssignmentMode = Literal[
    "radial_search", "end_voxels", "reverse_search", "forward_search", "all_voxels"
]
StreamlineStatistic = Literal["mean", "median", "min", "max"]

#: What a matrix can hold; names stand in the ``meas-`` of its file.
MEASURES = (
    "count",
    "meanlength",
    "meanfa",
    "meanmd",
    "invlength",
    "invnodevol",
    "density",
    "sift2",
)
#: Assignments that need the way of a streamline, and not its ends alone.
_ALONG_THE_WAY = {"reverse_search", "forward_search", "all_voxels"}


@dataclass(frozen=True)
class ConnectomeConfig(Validated):
    """How streamlines are assigned to parcels, and what the matrices hold."""

    assignment: AssignmentMode = setting(
        "radial_search",
        "Which parcel a streamline's end belongs to: the nearest within a radius, that of its own "
        "voxel, the last one on the way in or the first one straight ahead; or all parcels that "
        "the streamline visits.",
    )
    assignment_radius_mm: float = setting(
        4.0,
        "radial_search takes the nearest labelled voxel centre closer than this.",
        unit="mm",
    )
    assignment_distance_mm: float | None = setting(
        None,
        "How far reverse_search (default: to the middle of the streamline) and forward_search "
        "(default: 3) look.",
        unit="mm",
    )
    connectome_measures: tuple[str, ...] = setting(
        ("count", "meanlength", "meanfa", "meanmd"),
        f"What matrices are made, of {', '.join(MEASURES)}.",
        unit="measure",
    )
    streamline_statistic: StreamlineStatistic = setting(
        "mean", "What is taken of an image along a streamline, for meanfa and meanmd."
    )
    streamline_weights: str | None = setting(
        None,
        "Text or TSV file of one weight for each streamline, for every matrix but sift2.",
        unit="file",
    )
    zero_diagonal: bool = setting(
        default=False, desc="Leave out streamlines from a node to itself."
    )
    upper_triangle: bool = setting(
        default=False,
        desc="Write zeros below the diagonal, as tck2connectome does without -symmetric.",
    )
    streamline_assignments: bool = setting(
        default=False, desc="Save the nodes of each streamline, in the tractogram's order."
    )
    connectome_hdf5: bool = setting(
        default=False, desc="Save the matrices of all atlases in one HDF5 file as well."
    )

    def __post_init__(self) -> None:
        """Check the ranges, and that the measures are known."""
        super().__post_init__()
        self._require_positive("assignment_radius_mm", "assignment_distance_mm")
        given = self.connectome_measures
        ok = bool(given) and set(given) <= set(MEASURES) and len(set(given)) == len(given)
        self._require("connectome_measures", ok=ok, rule=f"distinct, and of {', '.join(MEASURES)}")
        path = self.streamline_weights
        self._require("streamline_weights", ok=path is None or bool(path.strip()), rule="a file")

    @property
    def follows_paths(self) -> bool:
        """Whether streamlines are assigned by their way, and not by their ends alone."""
        return self.assignment in _ALONG_THE_WAY

    @property
    def needs_paths(self) -> bool:
        """Whether anything needs whole streamlines, and not their ends and lengths alone."""
        return self.follows_paths or "sift2" in self.connectome_measures

    @property
    def sampled(self) -> tuple[str, ...]:
        """Images whose values along the streamlines are needed: ``fa``, ``md``."""
        return tuple(name for name in ("fa", "md") if f"mean{name}" in self.connectome_measures)
