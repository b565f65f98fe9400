"""Streamlines outside the core: two NumPy arrays, in RAS+ millimetres of the scanner."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


class StreamlineArrays(NamedTuple):
    """Streamlines as two arrays: streamline i is ``points[offsets[i]:offsets[i + 1]]``.

    Attributes
    ----------
    points
        Vertices, RAS+ millimetres, all streamlines one after the other.
    offsets
        Where each streamline starts, and the number of vertices at the end.
    """

    points: Float[np.ndarray, "p 3"]
    offsets: Int[np.ndarray, " n+1"]

    @property
    def n_streamlines(self) -> int:
        """Number of streamlines."""
        return len(self.offsets) - 1

    def lengths_mm(self) -> Float[np.ndarray, " n"]:
        """Arc length of each streamline, millimetres."""
        steps = np.linalg.norm(np.diff(self.points.astype(np.float64), axis=0), axis=1)
        travelled = np.concatenate([[0.0], np.cumsum(steps)])
        first, last = self.offsets[:-1], np.maximum(self.offsets[1:] - 1, self.offsets[:-1])
        return travelled[last] - travelled[first] if len(first) else np.zeros(0)

    def ends(self) -> Float[np.ndarray, "n 2 3"]:
        """First and last vertex of each streamline, RAS+ millimetres."""
        return np.stack([self.points[self.offsets[:-1]], self.points[self.offsets[1:] - 1]], 1)

    def check(self) -> None:
        """Check that the offsets fit the vertices and that all is finite.

        Raises
        ------
        ValueError
            If the offsets do not cover the vertices, a streamline has none, or one is not finite.
        """
        if self.points.ndim != 2 or self.points.shape[1] != 3:
            raise ValueError(f"Vertices have the shape {self.points.shape}; (p, 3) is needed.")
        if len(self.offsets) < 1 or self.offsets[0] != 0 or self.offsets[-1] != len(self.points):
            raise ValueError(f"The offsets do not run from 0 to {len(self.points)} vertices.")
        empty = int((np.diff(self.offsets) < 1).sum())
        if empty:
            raise ValueError(f"{empty} of {self.n_streamlines} streamlines have no vertex.")
        if not np.isfinite(self.points).all():
            bad = int((~np.isfinite(self.points).all(axis=1)).sum())
            raise ValueError(f"{bad} of {len(self.points)} vertices are not finite.")

    def blocks(self, max_points: int) -> Iterator[StreamlineArrays]:
        """Yield the same streamlines a block at a time, as views with offsets from 0.

        Parameters
        ----------
        max_points
            Vertices in a block; more only where a single streamline has more.
        """
        first = 0
        while first < self.n_streamlines:
            limit = self.offsets[first] + max_points
            last = max(int(np.searchsorted(self.offsets, limit, side="right")) - 1, first + 1)
            offsets = self.offsets[first : last + 1]
            yield StreamlineArrays(self.points[offsets[0] : offsets[-1]], offsets - offsets[0])
            first = last
