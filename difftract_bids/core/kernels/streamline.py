"""One streamline, from its seed both ways, and the derivative of all its vertices."""

from __future__ import annotations

import math

from difftract_bids.core.anatomy import LEFT_SEED, SEEDED_DEEP, SICK, Kind
from difftract_bids.core.kernels.contraction import matrix_of
from difftract_bids.core.kernels.lookup import look_up
from difftract_bids.core.kernels.peak import quadratic
from difftract_bids.core.kernels.step import advance, heading, pull_back_step, unit
from difftract_bids.core.kernels.target import device_function
from difftract_bids.core.kernels.tissue import judge_seed, kind_at
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
_OUTSIDE_IMAGE = int(StopReason.OUTSIDE_IMAGE)
_HIGH_CURVATURE = int(StopReason.HIGH_CURVATURE)
_ENTERED_CORTEX = int(StopReason.ENTERED_CORTEX)
_WITHIN_DEEP_GREY = int(StopReason.WITHIN_DEEP_GREY)
_LEFT_DEEP_GREY = int(StopReason.LEFT_DEEP_GREY)
_LEFT_TISSUE = int(StopReason.LEFT_TISSUE)
_ENTERED_FLUID = int(StopReason.ENTERED_FLUID)
_UNSUITABLE_TISSUE = int(SeedStatus.UNSUITABLE_TISSUE)
_ENDED_IN_FLUID = int(SeedStatus.ENDED_IN_FLUID)
_ENDED_IN_WHITE_MATTER = int(SeedStatus.ENDED_IN_WHITE_MATTER)
_TOO_LONG = int(SeedStatus.TOO_LONG)
_STAYED_IN_DEEP_GREY = int(SeedStatus.STAYED_IN_DEEP_GREY)
_NOWHERE, _FLUID, _CORTEX, _DEEP = map(int, (Kind.NOWHERE, Kind.FLUID, Kind.CORTEX, Kind.DEEP))


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
def trace(field, regions, tissues, rules, work, seed, start, points):  # noqa: C901 - tests in MRtrix's order
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
    one_way, known = rules.one_way, 0
    if len(tissues.obeyed) > 0:
        suitable, known, at_border, ux, uy, uz = judge_seed(tissues, work, x, y, z, dx, dy, dz)
        if not suitable:
            return _UNSUITABLE_TISSUE, 0, 0, 0, 0
        if at_border and not one_way:
            one_way, dx, dy, dz = True, ux, uy, uz
    if why != 0:
        return why, 0, 0, 0, 0
    points[0, 0], points[0, 1], points[0, 2] = x, y, z
    n, first, visited, known = _half(
        *(field, regions, tissues, rules, work, points, 1),
        *(x, y, z, dx, dy, dz, visited, known),
    )
    status = _rejection(tissues, first, known)
    seed_vertex, last = 0, first
    if not one_way and status == _KEPT:
        _reverse(points, n)
        seed_vertex = n - 1
        n, last, visited, known = _half(
            *(field, regions, tissues, rules, work, points, n),
            *(x, y, z, -dx, -dy, -dz, visited, known),
        )
        status = _rejection(tissues, last, known)
    if status != _KEPT:
        return status, 0, 0, 0, 0
    if n == 1 and rules.min_vertices > 1:
        return _SINGLE_VERTEX, 0, 0, 0, 0
    if n < rules.min_vertices:
        return _TOO_SHORT, 0, 0, 0, 0
    if known & SEEDED_DEEP != 0 and known & LEFT_SEED == 0:
        return _STAYED_IN_DEEP_GREY, 0, 0, 0, 0
    if visited & regions.needed != regions.needed:
        return _MISSED_INCLUDE, 0, 0, 0, 0
    return _KEPT, n, seed_vertex, 0 if one_way else first, last


