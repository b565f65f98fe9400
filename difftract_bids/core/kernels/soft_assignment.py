"""Soft assignment of the ends of one streamline to nodes, and its derivatives.

See `difftract_bids.core.connectome.soft` for the formula. Whatever is needed backwards is found
again: it costs less than to keep it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Int32

from difftract_bids.core.kernels.target import device_function


class SoftArrays(NamedTuple):
    """What all ends share.

    Attributes
    ----------
    nodes
        Row of the connectome of each voxel, -1 where it has no label.
    vox2ras, ras2vox
        Affines between voxels and RAS+ millimetres, without their last rows.
    extent
        Of a ball of the radius along each axis of the voxels, in voxels.
    radius_mm
        Only centres strictly nearer than this count.
    sharpness
        1 / 2σ², 1/mm².
    """

    nodes: Int32[np.ndarray, "x y z"]
    vox2ras: Float[np.ndarray, "3 4"]
    ras2vox: Float[np.ndarray, "3 4"]
    extent: Float[np.ndarray, " 3"]
    radius_mm: float
    sharpness: float


class SoftWorkspace(NamedTuple):
    """Memory of one thread: of both ends, the voxels and the nodes that they reach.

    Attributes
    ----------
    sizes
        Number of voxels, number of nodes.
    place
        Which of the reached nodes a voxel belongs to.
    step
        From the end to the voxel's centre, and its square, millimetres.
    share
        Of the voxel in the sum over all.
    node
        Row of each reached node.
    probability, value, slope
        Of each reached node: soft; what is used (the same unless straight-through); and the
        derivative of the result by it.
    """

    sizes: Int[np.ndarray, "2 2"]
    place: Int[np.ndarray, "2 voxel"]
    step: Float[np.ndarray, "2 voxel 4"]
    share: Float[np.ndarray, "2 voxel"]
    node: Int[np.ndarray, "2 voxel"]
    probability: Float[np.ndarray, "2 voxel"]
    value: Float[np.ndarray, "2 voxel"]
    slope: Float[np.ndarray, "2 voxel"]


@device_function
def reach(shared, work, end, point):
    """Find what an end reaches: voxels, their nodes, and the probabilities of these."""
    x, y, z = point[0], point[1], point[2]
    to_ras, to_voxel, nodes = shared.vox2ras, shared.ras2vox, shared.nodes
    u = to_voxel[0, 0] * x + to_voxel[0, 1] * y + to_voxel[0, 2] * z + to_voxel[0, 3]
    v = to_voxel[1, 0] * x + to_voxel[1, 1] * y + to_voxel[1, 2] * z + to_voxel[1, 3]
    w = to_voxel[2, 0] * x + to_voxel[2, 1] * y + to_voxel[2, 2] * z + to_voxel[2, 3]
    work.sizes[end, 0] = work.sizes[end, 1] = 0
    last_i, last_j, last_k = nodes.shape[0] - 1.0, nodes.shape[1] - 1.0, nodes.shape[2] - 1.0
    # Real numbers are held to the image before they become whole ones: an end may be far away.
    low_i, high_i = max(u - shared.extent[0], 0.0), min(u + shared.extent[0], last_i)
    low_j, high_j = max(v - shared.extent[1], 0.0), min(v + shared.extent[1], last_j)
    if low_i > high_i or low_j > high_j or w + shared.extent[2] < 0.0:
        return
    if w - shared.extent[2] > last_k:
        return
    bx, by, bz = to_ras[0, 2], to_ras[1, 2], to_ras[2, 2]
    per_squared = 1.0 / (bx * bx + by * by + bz * bz)
    radius2 = shared.radius_mm**2
    nearest = math.inf
    for i in range(math.ceil(low_i), math.floor(high_i) + 1):
        for j in range(math.ceil(low_j), math.floor(high_j) + 1):
            px = to_ras[0, 0] * i + to_ras[0, 1] * j + to_ras[0, 3] - x
            py = to_ras[1, 0] * i + to_ras[1, 1] * j + to_ras[1, 3] - y
            pz = to_ras[2, 0] * i + to_ras[2, 1] * j + to_ras[2, 3] - z
            # Where this row of voxels enters the ball and leaves it, and a bit for rounding.
            middle = -(px * bx + py * by + pz * bz) * per_squared
            beyond = px * px + py * py + pz * pz - radius2
            rest = middle * middle - beyond * per_squared
            half = math.sqrt(max(rest, 0.0)) + 1e-6
            if rest < -1e-6:
                continue
            low_k, high_k = max(middle - half, 0.0), min(middle + half, last_k)
            if low_k > high_k:
                continue
            for k in range(math.ceil(low_k), math.floor(high_k) + 1):
                node = nodes[i, j, k]
                if node < 0:
                    continue
                dx, dy, dz = px + bx * k, py + by * k, pz + bz * k
                squared_mm = dx * dx + dy * dy + dz * dz
                if math.sqrt(squared_mm) < shared.radius_mm:
                    _note(work, end, node, dx, dy, dz, squared_mm)
                    nearest = min(nearest, squared_mm)
    _weigh(work, end, nearest, shared.sharpness)


@device_function
def _note(work, end, node, dx, dy, dz, squared_mm):
    """Take note of a voxel within reach."""
    at, n_nodes = work.sizes[end, 0], work.sizes[end, 1]
    step = work.step[end, at]
    step[0], step[1], step[2], step[3] = dx, dy, dz, squared_mm
    # The same node as the voxel before, most often; there are few others.
    place = work.place[end, at - 1] if at > 0 else 0
    if at == 0 or work.node[end, place] != node:
        place = 0
        while place < n_nodes and work.node[end, place] != node:
            place += 1
        if place == n_nodes:
            work.node[end, place] = node
            work.sizes[end, 1] = n_nodes + 1
    work.place[end, at] = place
    work.sizes[end, 0] = at + 1


@device_function
def _weigh(work, end, nearest, sharpness):
    """Find the shares of voxels and the probabilities of nodes."""
    n_voxels, n_nodes = work.sizes[end, 0], work.sizes[end, 1]
    probability = work.probability[end]
    for place in range(n_nodes):
        probability[place] = 0.0
    total = 0.0
    for at in range(n_voxels):
        # The nearest voxel counts 1 however small σ is.
        amount = math.exp((nearest - work.step[end, at, 3]) * sharpness)
        work.share[end, at] = amount
        probability[work.place[end, at]] += amount
        total += amount
    for at in range(n_voxels):
        work.share[end, at] /= total
    for place in range(n_nodes):
        probability[place] /= total
        work.value[end, place] = probability[place]


@device_function
def _harden(work, end, node):
    """Use 1 for the hard choice and 0 for the others."""
    for place in range(work.sizes[end, 1]):
        work.value[end, place] = 1.0 if work.node[end, place] == node else 0.0


@device_function
def pull_back_end(shared, work, end, to_end):
    """Pass the derivatives by an end's probabilities, in ``work.slope``, on to its position."""
    mean = 0.0
    for place in range(work.sizes[end, 1]):
        mean += work.slope[end, place] * work.probability[end, place]
    x = y = z = 0.0
    for at in range(work.sizes[end, 0]):
        step = work.step[end, at]
        amount = work.share[end, at] * (work.slope[end, work.place[end, at]] - mean)
        x += amount * step[0]
        y += amount * step[1]
        z += amount * step[2]
    scale = 2.0 * shared.sharpness
    to_end[0], to_end[1], to_end[2] = x * scale, y * scale, z * scale


