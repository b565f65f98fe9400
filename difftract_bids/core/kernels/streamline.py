"""One streamline, from its seed both ways, and the derivative of all its vertices."""

from __future__ import annotations

import math

from difftract_bids.core.kernels.step import advance, heading, pull_back_step, unit
from difftract_bids.core.kernels.target import device_function
from difftract_bids.core.regions import EXCLUDED, IN_MASK
from difftract_bids.core.streamlines import SeedStatus, StopReason

_KEPT = int(SeedStatus.KEPT)
_OUTSIDE_MASK = int(SeedStatus.OUTSIDE_MASK)
_SINGLE_VERTEX = int(SeedStatus.SINGLE_VERTEX)
_TOO_SHORT = int(SeedStatus.TOO_SHORT)
_EXCLUDED = int(SeedStatus.EXCLUDED)
_MISSED_INCLUDE = int(SeedStatus.MISSED_INCLUDE)
_LEFT_MASK = int(StopReason.LEFT_MASK)
_MAX_LENGTH = int(StopReason.MAX_LENGTH)
_ENTERED_EXCLUDE = int(StopReason.ENTERED_EXCLUDE)
_ALL_INCLUDED = int(StopReason.ALL_INCLUDED)


@device_function
def bits_at(regions, x, y, z):
    """Tell which regions a position (RAS+ millimetres) is in, one bit each."""
    bits = regions.always
    for grid in range(regions.first.shape[0]):
        m, shape = regions.ras2vox[grid], regions.shape[grid]
        i = math.floor(m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + m[0, 3] + 0.5)
        j = math.floor(m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + m[1, 3] + 0.5)
        k = math.floor(m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + m[2, 3] + 0.5)
        if 0 <= i < shape[0] and 0 <= j < shape[1] and 0 <= k < shape[2]:
            place = (int(i) * shape[1] + int(j)) * shape[2] + int(k)
            bits |= regions.bits[regions.first[grid] + place]
    for sphere in range(regions.spheres.shape[0]):
        c = regions.spheres[sphere]
        u, v, w = x - c[0], y - c[1], z - c[2]
        if u * u + v * v + w * w <= c[3] * c[3]:
            bits |= regions.sphere_bits[sphere]
    return bits


@device_function
def trace(field, regions, rules, work, seed, start, points):
    """Track one seed into the first rows of ``points``, in MRtrix's order of vertices.

    Returns
    -------
    status, vertices, seed_vertex, first_reason, last_reason
        `SeedStatus`; if it is ``KEPT``, how many vertices there are, which is the seed, and the
        `StopReason` at both ends.
    """
    x, y, z = seed[0], seed[1], seed[2]
    visited = bits_at(regions, x, y, z)
    # A heading's reasons are a seed's too, with the same numbers.
    why, dx, dy, dz = heading(field, rules, work, x, y, z, start[0], start[1], start[2])
    if visited & IN_MASK == 0:
        return _OUTSIDE_MASK, 0, 0, 0, 0
    if visited & EXCLUDED != 0:
        return _EXCLUDED, 0, 0, 0, 0
    if why != 0:
        return why, 0, 0, 0, 0
    points[0, 0], points[0, 1], points[0, 2] = x, y, z
    n, first, visited = _half(field, regions, rules, work, points, 1, x, y, z, dx, dy, dz, visited)
    seed_vertex, last = 0, first
    if not rules.one_way and first != _ENTERED_EXCLUDE:
        _reverse(points, n)
        seed_vertex = n - 1
        n, last, visited = _half(
            field, regions, rules, work, points, n, x, y, z, -dx, -dy, -dz, visited
        )
    if _ENTERED_EXCLUDE in (first, last):
        return _EXCLUDED, 0, 0, 0, 0
    if n == 1 and rules.min_vertices > 1:
        return _SINGLE_VERTEX, 0, 0, 0, 0
    if n < rules.min_vertices:
        return _TOO_SHORT, 0, 0, 0, 0
    if visited & regions.needed != regions.needed:
        return _MISSED_INCLUDE, 0, 0, 0, 0
    return _KEPT, n, seed_vertex, 0 if rules.one_way else first, last


