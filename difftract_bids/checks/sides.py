"""Which side of the brain a node is on."""

from __future__ import annotations

import re

_LEFT = re.compile(r"(?:^|[_\-. ])(?:lh|l|left)(?:$|[_\-. ])", re.IGNORECASE)
_RIGHT = re.compile(r"(?:^|[_\-. ])(?:rh|r|right)(?:$|[_\-. ])", re.IGNORECASE)


def side_of(name: str) -> str:
    """Read ``left``, ``right`` or ``midline`` from a node name such as ``7Networks_LH_Vis_1``."""
    if _LEFT.search(name):
        return "left"
    return "right" if _RIGHT.search(name) else "midline"
