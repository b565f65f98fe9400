"""Which side of the brain a node is on."""

from __future__ import annotations

from difftract_bids.bids.nodes import hemisphere_of


def side_of(name: str) -> str:
    """Read ``left``, ``right`` or ``midline`` from a node name such as ``7Networks_LH_Vis_1``."""
    return hemisphere_of(name) or "midline"
