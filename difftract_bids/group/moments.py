"""Mean, spread and share of participants of every edge, one participant after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from difftract_bids.group.measures import MeasureRule


class EdgeStatistics(NamedTuple):
    """What a group is like, for every edge of the packed triangle; NaN where it is not known.

    Attributes
    ----------
    mean
        Mean; 0 where nobody has the edge, as in the matrices of participants.
    sd
        Sample standard deviation (n - 1); needs two participants.
    cv
        Coefficient of variation, ``sd / mean``; needs a mean that is not 0.
    consistency
        Share of participants that have the edge, of those whose matrix has both nodes.
    """

    mean: Float[np.ndarray, " edge"]
    sd: Float[np.ndarray, " edge"]
    cv: Float[np.ndarray, " edge"]
    consistency: Float[np.ndarray, " edge"]


class Values(NamedTuple):
    """One matrix, or the mean of some, in the packed triangle of all nodes.

    Attributes
    ----------
    value
        Value of each edge, NaN where it has none.
    known
        Where the matrix has both nodes, and a number.
    """

    value: Float[np.ndarray, " edge"]
    known: Bool[np.ndarray, " edge"]


def values_of(
    triangle: Float[np.ndarray, " own"],
    places: Int[np.ndarray, " own"],
    n_edges: int,
    rule: MeasureRule,
) -> Values:
    """Lay a matrix out over all edges.

    Parameters
    ----------
    triangle
        Its upper triangle. What is not finite is not known.
    places
        Where its entries belong.
    n_edges
        Edges of all nodes.
    rule
        Whether 0 is a value.
    """
    value = np.full(n_edges, np.nan)
    value[places] = triangle
    known = np.isfinite(value)
    has_value = known if rule.zero_is_a_value else known & (value != 0)
    return Values(np.where(has_value, value, np.nan), known)


def mean_of(parts: Sequence[Values], n_edges: int) -> Values:
    """Average each edge over those parts that have a value of it.

    Parts may be of fewer edges, from before others came.
    """
    if len(parts) == 1 and len(parts[0].value) == n_edges:
        return parts[0]
    total, n = np.zeros(n_edges), np.zeros(n_edges)
    known = np.zeros(n_edges, dtype=bool)
    for part in parts:
        span = slice(0, len(part.value))
        there = np.isfinite(part.value)
        total[span] += np.where(there, part.value, 0.0)
        n[span] += there
        known[span] |= part.known
    return Values(np.divide(total, n, out=np.full(n_edges, np.nan), where=n > 0), known)


class EdgeMoments:
    """Running statistics of every edge, in float64 and without keeping any participant.

    Attributes
    ----------
    participants
        Labels of those that were added.

    References
    ----------
    Welford 1962, doi:10.1080/00401706.1962.10490022 (the update of mean and squares).
    """

    def __init__(self) -> None:
        self.participants: list[str] = []
        self._n = self._mean = self._squares = self._with_edge = self._known = np.zeros(0)

    def add(self, participant: str, values: Values) -> None:
        """Take one participant in: each counts once.

        Parameters
        ----------
        participant
            Label.
        values
            Mean over the participant's sessions; of as many edges as before, or more.
        """
        self.participants.append(participant)
        self._grow(len(values.value))
        there = np.isfinite(values.value)
        value = np.where(there, values.value, self._mean)
        self._n += there
        change = value - self._mean
        self._mean += change / np.maximum(self._n, 1)
        self._squares += change * (value - self._mean)
        self._with_edge += there & (values.value != 0)
        self._known += values.known

    def statistics(self, n_edges: int) -> EdgeStatistics:
        """Give the statistics so far, of all edges that there are now."""
        self._grow(n_edges)
        nothing = np.full(n_edges, np.nan)
        known = self._known > 0
        mean = np.where(known, self._mean, np.nan)
        variance = np.divide(self._squares, self._n - 1, out=nothing.copy(), where=self._n > 1)
        sd = np.sqrt(variance)
        cv = np.divide(sd, mean, out=nothing.copy(), where=known & (mean != 0))
        share = np.divide(self._with_edge, self._known, out=nothing.copy(), where=known)
        return EdgeStatistics(mean, sd, cv, share)

    def _grow(self, n_edges: int) -> None:
        more = n_edges - len(self._n)
        if more > 0:
            for name in ("_n", "_mean", "_squares", "_with_edge", "_known"):
                setattr(self, name, np.concatenate([getattr(self, name), np.zeros(more)]))
