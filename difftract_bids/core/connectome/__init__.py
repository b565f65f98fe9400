"""From streamlines and a parcellation to a connectome, hard and soft."""

from difftract_bids.core.connectome.assignment import assign_ends
from difftract_bids.core.connectome.edges import connectome

__all__ = ["assign_ends", "connectome"]
