"""One voxel of least squares under linear inequalities, by an active-set method in the dual.

See `difftract_bids.core.deconvolution.nonnegative` for what is solved. The multipliers of the
active constraints solve a small system whose factor is kept up to date while constraints come and
go, as in Lawson and Hanson's non-negative least squares.

References
----------
Lawson and Hanson 1974, Solving Least Squares Problems, chapter 23.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from difftract_bids.core.kernels.target import device_function

#: Violations smaller than this share of the largest value are rounding.
_ROUNDING = 1e-12


class NonnegativeArrays(NamedTuple):
    """What all voxels share.

    Attributes
    ----------
    gram
        Products of the constraints' normals with each other (constraint, constraint).
    ridge
        Added to its diagonal, so that constraints may depend on each other.
    """

    gram: np.ndarray
    ridge: float


class NonnegativeWorkspace(NamedTuple):
    """Memory of one thread: of what is active, ``size`` constraints at most."""

    factor: np.ndarray
    projected: np.ndarray
    wanted: np.ndarray
    multiplier: np.ndarray
    active: np.ndarray
    values: np.ndarray


def nonnegative_workspace(shared: NonnegativeArrays, size: int) -> NonnegativeWorkspace:
    """Make the memory of one thread, for ``size`` active constraints at most."""
    return NonnegativeWorkspace(
        factor=np.zeros((size, size)),
        projected=np.zeros(size),
        wanted=np.zeros(size),
        multiplier=np.zeros(size),
        active=np.zeros(size, np.int64),
        values=np.zeros(len(shared.gram)),
    )


@device_function
def solve_nonnegative(shared, work, free, result, max_iterations):
    """Solve one voxel; the number of constraints tried, negated where that was not enough.

    Parameters
    ----------
    shared, work
        See `NonnegativeArrays`, `NonnegativeWorkspace`.
    free
        Values of the constraints at the unconstrained solution; none may be negative at the end.
    result
        Filled with the multipliers: positive where a constraint is active, else 0.
    max_iterations
        Most constraints to try.
    """
    largest = 0.0
    for i in range(len(free)):
        work.values[i] = free[i]
        largest = max(largest, abs(free[i]))
        result[i] = 0.0
    n_active, tried, complete = 0, 0, False
    while not complete and tried < max_iterations and n_active < len(work.active):
        worst = _smallest(work.values)
        complete = work.values[worst] >= -_ROUNDING * largest
        for k in range(n_active):  # nothing but rounding is wrong with what is active already
            complete = complete or work.active[k] == worst
        if not complete:
            n_active = _add(shared, work, free, n_active, worst)
            n_active = _settle(work, n_active)
            _update_values(shared, work, free, n_active)
            tried += 1
    for k in range(n_active):
        result[work.active[k]] = work.multiplier[k]
    return tried if complete else -tried - 1


@device_function
def multipliers_for(shared, work, free, active, result):
    """Find the multipliers that bring the given constraints to 0, whatever their sign."""
    n_active = 0
    for i in range(len(free)):
        result[i] = 0.0
        if active[i] and n_active < len(work.active):
            n_active = _add(shared, work, free, n_active, i)
    _back_substitute(work, n_active)
    for k in range(n_active):
        result[work.active[k]] = work.wanted[k]


@device_function
def _smallest(values):
    place = 0
    for i in range(len(values)):
        if values[i] < values[place]:
            place = i
    return place


@device_function
def _add(shared, work, free, n_active, new):
    """Append a constraint to the factor."""
    factor, n = work.factor, n_active
    column = work.wanted
    for k in range(n):
        column[k] = shared.gram[new, work.active[k]]
    rest, target = shared.gram[new, new] + shared.ridge, -free[new]
    for k in range(n):
        value = column[k] * factor[k, k]
        factor[k, n] = value
        rest -= value * value
        target -= value * work.projected[k]
        for j in range(k + 1, n):
            column[j] -= value * factor[k, j]
    # The diagonal holds reciprocals. Rounding must not make a dependent constraint imaginary.
    inverse = 1.0 / max(rest, shared.ridge) ** 0.5
    factor[n, n] = inverse
    work.projected[n] = target * inverse
    work.active[n] = new
    work.multiplier[n] = 0.0
    return n + 1


@device_function
def _settle(work, n_active):
    """Move towards the multipliers wanted, dropping constraints whose multiplier reaches 0."""
    while n_active > 0:
        _back_substitute(work, n_active)
        step, first = 1.0, -1
        for k in range(n_active):
            if work.wanted[k] <= 0.0:
                have = work.multiplier[k]
                share = have / (have - work.wanted[k]) if have > 0.0 else 0.0
                if first < 0 or share < step:
                    step, first = share, k
        if first < 0:
            for k in range(n_active):
                work.multiplier[k] = work.wanted[k]
            return n_active
        for k in range(n_active):
            work.multiplier[k] += step * (work.wanted[k] - work.multiplier[k])
        _drop(work, n_active, first)
        n_active -= 1
    return n_active


@device_function
def _back_substitute(work, n):
    for k in range(n - 1, -1, -1):
        total = work.projected[k]
        for j in range(k + 1, n):
            total -= work.factor[k, j] * work.wanted[j]
        work.wanted[k] = total * work.factor[k, k]


@device_function
def _drop(work, n, gone):
    """Take a constraint off the factor: close the gap, and rotate what is left of it away."""
    factor = work.factor
    for k in range(gone, n - 1):
        work.active[k] = work.active[k + 1]
        work.multiplier[k] = work.multiplier[k + 1]
    for k in range(gone + 1):
        _shift(factor, k, gone, n)
    for k in range(gone, n - 1):
        # The diagonal holds reciprocals, but that of row k was shifted over.
        above, below = factor[k, k], 1.0 / factor[k + 1, k + 1]
        _shift(factor, k + 1, k + 1, n)
        length = (above * above + below * below) ** 0.5
        c, s = above / length, below / length
        factor[k, k] = 1.0 / length
        for j in range(k + 1, n - 1):
            upper, lower = factor[k, j], factor[k + 1, j]
            factor[k, j] = c * upper + s * lower
            factor[k + 1, j] = c * lower - s * upper
        upper, lower = work.projected[k], work.projected[k + 1]
        work.projected[k] = c * upper + s * lower
        work.projected[k + 1] = c * lower - s * upper


@device_function
def _shift(factor, row, first, n):
    for j in range(first, n - 1):
        factor[row, j] = factor[row, j + 1]


@device_function
def _update_values(shared, work, free, n_active):
    """Evaluate all constraints at the present multipliers."""
    values, gram = work.values, shared.gram
    for i in range(len(values)):
        values[i] = free[i]
    whole = n_active // 4 * 4
    for k in range(0, whole, 4):
        a, b = gram[work.active[k]], gram[work.active[k + 1]]
        c, d = gram[work.active[k + 2]], gram[work.active[k + 3]]
        fa, fb = work.multiplier[k], work.multiplier[k + 1]
        fc, fd = work.multiplier[k + 2], work.multiplier[k + 3]
        for i in range(len(values)):
            values[i] += fa * a[i] + fb * b[i] + fc * c[i] + fd * d[i]
    for k in range(whole, n_active):
        a, fa = gram[work.active[k]], work.multiplier[k]
        for i in range(len(values)):
            values[i] += fa * a[i]
