"""Which labels streamlines come to: the searches of `core.connectome.assignment`, compiled.

Sums are made in the order and width of MRtrix3 3.0.3, vertices in their own type and all else in
float64, without reordering or fused operations: where two voxels are equally near, or an end lies
between two, the same one wins.

``where`` is a parcellation: its labels in a row, their layout (voxels along three axes, how far
apart neighbours along each are, where the first voxel is), and affines (3, 4) from voxels to
millimetres and back.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

#: Half the opening of the cone in which a search goes forwards, radians (45 degrees).
_HALF_OPENING = math.pi / 4
#: A voxel that is in no image: where positions are that no image reaches.
_NOWHERE = -(1 << 30)
#: The half diagonal bounds distances up to rounding only.
_SLACK_MM = 1e-6

#: No array is made inside, so none needs counting: the counting took three quarters of the time.
_OPTIONS: dict[str, Any] = {"error_model": "numpy", "nogil": True, "_nrt": False}


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile with exact arithmetic, and keep the result on disk where that is possible."""
    try:
        return numba.njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # there is nowhere to write to: a read-only container, no home
        return numba.njit(**_OPTIONS)(function)


@numba.njit(**_OPTIONS)
def _row(affine, axis, x, y, z):
    return affine[axis, 0] * x + affine[axis, 1] * y + affine[axis, 2] * z + affine[axis, 3]


@numba.njit(**_OPTIONS)
def _length(x, y, z):
    return math.sqrt((x * x + y * y) + z * z)


@numba.njit(**_OPTIONS)
def _whole(v):
    """Round, halves away from zero as C does."""
    if not abs(v) < 1e9:
        return _NOWHERE
    whole = int(v)  # towards zero; what is cut off is exact
    rest = v - whole
    if rest >= 0.5:
        return whole + 1
    return whole - 1 if rest <= -0.5 else whole


@numba.njit(**_OPTIONS)
def _whole_inside(v, size):
    """Round as `_whole` does; -1 outside."""
    if not -0.5 < v < size:
        return -1
    whole = int(v)
    if v - whole >= 0.5:
        whole += 1
    return whole if whole < size else -1


@numba.njit(**_OPTIONS)
def _voxel_of(where, x, y, z):
    ras2vox = where[3]
    i = _whole(_row(ras2vox, 0, x, y, z))
    j = _whole(_row(ras2vox, 1, x, y, z))
    k = _whole(_row(ras2vox, 2, x, y, z))
    return i, j, k


@numba.njit(**_OPTIONS)
def _inside(where, i, j, k):
    layout = where[1]
    return 0 <= i < layout[0] and 0 <= j < layout[1] and 0 <= k < layout[2]


@numba.njit(**_OPTIONS)
def _label(where, i, j, k):
    image, layout = where[0], where[1]
    return np.int64(image[layout[6] + i * layout[3] + j * layout[4] + k * layout[5]])


@numba.njit(**_OPTIONS)
def _label_of_vertex(points, at, where):
    layout, ras2vox = where[1], where[3]
    x, y, z = np.float64(points[at, 0]), np.float64(points[at, 1]), np.float64(points[at, 2])
    i = _whole_inside(_row(ras2vox, 0, x, y, z), layout[0])
    j = _whole_inside(_row(ras2vox, 1, x, y, z), layout[1])
    k = _whole_inside(_row(ras2vox, 2, x, y, z), layout[2])
    return 0 if min(i, j, k) < 0 else _label(where, i, j, k)


@_compiled
def end_voxels(first, last, ends, where, labels):
    """Look up the voxel of each end."""
    for end in range(first, last):
        labels[end] = _label_of_vertex(ends, end, where)


