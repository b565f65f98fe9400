"""One step along the peaks, and its derivative: the rules of `difftract_bids.core.integrators`."""

from __future__ import annotations

import math

from difftract_bids.core.kernels.contraction import matrix_of, slope_of
from difftract_bids.core.kernels.lookup import look_up, pull_back_lookup
from difftract_bids.core.kernels.peak import find_peak, inverse_curvature, quadratic
from difftract_bids.core.kernels.target import device_function
from difftract_bids.core.streamlines import StopReason

EULER, MIDPOINT, RK4, RK4_CLASSIC = range(4)

_OUTSIDE = int(StopReason.OUTSIDE_IMAGE)
_NO_PEAK = int(StopReason.NO_PEAK)
_BELOW = int(StopReason.BELOW_CUTOFF)
_TURNED = int(StopReason.HIGH_CURVATURE)


@device_function
def heading(field, rules, work, x, y, z, dx, dy, dz):
    """Find the peak at a position: why one cannot go on (0: one can), and the direction."""
    if not look_up(field, work, x, y, z):
        return _OUTSIDE, dx, dy, dz
    found, amplitude, px, py, pz = find_peak(field, rules, work, dx, dy, dz)
    if not found:
        return _NO_PEAK, px, py, pz
    if amplitude < rules.cutoff:
        return _BELOW, px, py, pz
    return 0, px, py, pz


@device_function
def advance(field, rules, work, x, y, z, dx, dy, dz):
    """Make one step: why it cannot be made, the new position and the new direction."""
    if rules.integrator != EULER:
        return _advance_by_stages(field, rules, work, x, y, z, dx, dy, dz)
    why, px, py, pz = heading(field, rules, work, x, y, z, dx, dy, dz)
    if why == 0 and px * dx + py * dy + pz * dz < rules.cos_max_angle:
        why = _TURNED
    h = rules.step_size_mm
    return why, x + h * px, y + h * py, z + h * pz, px, py, pz


@device_function
def _advance_by_stages(field, rules, work, x, y, z, dx, dy, dz):
    """Make a step of several peaks, and test its end: the first against the one found there."""
    why, stages = _stages(field, rules, work, x, y, z, dx, dy, dz)
    if why != 0:
        return why, x, y, z, dx, dy, dz
    sx, sy, sz = _slope(rules, work, stages)
    h = rules.step_size_mm
    nx, ny, nz = x + h * sx, y + h * sy, z + h * sz
    ux, uy, uz = unit(work, sx, sy, sz)
    why, ex, ey, ez = heading(field, rules, work, nx, ny, nz, ux, uy, uz)
    if why == 0 and stages[0] * ex + stages[1] * ey + stages[2] * ez < rules.cos_max_angle:
        why = _TURNED
    return why, nx, ny, nz, ux, uy, uz


@device_function
def _stages(field, rules, work, x, y, z, dx, dy, dz):
    """Find the peaks of a step: four, or two of the midpoint rule (the second thrice)."""
    real = work.tensor.dtype.type
    h = rules.step_size_mm
    half = real(0.5) * h
    w1, ax, ay, az = heading(field, rules, work, x, y, z, dx, dy, dz)
    if w1 != 0:
        return w1, (ax, ay, az, ax, ay, az, ax, ay, az, ax, ay, az)
    if rules.integrator == MIDPOINT:
        dx, dy, dz = ax, ay, az
    w2, bx, by, bz = heading(
        field, rules, work, x + half * ax, y + half * ay, z + half * az, dx, dy, dz
    )
    if w2 != 0 or rules.integrator == MIDPOINT:
        return w2, (ax, ay, az, bx, by, bz, bx, by, bz, bx, by, bz)
    w3, cx, cy, cz = heading(
        field, rules, work, x + half * bx, y + half * by, z + half * bz, dx, dy, dz
    )
    if w3 != 0:
        return w3, (ax, ay, az, bx, by, bz, cx, cy, cz, cx, cy, cz)
    ux, uy, uz = unit(work, bx + cx, by + cy, bz + cz)
    w4, ex, ey, ez = heading(field, rules, work, x + h * cx, y + h * cy, z + h * cz, ux, uy, uz)
    return w4, (ax, ay, az, bx, by, bz, cx, cy, cz, ex, ey, ez)


@device_function
def _slope(rules, work, stages):
    """Combine the peaks of a step into what is gone along."""
    if rules.integrator == MIDPOINT:
        return stages[3], stages[4], stages[5]
    sx, sy, sz = _weighted_sum(work, stages)
    if rules.integrator == RK4:
        return unit(work, sx, sy, sz)
    sixth = work.tensor.dtype.type(1.0 / 6.0)
    return sx * sixth, sy * sixth, sz * sixth


@device_function
def _weighted_sum(work, stages):
    """Sum four peaks, those in the middle twice."""
    two = work.tensor.dtype.type(2.0)
    ax, ay, az, bx, by, bz, cx, cy, cz, ex, ey, ez = stages
    return ax + two * (bx + cx) + ex, ay + two * (by + cy) + ey, az + two * (bz + cz) + ez


