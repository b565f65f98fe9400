"""The nodes that the matrices of one atlas have between them, aligned by name."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
from jaxtyping import Int

from difftract_bids.errors import InputError
from difftract_bids.group.triangles import packed, triangle

#: Orders of nodes whose places are remembered: one atlas for all has one, others any number.
_REMEMBERED = 8
_NAMED = 3


class Nodes:
    """All nodes of an atlas so far, in the order in which they came, and who lacks which.

    Parameters
    ----------
    atlas
        Its name, for errors.

    Attributes
    ----------
    names
        Names of the nodes.
    """

    def __init__(self, atlas: str) -> None:
        self.names: list[str] = []
        self._atlas = atlas
        self._index: dict[str, int] = {}
        self._places: OrderedDict[tuple[str, ...], Int[np.ndarray, " edge"]] = OrderedDict()
        # Which nodes there are, as bits, and the participants and sessions of which that is so.
        # Those of one atlas share one entry.
        self._owners: dict[bytes, dict[tuple[str, str | None], None]] = {}
        self._bits: dict[tuple[str, ...], bytes] = {}

    def __len__(self) -> int:
        return len(self.names)

    def place(
        self, names: tuple[str, ...], participant: str, session: str | None, where: Path
    ) -> Int[np.ndarray, " edge"]:
        """Say where the upper triangle of a matrix belongs in the packed triangle of all nodes.

        Parameters
        ----------
        names
            Nodes of the matrix, each once.
        participant, session, where
            Whose it is, and its file.

        Returns
        -------
        numpy.ndarray
            A place for each edge, row after row of the matrix; see
            :func:`difftract_bids.group.triangles.packed`.

        Raises
        ------
        InputError
            If not one is a name of the matrices before.
        """
        places = self._places.get(names)
        if places is None:
            places = self._new(names, where)
        self._owners.setdefault(self._bits[names], {})[participant, session] = None
        return places

    def lacking(self, session: str | None = None) -> dict[str, list[str]]:
        """List the nodes that a participant lacks in a matrix or more, by participant, sorted.

        Parameters
        ----------
        session
            The one whose matrices count; all of them if not given.
        """
        found: dict[str, set[str]] = {}
        for bits, owners in self._owners.items():
            there = np.unpackbits(np.frombuffer(bits, np.uint8), count=len(self.names))
            missing = {self.names[i] for i in np.flatnonzero(there == 0)}
            for participant, of in owners if missing else ():
                if session is not None and of != session:
                    continue
                found.setdefault(participant, set()).update(missing)
        return {participant: sorted(found[participant]) for participant in sorted(found)}

    def _new(self, names: tuple[str, ...], where: Path) -> Int[np.ndarray, " edge"]:
        if self.names and not self._index.keys() & set(names):
            raise InputError(
                f"The nodes of this matrix ({_first(names)}) have not one name in common with "
                f"those of the participants before ({_first(self.names)}): these are different "
                f"atlases under the name {self._atlas}.",
                where=where,
                remedy="Choose participants of one atlas (--participant-label), or run the others "
                "again with the atlas under a name of its own.",
            )
        for name in names:
            if name not in self._index:
                self._index[name] = len(self.names)
                self.names.append(name)
        index = np.array([self._index[name] for name in names], dtype=np.int64)
        there = np.zeros(len(self.names), dtype=np.uint8)
        there[index] = 1
        first, second = triangle(len(names))
        places = packed(index[first], index[second])
        self._places[names] = places
        # Trailing zeros say nothing, whenever the nodes came: one set of nodes is one entry.
        self._bits[names] = np.packbits(there).tobytes().rstrip(b"\0")
        if len(self._places) > _REMEMBERED:
            old, _ = self._places.popitem(last=False)
            del self._bits[old]
        return places


def _first(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
