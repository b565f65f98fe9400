"""The three sums over streamlines and fixels that a fit is made of, compiled or in PyTorch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from difftract_bids.core.kernels.threads import Span, first_come, share
from difftract_bids.core.kernels.weights import (
    DENSITY,
    IMPORTANCE,
    LENGTH,
    LENGTH_NOW,
    MEAN,
    N_VISIT_COLUMNS,
    FitRules,
    WeightArrays,
    add_lengths,
    add_up,
    add_variation,
    update_coefficients,
)
from difftract_bids.core.sift2.line_search import FixelState, rows_of, searched
from difftract_bids.core.sift2.mapping import Visits

#: Streamlines that a thread takes at a time.
_PORTION = 256
#: Parts whose sums are made apart: as many threads can work, and always in the same order.
_PARTS = 8


class Sums(NamedTuple):
    """Sums over the streamlines of each fixel.

    Attributes
    ----------
    length_mm
        Of their lengths times weights.
    coefficient
        Of their lengths times coefficients.
    n_streamlines
        Number of streamlines.
    """

    length_mm: Float[Tensor, " fixel"]
    coefficient: Float[Tensor, " fixel"]
    n_streamlines: Float[Tensor, " fixel"]


class Backend(Protocol):
    """What a fit needs; the streamlines are the backend's own."""

    def search(
        self, state: FixelState, rules: FitRules, coefficients: Float[Tensor, " n"]
    ) -> Float[Tensor, " n"]:
        """Change each coefficient by a line search."""

    def sums(self, coefficients: Float[Tensor, " n"], n_fixels: int) -> Sums:
        """Sum over the streamlines of each fixel."""

    def variation(self, state: FixelState, coefficients: Float[Tensor, " n"]) -> float:
        """Sum what each streamline's weight differs from those around it."""


class TorchBackend:
    """Everything in PyTorch, on the device of the visits."""

    def __init__(self, visits: Visits, importance: Float[Tensor, " fixel"]) -> None:
        self._rows = rows_of(visits, importance)

    def search(
        self, state: FixelState, rules: FitRules, coefficients: Float[Tensor, " n"]
    ) -> Float[Tensor, " n"]:
        """See `Backend`."""
        return searched(self._rows, state, rules, coefficients)

    def sums(self, coefficients: Float[Tensor, " n"], n_fixels: int) -> Sums:
        """See `Backend`."""
        here, row, length, _ = self._rows
        terms = (length * coefficients.exp()[row], length * coefficients[row], length.new_ones(()))
        zeros = coefficients.new_zeros(n_fixels)
        return Sums(*(zeros.index_add(0, here, term.expand(len(here))) for term in terms))

    def variation(self, state: FixelState, coefficients: Float[Tensor, " n"]) -> float:
        """See `Backend`."""
        here, row, length, total = self._rows
        own, mean = coefficients[row], state.mean[here]
        apart = torch.where(own > mean, own.exp() - mean.exp(), own - mean)
        return float((length * state.importance[here] * apart**2 / total[row]).sum())


class KernelBackend:
    """Kernels on as many threads as PyTorch uses."""

    def __init__(self, visits: Visits, importance: Float[Tensor, " fixel"]) -> None:
        self._visits = visits
        self._total = np.empty(visits.n_streamlines)
        lists = visits.fixel.numpy(), visits.length_mm.numpy(), visits.offsets.numpy()
        add_lengths(0, visits.n_streamlines, *lists, importance.numpy(), self._total)
        self._longest = int(visits.offsets.diff().max()) if visits.n_streamlines else 0

    def search(
        self, state: FixelState, rules: FitRules, coefficients: Float[Tensor, " n"]
    ) -> Float[Tensor, " n"]:
        """See `Backend`."""
        arrays, moved = self._arrays(state), coefficients.clone()
        values = moved.numpy()

        def work_on(spans: Iterable[Span]) -> None:
            visits = np.empty((self._longest, N_VISIT_COLUMNS))
            for first, last in spans:
                update_coefficients(first, last, arrays, rules, visits, values)

        share(work_on, first_come(len(values), _PORTION))
        return moved

    def sums(self, coefficients: Float[Tensor, " n"], n_fixels: int) -> Sums:
        """See `Backend`."""
        arrays, values = self._arrays(None), coefficients.numpy()
        bounds = np.linspace(0, len(values), _PARTS + 1).astype(np.int64)
        parts = np.zeros((_PARTS, n_fixels, 3))

        def work_on(spans: Iterable[Span]) -> None:
            for part, _ in spans:
                add_up(bounds[part], bounds[part + 1], arrays, values, parts[part])

        share(work_on, first_come(_PARTS, 1))
        return Sums(*torch.from_numpy(parts.sum(axis=0)).unbind(1))

    def variation(self, state: FixelState, coefficients: Float[Tensor, " n"]) -> float:
        """See `Backend`."""
        arrays, values = self._arrays(state), coefficients.numpy()
        found = np.zeros(len(values))

        def work_on(spans: Iterable[Span]) -> None:
            for first, last in spans:
                add_variation(first, last, arrays, values, found)

        share(work_on, first_come(len(values), _PORTION))
        return float(found.sum())

    def _arrays(self, state: FixelState | None) -> WeightArrays:
        columns, takes_part = np.zeros((1, 5)), np.zeros(1, dtype=np.bool_)
        if state is not None:
            columns = np.empty((len(state.density), 5))
            columns[:, DENSITY], columns[:, IMPORTANCE] = state.density, state.importance
            columns[:, LENGTH], columns[:, LENGTH_NOW] = state.length_mm, state.length_now_mm
            columns[:, MEAN] = state.mean
            takes_part = state.takes_part.numpy()
        visits = self._visits
        return WeightArrays(
            visits.fixel.numpy(),
            visits.length_mm.numpy(),
            visits.offsets.numpy(),
            self._total,
            columns,
            takes_part,
        )
