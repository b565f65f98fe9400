"""Nodes of the left and of the right side that belong together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from difftract_bids.checks.sides import side_of
from difftract_bids.reports.connectome.matrix import group_of, node_order, short_name

_SIDE = re.compile(r"(?:^|(?<=[_\-. ]))(?:lh|rh|l|r|left|right)(?:$|(?=[_\-. ]))", re.IGNORECASE)


class Row(NamedTuple):
    """A region of the brain: its nodes by their side, and what both are called."""

    name: str
    group: str
    nodes: dict[str, int]


def regions(names: Sequence[str], groups: Sequence[str] | None = None) -> list[Row]:
    """Put the nodes of both sides that have one name into one row; others have their own.

    Parameters
    ----------
    names
        Such as ``L_Thalamus`` and ``R_Thalamus``, or ``Brainstem``.
    groups
        Of each node; from the names if not given.
    """
    groups = list(groups) if groups is not None else [group_of(name) for name in names]
    found: dict[tuple[str, str], Row] = {}
    # As if all were of one side: the order of the matrix within a hemisphere.
    for node in node_order(["left"] * len(names), groups):
        side, group = side_of(names[node]), groups[node]
        name = names[node] if side == "midline" else without_side(names[node])
        row = found.setdefault((group, name), Row(short_name(name), group, {}))
        row.nodes.setdefault(side, node)
        if row.nodes[side] != node:  # two nodes of a side whose names differ in the side alone
            found[group, names[node]] = Row(short_name(names[node]), group, {side: node})
    return list(found.values())


def without_side(name: str) -> str:
    """Take the side out of a node name: ``7Networks_LH_Vis_1`` is ``7Networks_Vis_1``."""
    bare = _SIDE.sub("", name, count=1)
    return re.sub(r"([_\-. ])[_\-. ]+", r"\1", bare).strip("_-. ") or name
