"""Fitting streamline weights: one streamline after the other, and sums over them.

See `difftract_bids.core.sift2.fit` for what is fitted; `difftract_bids.core.sift2.line_search` is
the same in PyTorch.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from difftract_bids.core.kernels.target import device_function, host_kernel

#: Columns of what is known of a fixel.
DENSITY, IMPORTANCE, LENGTH, LENGTH_NOW, MEAN = range(5)
#: Columns of what is known of a streamline's visit to a fixel that takes part.
_VISIT_LENGTH, _SHARE, _TARGET, _OTHERS, _SLOPE, _SMOOTH, _BASE, _EXP_BASE = range(8)
N_VISIT_COLUMNS = 8


class WeightArrays(NamedTuple):
    """What all streamlines share.

    Attributes
    ----------
    fixel, length, offsets
        See `difftract_bids.core.sift2.mapping.Visits`.
    total
        Length of each streamline, millimetres, weighted by the importance of its fixels.
    state
        Of each fixel: density, importance, length of streamlines with all weights 1, that with the
        present weights, and their mean coefficient (fixel, 5).
    takes_part
        Whether each fixel takes part in the fit.
    """

    fixel: np.ndarray
    length: np.ndarray
    offsets: np.ndarray
    total: np.ndarray
    state: np.ndarray
    takes_part: np.ndarray


class FitRules(NamedTuple):
    """Numbers of the fit.

    Attributes
    ----------
    mu
        Density for a millimetre of streamline.
    tikhonov, total_variation
        Strengths of the regularisation, multiplied by the constant that makes them independent of
        the number of streamlines.
    max_step, max_coefficient
        Largest change of a coefficient at a time, and its largest value.
    tolerance, max_newton
        Newton's method ends with a smaller step, or after so many.
    """

    mu: float
    tikhonov: float
    total_variation: float
    max_step: float
    max_coefficient: float
    tolerance: float
    max_newton: int


@device_function
def _gather(shared, s, factor, visits):
    """Write what the line search of a streamline needs, a row for each fixel; how many."""
    n = 0
    for i in range(shared.offsets[s], shared.offsets[s + 1]):
        f = shared.fixel[i]
        if shared.takes_part[f]:
            length = float(shared.length[i])
            importance = shared.state[f, IMPORTANCE]
            visits[n, _VISIT_LENGTH] = length
            visits[n, _SHARE] = importance * length / shared.state[f, LENGTH]
            visits[n, _TARGET] = shared.state[f, DENSITY]
            visits[n, _OTHERS] = shared.state[f, LENGTH_NOW] - length * factor
            visits[n, _SLOPE] = (shared.state[f, LENGTH] - length) * factor
            visits[n, _SMOOTH] = importance * length / shared.total[s]
            visits[n, _BASE] = shared.state[f, MEAN]
            visits[n, _EXP_BASE] = math.exp(shared.state[f, MEAN])
            n += 1
    return n


@device_function
def _newton_step(rules, visits, n, coefficient, change):
    """Find the step of Newton's method, downhill always, no longer than is allowed."""
    now = coefficient + change
    factor = math.exp(now)
    first = second = 0.0
    smooth_first = smooth_second = 0.0
    for i in range(n):
        own = rules.mu * visits[i, _VISIT_LENGTH] * factor
        others = rules.mu * visits[i, _SLOPE]
        rate = own + others
        misfit = rules.mu * visits[i, _OTHERS] + own + others * change - visits[i, _TARGET]
        first += visits[i, _SHARE] * rate * misfit
        second += visits[i, _SHARE] * (rate * rate + own * misfit)
        if now <= visits[i, _BASE]:
            smooth_first += visits[i, _SMOOTH] * (now - visits[i, _BASE])
            smooth_second += visits[i, _SMOOTH]
        else:
            base = visits[i, _EXP_BASE]
            smooth_first += visits[i, _SMOOTH] * factor * (factor - base)
            smooth_second += visits[i, _SMOOTH] * factor * (2.0 * factor - base)
    first += rules.total_variation * smooth_first + rules.tikhonov * now
    second += rules.total_variation * smooth_second + rules.tikhonov
    step = -first / abs(second) if second != 0.0 else 0.0
    if not math.isfinite(step):
        step = 0.0
    return min(max(step, -rules.max_step), rules.max_step)


@host_kernel
def update_coefficients(first, last, shared, rules, visits, coefficients):
    """Change each streamline's coefficient by a line search.

    Parameters
    ----------
    first, last
        Streamlines that are worked on.
    shared, rules
        See `WeightArrays`, `FitRules`.
    visits
        Memory of this thread: a row for each fixel of a streamline (visit, 8).
    coefficients
        Logarithms of the weights; overwritten.
    """
    for s in range(first, last):
        n = _gather(shared, s, math.exp(coefficients[s]), visits)
        change = 0.0
        if n > 0:
            for _ in range(rules.max_newton):
                step = _newton_step(rules, visits, n, coefficients[s], change)
                if change >= rules.max_step and step > 0:
                    step, change = 0.0, rules.max_step
                elif change <= -rules.max_step and step < 0:
                    step, change = 0.0, -rules.max_step
                change += step
                if not abs(step) > rules.tolerance:
                    break
        change = min(max(change, -rules.max_step), rules.max_step)
        coefficients[s] = min(coefficients[s] + change, rules.max_coefficient)


@host_kernel
def add_lengths(first, last, fixel, length, offsets, importance, total):
    """Sum the lengths of each streamline, weighted by the importance of its fixels.

    Parameters
    ----------
    first, last
        Streamlines that are worked on.
    fixel, length, offsets
        See `difftract_bids.core.sift2.mapping.Visits`.
    importance
        Of each fixel.
    total
        Filled with the sum of each streamline, millimetres.
    """
    for s in range(first, last):
        total[s] = 0.0
        for i in range(offsets[s], offsets[s + 1]):
            total[s] += importance[fixel[i]] * float(length[i])


@host_kernel
def add_up(first, last, shared, coefficients, sums):
    """Sum lengths, lengths times coefficients, and streamlines, fixel by fixel.

    Parameters
    ----------
    first, last
        Streamlines that are worked on.
    shared
        See `WeightArrays`.
    coefficients
        Logarithms of the weights.
    sums
        Added to (fixel, 3).
    """
    for s in range(first, last):
        factor = math.exp(coefficients[s])
        for i in range(shared.offsets[s], shared.offsets[s + 1]):
            f = shared.fixel[i]
            length = float(shared.length[i])
            sums[f, 0] += length * factor
            sums[f, 1] += length * coefficients[s]
            sums[f, 2] += 1.0


@host_kernel
def add_variation(first, last, shared, coefficients, variation):
    """Work out how far each streamline's weight is from the means of its fixels.

    Parameters
    ----------
    first, last
        Streamlines that are worked on.
    shared
        See `WeightArrays`.
    coefficients
        Logarithms of the weights.
    variation
        Filled with the mean along each streamline.
    """
    for s in range(first, last):
        factor = math.exp(coefficients[s])
        found = 0.0
        for i in range(shared.offsets[s], shared.offsets[s + 1]):
            f = shared.fixel[i]
            apart = coefficients[s] - shared.state[f, MEAN]
            if apart > 0:
                apart = factor - math.exp(shared.state[f, MEAN])
            found += shared.state[f, IMPORTANCE] * float(shared.length[i]) * apart * apart
        variation[s] = found / shared.total[s] if found > 0 else 0.0