@device_function
def _half(field, regions, rules, work, points, n, x, y, z, dx, dy, dz, visited):
    """Add vertices after the first ``n``: their number, the `StopReason`, the regions visited."""
    while True:
        why, x, y, z, dx, dy, dz = advance(field, rules, work, x, y, z, dx, dy, dz)
        if why != 0:
            return n, why, visited
        bits = bits_at(regions, x, y, z)
        if bits & IN_MASK == 0:
            return n, _LEFT_MASK, visited
        if bits & EXCLUDED != 0:
            return n, _ENTERED_EXCLUDE, visited
        visited |= bits
        points[n, 0], points[n, 1], points[n, 2] = x, y, z
        n += 1
        if rules.stop_at_includes and visited & regions.needed == regions.needed:
            return n, _ALL_INCLUDED, visited
        # Both halves count, and the test comes after a vertex: the second always adds one.
        if n >= rules.max_vertices:
            return n, _MAX_LENGTH, visited


@device_function
def _reverse(points, n):
    for i in range(n // 2):
        j = n - 1 - i
        for axis in range(3):
            points[i, axis], points[j, axis] = points[j, axis], points[i, axis]


@device_function
def pull_back(field, rules, work, points, seed_vertex, start, cotangent, to_table):
    """Pass derivatives by all vertices of a streamline on to its seed and to the table.

    Backwards through each half from its end, with what has gathered so far: the discrete adjoint
    of the steps, which needs nothing but the vertices.

    Returns
    -------
    x, y, z, bounded
        The derivative by the seed, and how often a curvature had to be bounded.
    """
    real = work.tensor.dtype.type
    last = points.shape[0] - 1
    flip = real(1.0) if rules.one_way else real(-1.0)
    seed = points[seed_vertex]
    _, dx, dy, dz = heading(
        field, rules, work, seed[0], seed[1], seed[2], start[0], start[1], start[2]
    )
    c = cotangent[seed_vertex]
    ax, ay, az, n = _pull_back_half(
        field, rules, work, points, seed_vertex, -1, seed_vertex, (dx, dy, dz), cotangent, to_table
    )
    bx, by, bz, m = _pull_back_half(
        field,
        rules,
        work,
        points,
        seed_vertex,
        1,
        last - seed_vertex,
        (flip * dx, flip * dy, flip * dz),
        cotangent,
        to_table,
    )
    return c[0] + ax + bx, c[1] + ay + by, c[2] + az + bz, n + m


@device_function
def _pull_back_half(
    field, rules, work, points, seed_vertex, sign, steps, first, cotangent, to_table
):
    real = work.tensor.dtype.type
    lx, ly, lz = real(0.0), real(0.0), real(0.0)
    bounded, entered = 0, real(0.0)
    for step in range(steps, 0, -1):
        there = seed_vertex + sign * step
        here = there - sign
        cx, cy, cz = cotangent[there, 0], cotangent[there, 1], cotangent[there, 2]
        entered += math.sqrt(cx * cx + cy * cy + cz * cz)
        lx, ly, lz = lx + cx, ly + cy, lz + cz
        before = first
        if step > 1:
            ago = here - sign
            before = unit(
                work,
                points[here, 0] - points[ago, 0],
                points[here, 1] - points[ago, 1],
                points[here, 2] - points[ago, 2],
            )
        lx, ly, lz, n = pull_back_step(
            field,
            rules,
            work,
            (points[here, 0], points[here, 1], points[here, 2]),
            (points[there, 0], points[there, 1], points[there, 2]),
            before,
            (lx, ly, lz),
            to_table,
        )
        bounded += n
        scale = damping(rules, math.sqrt(lx * lx + ly * ly + lz * lz), entered)
        lx, ly, lz = scale * lx, scale * ly, scale * lz
    return lx, ly, lz, bounded


@device_function
def damping(rules, length, entered):
    """Say by what to multiply a derivative after a step back; 1 unless it is to fade or be held.

    Products of many Jacobians grow, and a few chaotic streamlines then outweigh all others.
    ``entered`` is the summed length of the derivatives by the vertices behind it.
    """
    most = rules.gradient_limit * entered
    scale = rules.gradient_kept
    return scale * most / length if length > most else scale


@device_function
def growth_of(x, y, z, cotangent):
    """Compare a derivative by a seed with those by the vertices that it came from."""
    total = cotangent.dtype.type(0.0)
    for i in range(cotangent.shape[0]):
        a, b, c = cotangent[i, 0], cotangent[i, 1], cotangent[i, 2]
        total += math.sqrt(a * a + b * b + c * c)
    return math.sqrt(x * x + y * y + z * z) / total if total > 0 else total
