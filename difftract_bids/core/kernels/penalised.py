"""One voxel of least squares with a penalty on negative amplitudes.

See `difftract_bids.core.deconvolution.penalised` for what is solved. From one iteration to the
next few directions change sides, so the normal matrix is brought up to date by these alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from difftract_bids.core.kernels.dense import (
    add_rows,
    cholesky,
    combine_rows,
    solve_upper,
)
from difftract_bids.core.kernels.target import device_function
from difftract_bids.core.kernels.tile import padded


class PenalisedArrays(NamedTuple):
    """What all voxels share.

    Attributes
    ----------
    normal
        Normal matrix of the data, padded (see `difftract_bids.core.kernels.dense`).
    full
        The same with the penalty of every direction.
    rows
        Weighted basis functions in each direction (direction, padded n).
    columns
        The same, transposed (n, direction).
    counting, minus
        0, 1, 2, ... and as many times -1.
    threshold
        Weighted amplitude below which a direction is penalised.
    """

    normal: np.ndarray
    full: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    counting: np.ndarray
    minus: np.ndarray
    threshold: float


class PenalisedWorkspace(NamedTuple):
    """Memory of one thread."""

    gram: np.ndarray
    factor: np.ndarray
    amplitudes: np.ndarray
    chosen: np.ndarray
    signs: np.ndarray


def penalised_arrays(
    normal: np.ndarray, full: np.ndarray, rows: np.ndarray, threshold: float
) -> PenalisedArrays:
    """Lay out what all voxels share, padded to whole registers."""
    more = padded(len(normal)) - len(normal)
    return PenalisedArrays(
        normal=np.pad(normal, (0, more)),
        full=np.pad(full, (0, more)),
        rows=np.pad(rows, ((0, 0), (0, more))),
        columns=np.ascontiguousarray(rows.T),
        counting=np.arange(len(normal) + more),
        minus=np.full(len(normal) + more, -1.0),
        threshold=threshold,
    )


def penalised_workspace(shared: PenalisedArrays) -> PenalisedWorkspace:
    """Make the memory of one thread."""
    n_directions = len(shared.rows)
    return PenalisedWorkspace(
        gram=np.zeros_like(shared.normal),
        factor=np.zeros_like(shared.normal),
        amplitudes=np.zeros(n_directions),
        chosen=np.zeros(n_directions, np.int64),
        signs=np.zeros(n_directions),
    )


@device_function
def solve_penalised(shared, work, x, rhs, negative, max_iterations):
    """Solve one voxel; the number of solutions made, negated where that was not enough.

    Parameters
    ----------
    shared, work
        See `PenalisedArrays`, `PenalisedWorkspace`.
    x
        Start, replaced by the solution.
    rhs
        Projected data.
    negative
        Filled with which directions are penalised in the solution (1) and which are not.
    max_iterations
        Most solutions to make.
    """
    n, n_directions = len(x), len(negative)
    combine_rows(shared.columns, x, n, work.amplitudes)
    for done in range(max_iterations):
        if done == 0:
            n_changed = _begin(shared, work, negative)
        else:
            n_changed = _changes(shared, work, negative, n_directions)
            if n_changed == 0:
                return done
        if not _solve(shared, work, n_changed, x, rhs):
            return -done - 1
        combine_rows(shared.columns, x, n, work.amplitudes)
    return -max_iterations


@device_function
def solve_with(shared, work, x, rhs, negative):
    """Solve one voxel for given penalised directions; False if that has no solution."""
    n_changed = 0
    for i in range(len(negative)):
        if negative[i]:
            work.chosen[n_changed] = i
            work.signs[n_changed] = 1.0
            n_changed += 1
    n_changed = _start_from(shared, work, n_changed, negative)
    return _solve(shared, work, n_changed, x, rhs)


@device_function
def _begin(shared, work, negative):
    """Find which directions are penalised first, and take the nearer of two matrices."""
    n_negative = 0
    for i in range(len(negative)):
        negative[i] = 1 if work.amplitudes[i] < shared.threshold else 0
        if negative[i]:
            work.chosen[n_negative] = i
            work.signs[n_negative] = 1.0
            n_negative += 1
    return _start_from(shared, work, n_negative, negative)


@device_function
def _start_from(shared, work, n_negative, negative):
    """Start with no direction penalised, or with all and take off those that are not."""
    if 2 * n_negative <= len(negative):
        _copy(shared.normal, work.gram)
        return n_negative
    _copy(shared.full, work.gram)
    n_changed = 0
    for i in range(len(negative)):
        if not negative[i]:
            work.chosen[n_changed] = i
            work.signs[n_changed] = -1.0
            n_changed += 1
    return n_changed


@device_function
def _changes(shared, work, negative, n_directions):
    """List the directions that changed sides."""
    n_changed = 0
    for i in range(n_directions):
        now = 1 if work.amplitudes[i] < shared.threshold else 0
        if now != negative[i]:
            work.chosen[n_changed] = i
            work.signs[n_changed] = 1.0 if now else -1.0
            negative[i] = now
            n_changed += 1
    return n_changed


@device_function
def _solve(shared, work, n_changed, x, rhs):
    """Bring the matrix up to date and solve with it; False if it is not positive."""
    n = len(x)
    add_rows(work.gram, shared.rows, work.chosen, work.signs, n_changed)
    _copy(work.gram, work.factor)
    for i in range(n):
        work.factor[i, n] = rhs[i]
    if not cholesky(work.factor, n, shared.counting, shared.minus):
        for i in range(n):
            x[i] = 0.0
        return False
    solve_upper(work.factor, x, n)
    return True


@device_function
def _copy(source, target):
    for i in range(source.shape[0]):
        for j in range(source.shape[1]):
            target[i, j] = source[i, j]
