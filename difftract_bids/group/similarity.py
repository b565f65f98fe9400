"""How much the connectome of each run is like that of the other participants."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from difftract_bids.group.edge_table import RunEdges, iter_runs, measures_in
from difftract_bids.group.moments import Values, mean_of
from difftract_bids.group.triangles import n_packed, packed


def similarity_with_others(edges: Path) -> dict[tuple[str, str], float]:
    """Correlate each run with the mean of all participants but its own.

    Pearson's correlation of log(1 + count) over the pairs of different nodes that both have. The
    participant is left out whole, other sessions included: they are more like this one than
    anybody else's. The table is read twice, and nothing of it kept but sums.

    Parameters
    ----------
    edges
        Table of edges, with the measure ``count``.

    Returns
    -------
    dict
        By run and atlas; NaN where nothing is to be compared with. Empty without counts.

    Raises
    ------
    InputError
        If the table cannot be read.
    """
    if "count" not in measures_in(edges):
        return {}
    atlases: dict[str, _Sums] = {}
    for runs in _participants(edges):
        for atlas, own in _by_atlas(runs).items():
            atlases.setdefault(atlas, _Sums()).add(own)
    return {
        (run.run, atlas): r
        for runs in _participants(edges)
        for atlas, own in _by_atlas(runs).items()
        for run, r in zip(own, atlases[atlas].correlations(own), strict=True)
    }


class _Sums:
    """Sum over participants of log counts, for every pair of nodes of one atlas."""

    def __init__(self) -> None:
        self._index: dict[str, int] = {}
        self._total = self._n = np.zeros(0)

    def add(self, runs: list[RunEdges]) -> None:
        own = self._participant(runs)
        self._grow(len(own.value))
        self._total += np.nan_to_num(own.value)
        self._n += own.known

    def correlations(self, own: list[RunEdges]) -> list[float]:
        """Correlate each run of a participant with the mean of the others."""
        mean = self._participant(own)
        n = self._n - mean.known
        with np.errstate(invalid="ignore", divide="ignore"):
            others = (self._total - np.nan_to_num(mean.value)) / n
        others = np.where(n > 0, others, np.nan)
        found = []
        for run in own:
            different = run.nodes[0] != run.nodes[1]
            x, y = np.log1p(run.values), others[self._places(run)]
            found.append(_pearson(x[different], y[different]))
        return found

    def _participant(self, runs: list[RunEdges]) -> Values:
        """Average the runs of a session, then the sessions."""
        placed = [(run, self._places(run)) for run in runs]
        n_edges = max(n_packed(len(self._index)), len(self._n))
        sessions: dict[str | None, list[Values]] = {}
        for run, places in placed:
            value = np.full(n_edges, np.nan)
            value[places] = np.log1p(run.values)
            sessions.setdefault(run.session, []).append(Values(value, np.isfinite(value)))
        return mean_of([mean_of(parts, n_edges) for parts in sessions.values()], n_edges)

    def _places(self, run: RunEdges) -> Int[np.ndarray, " edge"]:
        # Names of a row group may be of several atlases: only those of this run's edges count.
        index = np.full(len(run.names), -1)
        for i in np.flatnonzero(np.bincount(run.nodes.ravel())):
            index[i] = self._index.setdefault(run.names[i], len(self._index))
        return packed(index[run.nodes[0]], index[run.nodes[1]])

    def _grow(self, n_edges: int) -> None:
        more = np.zeros(max(n_edges - len(self._n), 0))
        self._total = np.concatenate([self._total, more])
        self._n = np.concatenate([self._n, more])


def _participants(edges: Path) -> Iterator[list[RunEdges]]:
    for _, runs in groupby(iter_runs(edges, "count"), key=lambda run: run.participant):
        yield list(runs)


def _by_atlas(runs: list[RunEdges]) -> dict[str, list[RunEdges]]:
    found: dict[str, list[RunEdges]] = {}
    for run in runs:
        found.setdefault(run.atlas, []).append(run)
    return found


def _pearson(x: Float[np.ndarray, " edge"], y: Float[np.ndarray, " edge"]) -> float:
    both = np.isfinite(x) & np.isfinite(y)
    if int(both.sum()) < 2:
        return float("nan")
    if np.ptp(x[both]) == 0 or np.ptp(y[both]) == 0:  # rounding would correlate
        return float("nan")
    x, y = x[both] - x[both].mean(), y[both] - y[both].mean()
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))
