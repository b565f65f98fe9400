"""Deconvolution of many voxels by compiled code, shared out to threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import NamedTuple

import numpy as np

from difftract_bids.core.kernels.nonnegative import (
    NonnegativeArrays,
    multipliers_for,
    nonnegative_workspace,
    solve_nonnegative,
)
from difftract_bids.core.kernels.penalised import (
    PenalisedArrays,
    penalised_workspace,
    solve_penalised,
    solve_with,
)
from difftract_bids.core.kernels.target import host_kernel, source_digest
from difftract_bids.core.kernels.threads import Span, first_come, share

#: Voxels that a thread takes at a time: some milliseconds of work.
_PORTION = 64
#: Active constraints beyond the number of unknowns: those that depend on others.
_DEPENDENT = 32
#: Constraints that are tried in a voxel at most, for each unknown.
_TRIALS = 20


class PenalisedKernel:
    """`difftract_bids.core.kernels.penalised` over voxels.

    Parameters
    ----------
    shared
        What all voxels share.
    max_iterations
        Most solutions in a voxel.
    """

    def __init__(self, shared: PenalisedArrays, max_iterations: int) -> None:
        self.shared, self.max_iterations = shared, max_iterations
        self.n_directions = len(shared.rows)

    def solve(self, start: np.ndarray, rhs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Solve from a start (replaced); which directions are penalised, True or False."""
        negative = np.zeros((len(rhs), self.n_directions), np.uint8)
        kernel = _kernels().penalised

        def work_on(spans: Iterable[Span]) -> None:
            work = penalised_workspace(self.shared)
            for at, end in spans:
                kernel(self.shared, work, start, rhs, negative, self.max_iterations, at, end)

        share(work_on, first_come(len(rhs), _PORTION))
        return start, negative.view(np.bool_)

    def solve_with(self, rhs: np.ndarray, negative: np.ndarray) -> np.ndarray:
        """Solve for given directions."""
        solution = np.zeros_like(rhs)
        kernel = _kernels().penalised_with

        def work_on(spans: Iterable[Span]) -> None:
            work = penalised_workspace(self.shared)
            for at, end in spans:
                kernel(self.shared, work, solution, rhs, negative.view(np.uint8), at, end)

        share(work_on, first_come(len(rhs), _PORTION))
        return solution


class NonnegativeKernel:
    """`difftract_bids.core.kernels.nonnegative` over voxels.

    Parameters
    ----------
    gram
        Products of the constraints' normals with each other.
    ridge
        Added to its diagonal.
    n_unknowns
        Unknowns of a voxel.
    """

    def __init__(self, gram: np.ndarray, ridge: float, n_unknowns: int) -> None:
        self.shared = NonnegativeArrays(np.ascontiguousarray(gram), ridge)
        self.size = min(n_unknowns + _DEPENDENT, len(gram))
        self.max_trials = _TRIALS * n_unknowns

    def solve(self, free: np.ndarray) -> np.ndarray:
        """Find the multipliers, from the constraints' values at the unconstrained solution."""
        multipliers = np.zeros_like(free)
        kernel = _kernels().nonnegative

        def work_on(spans: Iterable[Span]) -> None:
            work = nonnegative_workspace(self.shared, self.size)
            for at, end in spans:
                kernel(self.shared, work, free, multipliers, self.max_trials, at, end)

        share(work_on, first_come(len(free), _PORTION))
        return multipliers

    def multipliers_for(self, free: np.ndarray, active: np.ndarray) -> np.ndarray:
        """Find the multipliers that bring given constraints to 0."""
        multipliers = np.zeros_like(free)
        kernel = _kernels().multipliers

        def work_on(spans: Iterable[Span]) -> None:
            work = nonnegative_workspace(self.shared, self.size)
            for at, end in spans:
                kernel(self.shared, work, free, active.view(np.uint8), multipliers, at, end)

        share(work_on, first_come(len(free), _PORTION))
        return multipliers


class _Kernels(NamedTuple):
    penalised: Callable[..., None]
    penalised_with: Callable[..., None]
    nonnegative: Callable[..., None]
    multipliers: Callable[..., None]


@cache
def _kernels() -> _Kernels:
    return _made_of(source_digest())


def _made_of(digest: str) -> _Kernels:
    """Compile what loops over a portion; the digest makes a kernel's name in the cache on disk."""

    @host_kernel
    def penalised_portion(shared, work, x, rhs, negative, max_iterations, at, end):
        _ = digest
        for i in range(at, end):
            solve_penalised(shared, work, x[i], rhs[i], negative[i], max_iterations)

    @host_kernel
    def penalised_with_portion(shared, work, x, rhs, negative, at, end):
        _ = digest
        for i in range(at, end):
            solve_with(shared, work, x[i], rhs[i], negative[i])

    @host_kernel
    def nonnegative_portion(shared, work, free, result, max_trials, at, end):
        _ = digest
        for i in range(at, end):
            solve_nonnegative(shared, work, free[i], result[i], max_trials)

    @host_kernel
    def multipliers_portion(shared, work, free, active, result, at, end):
        _ = digest
        for i in range(at, end):
            multipliers_for(shared, work, free[i], active[i], result[i])

    return _Kernels(
        penalised_portion, penalised_with_portion, nonnegative_portion, multipliers_portion
    )