@device_function
def _rejection(tissues, why, known):
    """Say for which `SeedStatus` a streamline is rejected that has an end for some reason."""
    if why == _ENTERED_EXCLUDE:
        return _EXCLUDED
    if len(tissues.obeyed) > 0:
        if why == _ENTERED_FLUID:
            return _ENDED_IN_FLUID
        if why == _MAX_LENGTH:
            return _TOO_LONG
        # The peak or the angle, where nothing explains it.
        if _OUTSIDE_IMAGE < why <= _HIGH_CURVATURE and known & SICK == 0:
            return _ENDED_IN_WHITE_MATTER
    return _KEPT


@device_function
def _half(  # noqa: C901 - the same
    field, regions, tissues, rules, work, points, n, x, y, z, dx, dy, dz, visited, known
):
    """Add vertices after the first ``n``.

    Returns
    -------
    n, reason, visited, known
        The number of vertices, the `StopReason`, the regions visited, the bits to be remembered.
    """
    depth = 0  # vertices in deep grey matter
    while True:
        why, x, y, z, dx, dy, dz = advance(field, rules, work, x, y, z, dx, dy, dz)
        if why != 0:
            return n, why if depth == 0 else _WITHIN_DEEP_GREY, visited, known
        if len(tissues.obeyed) > 0:
            why, depth, known = _meet(tissues, x, y, z, depth, known)
            if why == _ENTERED_CORTEX:
                points[n, 0], points[n, 1], points[n, 2] = x, y, z
                n += 1
            elif why == _LEFT_DEEP_GREY:
                n = _cut_back(field, work, points, n, depth)
            if why != 0:
                return n, why, visited, known
        bits = bits_at(regions, x, y, z)
        if bits & IN_MASK == 0:
            return n, _LEFT_MASK, visited, known
        if bits & EXCLUDED != 0:
            return n, _ENTERED_EXCLUDE, visited, known
        visited |= bits
        points[n, 0], points[n, 1], points[n, 2] = x, y, z
        n += 1
        if rules.stop_at_includes and visited & regions.needed == regions.needed:
            return n, _ALL_INCLUDED, visited, known
        # Both halves count, and the test comes after a vertex: the second always adds one.
        if n >= rules.max_vertices:
            return n, _MAX_LENGTH, visited, known


@device_function
def _meet(tissues, x, y, z, depth, known):
    """Say why a streamline ends where its next vertex would be (0: it goes on), and take note.

    Returns
    -------
    reason, depth, known
        The `StopReason`, the vertices in deep grey matter, the bits to be remembered.
    """
    kind, sick = kind_at(tissues, x, y, z)
    known = (known & (SEEDED_DEEP | LEFT_SEED)) | sick
    if kind == _NOWHERE:
        return _LEFT_TISSUE, depth, known
    if kind == _CORTEX:
        return _ENTERED_CORTEX, depth, known
    if kind == _DEEP:
        return 0, depth + 1, known
    if depth == 0:
        return _ENTERED_FLUID if kind == _FLUID else 0, depth, known
    if kind == _FLUID or known & SEEDED_DEEP == 0 or known & LEFT_SEED != 0:
        return _LEFT_DEEP_GREY, depth, known
    return 0, 0, known | LEFT_SEED


@device_function
def _cut_back(field, work, points, n, depth):
    """Count the vertices up to the one, of the last ``depth``, where the fODF is least."""
    best, least = n - 1, work.tensor.dtype.type(math.inf)
    for i in range(n - depth, n):
        a, b = points[i - 1], points[i]
        x, y, z = unit(work, b[0] - a[0], b[1] - a[1], b[2] - a[2])
        look_up(field, work, b[0], b[1], b[2])
        amplitude = quadratic(matrix_of(work.tensor, x, y, z, field.order), x, y, z)
        if amplitude < least:
            best, least = i, amplitude
    return best + 1


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
    seed = points[seed_vertex]
    _, dx, dy, dz = heading(
        field, rules, work, seed[0], seed[1], seed[2], start[0], start[1], start[2]
    )
    # Which sense of the peak was followed: tissue may have turned it.
    flip = real(-1.0)
    if last > seed_vertex:
        there = points[seed_vertex + 1]
        along = (there[0] - seed[0]) * dx + (there[1] - seed[1]) * dy + (there[2] - seed[2]) * dz
        flip = real(1.0) if along > real(0.0) else flip
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