@_compiled
def radial_search(first, last, ends, where, offsets, reach_mm, half_mm, radius_mm, labels):
    """Find the nearest labelled centre, voxel offsets being given in the order of ``reach_mm``."""
    vox2ras = where[2]
    for end in range(first, last):
        x, y, z = ends[end, 0], ends[end, 1], ends[end, 2]
        ci, cj, ck = _voxel_of(where, x, y, z)
        nearest = radius_mm
        label = 0
        for n in range(len(reach_mm)):
            # Centres further down the list cannot be nearer than what has been found.
            if reach_mm[n] > nearest + half_mm + _SLACK_MM:
                break
            i, j, k = ci + offsets[n, 0], cj + offsets[n, 1], ck + offsets[n, 2]
            if not _inside(where, i, j, k) or _label(where, i, j, k) == 0:
                continue
            distance = _length(
                x - _row(vox2ras, 0, i, j, k),
                y - _row(vox2ras, 1, i, j, k),
                z - _row(vox2ras, 2, i, j, k),
            )
            if distance < nearest:
                nearest = distance
                label = _label(where, i, j, k)
        labels[end] = label


@_compiled
def reverse_search(first, last, points, offsets, where, limit_mm, labels):
    """Go inwards from each end to the first labelled vertex, at most to the middle."""
    for s in range(first, last):
        start, stop = offsets[s], offsets[s + 1]
        n = stop - start
        labels[s, 0] = _inwards(points, start, 1, (n + 1) // 2, where, limit_mm, n > 1)
        labels[s, 1] = _inwards(points, stop - 1, -1, n - 1 - n // 2, where, limit_mm, n > 1)


@numba.njit(**_OPTIONS)
def _inwards(points, start, step, n_vertices, where, limit_mm, has_step):
    travelled = 0.0
    for n in range(n_vertices):
        at = start + n * step
        label = _label_of_vertex(points, at, where)
        if label != 0:
            return label
        if limit_mm > 0 and has_step:
            x = points[at, 0] - points[at + step, 0]
            y = points[at, 1] - points[at + step, 1]
            z = points[at, 2] - points[at + step, 2]
            travelled += math.sqrt(x * x + (y * y + z * z))  # in the width of the vertices
            if travelled > limit_mm:
                break
    return 0


@_compiled
def forward_search(first, last, points, offsets, where, box, limit_mm, seen, costs, queue, labels):
    """Go outwards from each end, in a cone about its tangent, to the cheapest labelled voxel.

    ``seen``, ``costs`` and ``queue`` are scratch, one entry for each voxel of a ``box``; entries
    of ``seen`` are the number of the last end that saw the voxel.
    """
    for s in range(first, last):
        start, stop = offsets[s], offsets[s + 1]
        for side in range(2):
            labels[s, side] = 0
            if stop > start:
                at, step = (start, 1) if side == 0 else (stop - 1, -1)
                ray = _ray(points, at, step, stop - start)
                labels[s, side] = _outwards(
                    ray, 2 * s + side, where, box, limit_mm, seen, costs, queue
                )


@numba.njit(**_OPTIONS)
def _ray(points, at, step, n_vertices):
    """Find an end and its heading: the last step, turned once more, as a unit vector or 0."""
    x, y, z = np.float64(points[at, 0]), np.float64(points[at, 1]), np.float64(points[at, 2])
    if n_vertices < 2:
        return x, y, z, 0.0, 0.0, 0.0
    tx = np.float64(points[at, 0] - points[at + step, 0])
    ty = np.float64(points[at, 1] - points[at + step, 1])
    tz = np.float64(points[at, 2] - points[at + step, 2])
    if n_vertices > 2:
        bx = np.float64(points[at + step, 0] - points[at + 2 * step, 0])
        by = np.float64(points[at + step, 1] - points[at + 2 * step, 1])
        bz = np.float64(points[at + step, 2] - points[at + 2 * step, 2])
        ratio = _length(tx, ty, tz) / _length(bx, by, bz)
        tx += tx - bx * ratio
        ty += ty - by * ratio
        tz += tz - bz * ratio
    length = _length(tx, ty, tz)
    if length > 0:
        tx, ty, tz = tx / length, ty / length, tz / length
    return x, y, z, tx, ty, tz


@numba.njit(**_OPTIONS)
def _outwards(ray, number, where, box, limit_mm, seen, costs, queue):
    i, j, k = _voxel_of(where, ray[0], ray[1], ray[2])
    if not _inside(where, i, j, k):
        return 0
    layout, vox2ras = where[1], where[2]
    # The box lies about the end, moved into the image.
    oi = max(0, min(i - box[0] // 2, layout[0] - box[0]))
    oj = max(0, min(j - box[1] // 2, layout[1] - box[1]))
    ok = max(0, min(k - box[2] // 2, layout[2] - box[2]))
    costs[0] = 0.0
    queue[0] = ((i - oi) * box[1] + j - oj) * box[2] + k - ok
    seen[queue[0]] = number
    n_waiting = 1
    while n_waiting:
        flat, n_waiting = _take_cheapest(costs, queue, n_waiting)
        i = oi + flat // (box[1] * box[2])
        j = oj + flat // box[2] % box[1]
        k = ok + flat % box[2]
        label = _label(where, i, j, k)
        if label != 0:
            return label
        for dk in range(-1, 2):
            for dj in range(-1, 2):
                for di in range(-1, 2):
                    bi, bj, bk = i + di - oi, j + dj - oj, k + dk - ok
                    if not (0 <= bi < box[0] and 0 <= bj < box[1] and 0 <= bk < box[2]):
                        continue
                    flat = (bi * box[1] + bj) * box[2] + bk
                    if seen[flat] == number:
                        continue
                    seen[flat] = number
                    cost = _cost(ray, vox2ras, i + di, j + dj, k + dk, limit_mm)
                    if math.isfinite(cost):
                        n_waiting = _wait(cost, flat, costs, queue, n_waiting)
    return 0


@numba.njit(**_OPTIONS)
def _cost(ray, vox2ras, i, j, k, limit_mm):
    """Distance in mm times 1 straight ahead, rising to 2 at the edge of the cone; else NaN."""
    x = _row(vox2ras, 0, i, j, k) - ray[0]
    y = _row(vox2ras, 1, i, j, k) - ray[1]
    z = _row(vox2ras, 2, i, j, k) - ray[2]
    distance = _length(x, y, z)
    if not distance > 0:
        return np.nan
    cosine = ray[3] * (x / distance) + ray[4] * (y / distance) + ray[5] * (z / distance)
    angle = math.acos(cosine) if abs(cosine) <= 1 else np.nan
    cost = distance * (1.0 + angle / _HALF_OPENING)
    if angle <= _HALF_OPENING and cost <= limit_mm:
        return np.float64(np.float32(cost))
    return np.nan


@numba.njit(**_OPTIONS)
def _take_cheapest(costs, queue, n_waiting):
    best = 0
    for n in range(1, n_waiting):
        if costs[n] < costs[best]:
            best = n
    flat = queue[best]
    n_waiting -= 1
    costs[best], queue[best] = costs[n_waiting], queue[n_waiting]
    return flat, n_waiting


@numba.njit(**_OPTIONS)
def _wait(cost, flat, costs, queue, n_waiting):
    # MRtrix keeps one voxel of each cost: the first that came.
    for n in range(n_waiting):
        if costs[n] == cost:
            return n_waiting
    costs[n_waiting], queue[n_waiting] = cost, flat
    return n_waiting + 1


@_compiled
def visit(first, last, points, offsets, where, labels, n_labels):
    """Collect the distinct labels of each streamline, ascending, from its place in ``labels``."""
    for s in range(first, last):
        start = offsets[s]
        n = 0
        before = 0
        for at in range(start, offsets[s + 1]):
            label = _label_of_vertex(points, at, where)
            if label in (before, 0):
                continue
            before = label
            place = start + n
            while place > start and labels[place - 1] >= label:
                place -= 1
            if place < start + n and labels[place] == label:
                continue
            for other in range(start + n, place, -1):
                labels[other] = labels[other - 1]
            labels[place] = label
            n += 1
        n_labels[s] = n


@_compiled
def lengths(first, last, points, offsets, found):
    """Sum the segments of each streamline in the type of ``points`` and ``found``."""
    for s in range(first, last):
        found[s] = 0
        for at in range(offsets[s] + 1, offsets[s + 1]):
            x = points[at, 0] - points[at - 1, 0]
            y = points[at, 1] - points[at - 1, 1]
            z = points[at, 2] - points[at - 1, 2]
            found[s] += math.sqrt(x * x + (y * y + z * z))
