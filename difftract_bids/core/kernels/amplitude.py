"""The fODF's amplitude along a given streamline, and its derivative."""

from __future__ import annotations

import math

from difftract_bids.core.kernels.contraction import matrix_of, power_of
from difftract_bids.core.kernels.lookup import look_up, pull_back_lookup
from difftract_bids.core.kernels.peak import find_peak, quadratic
from difftract_bids.core.kernels.step import unit
from difftract_bids.core.kernels.target import device_function


@device_function
def amplitudes_along(field, rules, work, points, result):
    """Find the amplitude of the peak followed at every vertex but the two ends, which get ∞."""
    real = work.tensor.dtype.type
    for k in range(points.shape[0]):
        result[k] = real(math.inf)
        if 0 < k < points.shape[0] - 1:
            inside, x, y, z = _peak_at(field, rules, work, points, k)
            if inside:
                result[k] = quadratic(matrix_of(work.tensor, x, y, z, field.order), x, y, z)


@device_function
def pull_back_amplitudes(field, rules, work, points, cotangent, to_points, to_table):
    """Pass derivatives by the amplitudes on to the vertices and to the table.

    At a peak the amplitude does not change with the direction, to first order: its derivative is
    that at a fixed direction.
    """
    real = work.tensor.dtype.type
    for k in range(1, points.shape[0] - 1):
        if cotangent[k] != real(0.0):
            inside, x, y, z = _peak_at(field, rules, work, points, k)
            if inside:
                for e in range(work.cotangent.shape[0]):
                    work.cotangent[e] = real(0.0)
                power_of(x, y, z, field.order, cotangent[k], work.cotangent)
                gx, gy, gz = pull_back_lookup(field, work, to_table)
                to_points[k, 0], to_points[k, 1], to_points[k, 2] = gx, gy, gz


@device_function
def _peak_at(field, rules, work, points, k):
    """Find the peak that a streamline follows at a vertex, from its course there."""
    x, y, z = unit(
        work,
        points[k + 1, 0] - points[k - 1, 0],
        points[k + 1, 1] - points[k - 1, 1],
        points[k + 1, 2] - points[k - 1, 2],
    )
    if not look_up(field, work, points[k, 0], points[k, 1], points[k, 2]):
        return False, x, y, z
    found, _, px, py, pz = find_peak(field, rules, work, x, y, z)
    if found:
        return True, px, py, pz
    return True, x, y, z
