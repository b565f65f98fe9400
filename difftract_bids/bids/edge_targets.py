"""Edges by name: what ``--sensitivity A-B`` means for the nodes of an atlas."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from difftract_bids.bids.nodes import NodeTable
from difftract_bids.errors import UsageError

#: The sum of all edges.
TOTAL = "total"


@dataclass(frozen=True)
class EdgeTarget:
    """A sum of edges.

    Attributes
    ----------
    text
        As it was given.
    desc
        Value of the ``desc-`` entity: the names' letters and digits, with an x between them.
    first, second
        Places of the nodes in the table: both for an edge, one for a node's edges, none for all.
    """

    text: str
    desc: str
    first: int | None = None
    second: int | None = None

    def weights(self, n_nodes: int) -> Float[np.ndarray, "node node"]:
        """Weight of each edge in the sum, symmetric; edges from a node to itself have none.

        (Unless it is the one edge that is asked for.)
        """
        matrix = np.zeros((n_nodes, n_nodes))
        if self.first is None:
            matrix[:] = 1
            np.fill_diagonal(matrix, 0)
        elif self.second is None:
            matrix[self.first, :] = matrix[:, self.first] = 1
            matrix[self.first, self.first] = 0
        else:
            matrix[self.first, self.second] = matrix[self.second, self.first] = 1
        return matrix


def find_target(text: str, nodes: NodeTable) -> EdgeTarget | None:
    """Find the edge, the node or the sum of all edges that a text names; ``None`` if it is none.

    Nodes go by their name or by their index. A name may have hyphens of its own.
    """
    if text == TOTAL:
        return EdgeTarget(text, TOTAL)
    place = _places(nodes)
    if text in place:
        return EdgeTarget(text, _plain(nodes.name[place[text]]), place[text])
    for hyphen in re.finditer("-", text):
        first, second = text[: hyphen.start()], text[hyphen.end() :]
        if first in place and second in place:
            i, j = place[first], place[second]
            desc = f"{_plain(nodes.name[i])}x{_plain(nodes.name[j])}"
            return EdgeTarget(text, desc, i, j)
    return None


def targets_of(texts: Sequence[str], nodes: NodeTable) -> list[EdgeTarget]:
    """Find those of some texts that name edges of an atlas."""
    return [target for text in texts if (target := find_target(text, nodes)) is not None]


def check_targets(texts: Sequence[str], atlases: Sequence[NodeTable]) -> None:
    """Check that each text names an edge of at least one atlas, and files do not collide.

    Raises
    ------
    UsageError
        If not; it tells what names are near.
    """
    for text in texts:
        if not any(find_target(text, nodes) for nodes in atlases):
            raise UsageError(
                f"There is no edge {text!r} in any of the atlases.",
                where="--sensitivity",
                remedy="Give A-B with two names (or indices) of the atlas's table, one name, or "
                f"{TOTAL}. {_near(text, atlases)}",
            )
    for nodes in atlases:
        found = targets_of(texts, nodes)
        descs = [target.desc for target in found]
        again = next((t for t in found if descs.count(t.desc) > 1), None)
        if again is not None:
            raise UsageError(
                f"{again.text!r} and another edge asked for would be saved under one name, "
                f"desc-{again.desc}.",
                where="--sensitivity",
                remedy="Leave one of them out, or rename the nodes in the atlas's table.",
            )


def _places(nodes: NodeTable) -> dict[str, int]:
    by_index = {str(index): place for place, index in enumerate(nodes.index)}
    return by_index | {name: place for place, name in enumerate(nodes.name)}


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", "", name)


def _near(text: str, atlases: Sequence[NodeTable]) -> str:
    names = {name for nodes in atlases for name in nodes.name}
    parts = [text, *text.split("-"), *(text[: m.start()] for m in re.finditer("-", text))]
    parts += [text[m.end() :] for m in re.finditer("-", text)]
    near = {hit for part in parts for hit in difflib.get_close_matches(part, names, n=2)}
    return f"Near it: {', '.join(sorted(near)[:6])}." if near else ""
