"""From streamlines and a parcellation to a connectome, hard and soft."""

from difftract_bids.core.connectome.assignment import (
    assign_ends,
    assign_streamlines,
    visited_labels,
)
from difftract_bids.core.connectome.edges import EdgeSums, connectome
from difftract_bids.core.connectome.sampling import sample_along, subdivide
from difftract_bids.core.connectome.soft import SoftAssignment, SoftConnectome

__all__ = [
    "EdgeSums",
    "SoftAssignment",
    "SoftConnectome",
    "assign_ends",
    "assign_streamlines",
    "connectome",
    "sample_along",
    "subdivide",
    "visited_labels",
]
