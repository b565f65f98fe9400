"""Streamlines to fixels: straight segments cut at the faces of voxels.

See `difftract_bids.core.sift2.mapping` for what is done.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from difftract_bids.core.kernels.target import device_function, host_kernel


class FixelArrays(NamedTuple):
    """Where fixels are, as kernels read it.

    Attributes
    ----------
    first, n_fixels
        Number of each voxel's first fixel, and how many it has (x, y, z).
    row
        Row of the table where a voxel has several fixels (x, y, z).
    table
        Which of a voxel's fixels each axis belongs to (row, axis).
    axes, neighbours, nearest
        See `difftract_bids.core.sift2.sphere.Sphere`.
    ras2vox, directions
        Scanner millimetres to voxels (3, 4), and steps in voxels to steps in millimetres (3, 3).
    """

    first: np.ndarray
    n_fixels: np.ndarray
    row: np.ndarray
    table: np.ndarray
    axes: np.ndarray
    neighbours: np.ndarray
    nearest: np.ndarray
    ras2vox: np.ndarray
    directions: np.ndarray


@device_function
def _voxel(fixels, point, axis):
    """Coordinate of a point along one axis of the grid, voxels."""
    m = fixels.ras2vox
    return m[axis, 0] * point[0] + m[axis, 1] * point[1] + m[axis, 2] * point[2] + m[axis, 3]


@device_function
def _place(fixels, coordinate, axis):
    """Voxel of a coordinate; what lies on a face belongs to the next.

    All that is outside the grid is in one voxel on each side of it: faces there do not matter.
    """
    return math.floor(min(max(coordinate + 0.5, -1.0), float(fixels.first.shape[axis])))


@host_kernel
def count_visits(first, last, fixels, points, offsets, n_visits):
    """Count the voxels that each streamline passes, one again where it comes back.

    A few more are counted: what is reckoned here in one order may be reckoned in another there.
    """
    for s in range(first, last):
        visits = 4
        for axis in range(3):
            for p in range(offsets[s] + 1, offsets[s + 1]):
                here = _place(fixels, _voxel(fixels, points[p], axis), axis)
                before = _place(fixels, _voxel(fixels, points[p - 1], axis), axis)
                visits += abs(here - before)
        n_visits[s] = visits


@device_function
def nearest_axis(fixels, x, y, z):
    """Find the axis nearest to a direction, by walking from one that is near."""
    cells = fixels.nearest.shape[1]
    ax, ay, az = abs(x), abs(y), abs(z)
    face, along, one, other = 2, z, x, y
    if ax >= ay and ax >= az:
        face, along, one, other = 0, x, y, z
    elif ay >= az:
        face, along, one, other = 1, y, z, x
    i = min(int((one / along + 1) * 0.5 * cells), cells - 1)
    j = min(int((other / along + 1) * 0.5 * cells), cells - 1)
    best = fixels.nearest[face, i, j]
    axes = fixels.axes
    likeness = abs(axes[best, 0] * x + axes[best, 1] * y + axes[best, 2] * z)
    climbs = True
    while climbs:
        climbs = False
        middle = best
        for k in range(fixels.neighbours.shape[1]):
            beside = fixels.neighbours[middle, k]
            if beside >= 0:
                dot = abs(axes[beside, 0] * x + axes[beside, 1] * y + axes[beside, 2] * z)
                if dot > likeness:
                    likeness, best, climbs = dot, beside, True
    return best


@device_function
def _fixel_of(fixels, place, way):
    """Fixel of a way (voxels) through a voxel; -1 where there is none."""
    for axis in range(3):
        if place[axis] < 0 or place[axis] >= fixels.first.shape[axis]:
            return -1
    i, j, k = place[0], place[1], place[2]
    if fixels.n_fixels[i, j, k] == 0 or (way[0] == 0 and way[1] == 0 and way[2] == 0):
        return -1
    first = fixels.first[i, j, k]
    if fixels.n_fixels[i, j, k] == 1:
        return first
    m = fixels.directions
    x = m[0, 0] * way[0] + m[0, 1] * way[1] + m[0, 2] * way[2]
    y = m[1, 0] * way[0] + m[1, 1] * way[1] + m[1, 2] * way[2]
    z = m[2, 0] * way[0] + m[2, 1] * way[1] + m[2, 2] * way[2]
    return first + fixels.table[fixels.row[i, j, k], nearest_axis(fixels, x, y, z)]


@device_function
def _add(fixel_of, length_of, begin, end, limit, fixel, length):
    """Add a length to a fixel of a streamline, if there is room; where its list ends."""
    if fixel < 0 or not length > 0:
        return end
    for i in range(end - 1, begin - 1, -1):
        if fixel_of[i] == fixel:
            length_of[i] += length
            return end
    if end == limit:
        return end
    fixel_of[end] = fixel
    length_of[end] = length
    return end + 1


class MappingWorkspace(NamedTuple):
    """Memory of one thread, vectors of three."""

    place: np.ndarray
    left: np.ndarray
    here: np.ndarray
    step: np.ndarray
    entry: np.ndarray
    way: np.ndarray


def mapping_workspace() -> MappingWorkspace:
    """Make the memory of one thread."""
    whole = [np.zeros(3, np.int64) for _ in range(2)]
    return MappingWorkspace(*whole, *(np.zeros(3) for _ in range(4)))


@device_function
def _start(fixels, point, work):
    """Put a streamline to its first vertex."""
    for axis in range(3):
        work.here[axis] = work.entry[axis] = _voxel(fixels, point, axis)
        work.place[axis] = _place(fixels, work.here[axis], axis)


@device_function
def _look_ahead(fixels, before, point, work):
    """Work out the step to a vertex, and the faces to be crossed on the way; its millimetres."""
    squared = 0.0
    for axis in range(3):
        there = _voxel(fixels, point, axis)
        work.step[axis] = there - work.here[axis]
        work.left[axis] = _place(fixels, there, axis) - work.place[axis]
        squared += (float(point[axis]) - float(before[axis])) ** 2
    return math.sqrt(squared)


@device_function
def _next_face(work):
    """Find the face that is crossed next: its axis, and at which share of the step."""
    crossed, at = -1, 2.0
    for axis in range(3):
        if work.left[axis] != 0:
            side = 0.5 if work.left[axis] > 0 else -0.5
            share = (work.place[axis] + side - work.here[axis]) / work.step[axis]
            if crossed < 0 or share < at:
                crossed, at = axis, share
    return crossed, at


@device_function
def _leave(fixels, work, at):
    """Leave a voxel at a share of the step; the fixel of the way through it."""
    for axis in range(3):
        leaves = work.here[axis] + at * work.step[axis]
        work.way[axis] = leaves - work.entry[axis]
        work.entry[axis] = leaves
    return _fixel_of(fixels, work.place, work.way)


@host_kernel
def map_to_fixels(first, last, fixels, points, offsets, room, work, fixel_of, length_of, n_found):
    """List the fixels that each streamline runs through, and how far, millimetres.

    Parameters
    ----------
    first, last
        Streamlines that are worked on.
    fixels
        See `FixelArrays`.
    points, offsets
        Streamlines, RAS+ millimetres.
    room
        Where the list of each streamline starts, and where the last ends: as many places as
        `count_visits` says.
    work
        See `MappingWorkspace`.
    fixel_of, length_of, n_found
        Filled with the lists, and with how long each is.

    Notes
    -----
    The direction in a voxel is that from where the streamline enters to where it leaves.
    """
    for s in range(first, last):
        begin, end, limit = room[s], room[s], room[s + 1]
        length = 0.0
        if offsets[s] < offsets[s + 1]:
            _start(fixels, points[offsets[s]], work)
        for p in range(offsets[s] + 1, offsets[s + 1]):
            mm = _look_ahead(fixels, points[p - 1], points[p], work)
            done = 0.0
            while work.left[0] != 0 or work.left[1] != 0 or work.left[2] != 0:
                crossed, at = _next_face(work)
                at = min(max(at, done), 1.0)
                length += (at - done) * mm
                fixel = _leave(fixels, work, at)
                end = _add(fixel_of, length_of, begin, end, limit, fixel, length)
                done, length = at, 0.0
                forth = 1 if work.left[crossed] > 0 else -1
                work.place[crossed] += forth
                work.left[crossed] -= forth
            length += (1.0 - done) * mm
            for axis in range(3):
                work.here[axis] += work.step[axis]
                work.step[axis] = 0.0
        if offsets[s] < offsets[s + 1]:
            fixel = _leave(fixels, work, 0.0)
            end = _add(fixel_of, length_of, begin, end, limit, fixel, length)
        n_found[s] = end - begin