@device_function
def add_streamline(shared, work, ends, weights, hard, upper):
    """Add a streamline to the edges between the nodes that it reaches.

    ``hard`` holds the nodes of both ends, or nothing if they are to be shared.
    """
    for side in range(2):
        if len(hard):
            work.sizes[side, 1] = hard[side] >= 0
            work.node[side, 0], work.value[side, 0] = hard[side], 1.0
        else:
            reach(shared, work, side, ends[side])
        if work.sizes[side, 1] == 0:
            return
    for a in range(work.sizes[0, 1]):
        for b in range(work.sizes[1, 1]):
            row, column = work.node[0, a], work.node[1, b]
            low, high = min(row, column), max(row, column)
            both = work.value[0, a] * work.value[1, b]
            for channel in range(len(weights)):
                upper[channel, low, high] += weights[channel] * both


@device_function
def pull_back_streamline(shared, work, ends, weights, hard, to_upper, to_ends, to_weights):
    """Pass the derivatives by edges on to a streamline's ends and weights."""
    for side in range(2):
        reach(shared, work, side, ends[side])
        if work.sizes[side, 1] == 0:
            return
        if len(hard):
            _harden(work, side, hard[side])
    _pull_back_edges(work, weights, to_upper, to_weights)
    pull_back_end(shared, work, 0, to_ends[0])
    pull_back_end(shared, work, 1, to_ends[1])


@device_function
def _pull_back_edges(work, weights, to_upper, to_weights):
    """Pass the derivatives by edges on to the weights and to both ends' probabilities."""
    for b in range(work.sizes[1, 1]):
        work.slope[1, b] = 0.0
    for a in range(work.sizes[0, 1]):
        total = 0.0
        for b in range(work.sizes[1, 1]):
            row, column = work.node[0, a], work.node[1, b]
            low, high = min(row, column), max(row, column)
            both = work.value[0, a] * work.value[1, b]
            slope = 0.0
            for channel in range(len(weights)):
                at_edge = to_upper[channel, low, high]
                to_weights[channel] += at_edge * both
                slope += at_edge * weights[channel]
            total += slope * work.value[1, b]
            work.slope[1, b] += slope * work.value[0, a]
        work.slope[0, a] = total


@device_function
def count_nodes(shared, work, ends, counts):
    """Count the nodes that the ends of streamlines reach."""
    for i in range(len(ends)):
        for side in range(2):
            reach(shared, work, side, ends[i, side])
            counts[i, side] = work.sizes[side, 1]


@device_function
def write_sorted(work, end, nodes, probability):
    """Write the reached nodes in ascending order."""
    for place in range(work.sizes[end, 1]):
        node, at = work.node[end, place], place
        while at > 0 and nodes[at - 1] > node:
            nodes[at], probability[at] = nodes[at - 1], probability[at - 1]
            at -= 1
        nodes[at], probability[at] = node, work.probability[end, place]


@device_function
def read_slopes(work, end, nodes, cotangent):
    """Read the derivatives by probabilities that `write_sorted` wrote."""
    for place in range(work.sizes[end, 1]):
        at = 0
        while nodes[at] != work.node[end, place]:
            at += 1
        work.slope[end, place] = cotangent[at]


def soft_workspace(shared: SoftArrays) -> SoftWorkspace:
    """Make the memory of one thread."""
    n = int(np.prod(2 * np.ceil(shared.extent) + 1))
    return SoftWorkspace(
        sizes=np.zeros((2, 2), np.int64),
        place=np.zeros((2, n), np.int64),
        step=np.zeros((2, n, 4)),
        share=np.zeros((2, n)),
        node=np.zeros((2, n), np.int64),
        probability=np.zeros((2, n)),
        value=np.zeros((2, n)),
        slope=np.zeros((2, n)),
    )