@device_function
def unit(work, x, y, z):
    """Make a vector a unit vector; zero stays zero."""
    real = work.tensor.dtype.type
    length = math.sqrt(x * x + y * y + z * z)
    over = real(1.0) / length if length > real(0.0) else real(1.0)
    return x * over, y * over, z * over


@device_function
def _pull_back_heading(field, work, peak, cotangent, to_table):
    """Pass a derivative by a peak on to the table and to the position just looked up.

    Returns
    -------
    x, y, z, bounded
        The derivative by the position, and 1 where a curvature had to be bounded.
    """
    tensor = work.tensor
    real = tensor.dtype.type
    lmax = real(len(field.order))
    x, y, z = peak
    matrix = matrix_of(tensor, x, y, z, field.order)
    amplitude = quadratic(matrix, x, y, z)
    ax, ay, az, bounded = inverse_curvature(tensor, lmax, amplitude, matrix, peak, cotangent)
    slope_of(peak, (-ax, -ay, -az), field.order, work.cotangent)
    gx, gy, gz = pull_back_lookup(field, work, to_table)
    return gx, gy, gz, 1 if bounded else 0


@device_function
def pull_back_step(field, rules, work, here, there, before, cotangent, to_table):
    """Pass a derivative by the end of a step on to its start and to the table.

    Parameters
    ----------
    here, there
        The positions that the step joins.
    before
        Direction of the step before.
    cotangent
        Derivative by ``there``.

    Returns
    -------
    x, y, z, bounded
        The derivative by ``here``, and how often a curvature had to be bounded.
    """
    if rules.integrator != EULER:
        return _pull_back_stages(field, rules, work, here, before, cotangent, to_table)
    h = rules.step_size_mm
    x, y, z = here
    peak = unit(work, there[0] - x, there[1] - y, there[2] - z)
    lx, ly, lz = cotangent
    look_up(field, work, x, y, z)
    gx, gy, gz, bounded = _pull_back_heading(field, work, peak, (h * lx, h * ly, h * lz), to_table)
    return lx + gx, ly + gy, lz + gz, bounded


@device_function
def _pull_back_stages(field, rules, work, here, before, cotangent, to_table):
    """Replay the peaks of a step and go through them from the last to the first."""
    real = work.tensor.dtype.type
    h = rules.step_size_mm
    half, sixth, third = real(0.5) * h, h * real(1.0 / 6.0), h * real(1.0 / 3.0)
    x, y, z = here
    lx, ly, lz = cotangent
    _, stages = _stages(field, rules, work, x, y, z, before[0], before[1], before[2])
    ax, ay, az, bx, by, bz, cx, cy, cz, ex, ey, ez = stages
    bounded = 0
    if rules.integrator == MIDPOINT:
        tx, ty, tz = h * lx, h * ly, h * lz
        rx, ry, rz = real(0.0), real(0.0), real(0.0)
    else:
        if rules.integrator == RK4:
            # Through the unit vector of s = k1 + 2 k2 + 2 k3 + k4: (l - (l.u) u) / |s|, for s / 6.
            px, py, pz = _weighted_sum(work, stages)
            ux, uy, uz = unit(work, px, py, pz)
            along = lx * ux + ly * uy + lz * uz
            over = real(6.0) / math.sqrt(px * px + py * py + pz * pz)
            px, py, pz = (
                (lx - along * ux) * over,
                (ly - along * uy) * over,
                (lz - along * uz) * over,
            )
        else:
            px, py, pz = lx, ly, lz
        look_up(field, work, x + h * cx, y + h * cy, z + h * cz)
        fx, fy, fz, n = _pull_back_heading(
            field, work, (ex, ey, ez), (sixth * px, sixth * py, sixth * pz), to_table
        )
        bounded += n
        lx, ly, lz = lx + fx, ly + fy, lz + fz
        look_up(field, work, x + half * bx, y + half * by, z + half * bz)
        fx, fy, fz, n = _pull_back_heading(
            field,
            work,
            (cx, cy, cz),
            (third * px + h * fx, third * py + h * fy, third * pz + h * fz),
            to_table,
        )
        bounded += n
        lx, ly, lz = lx + fx, ly + fy, lz + fz
        tx, ty, tz = third * px + half * fx, third * py + half * fy, third * pz + half * fz
        rx, ry, rz = sixth * px, sixth * py, sixth * pz
    look_up(field, work, x + half * ax, y + half * ay, z + half * az)
    fx, fy, fz, n = _pull_back_heading(field, work, (bx, by, bz), (tx, ty, tz), to_table)
    bounded += n
    lx, ly, lz = lx + fx, ly + fy, lz + fz
    look_up(field, work, x, y, z)
    fx, fy, fz, n = _pull_back_heading(
        field, work, (ax, ay, az), (rx + half * fx, ry + half * fy, rz + half * fz), to_table
    )
    return lx + fx, ly + fy, lz + fz, bounded + n
