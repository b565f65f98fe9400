"""Sums over the edges of a connectome, in the order in which streamlines come."""

from __future__ import annotations

import math

import numba
import numpy as np

from difftract_bids.core.kernels.target import host_kernel

SUM, MIN, MAX = 0, 1, 2


@numba.njit(error_model="numpy", nogil=True)
def _node_of(label, ranked, order):
    """Find the row of a label among ``ranked`` ones, -1 if there is none."""
    low, high = 0, len(ranked)
    while low < high:
        middle = (low + high) // 2
        if ranked[middle] < label:
            low = middle + 1
        else:
            high = middle
    return order[low] if low < len(ranked) and ranked[low] == label else -1


@numba.njit(error_model="numpy", nogil=True)
def _place(a, b, n_nodes):
    """Where an edge is in the upper triangle, stored row by row."""
    low, high = min(a, b), max(a, b)
    return low * n_nodes - low * (low - 1) // 2 + high - low


@numba.njit(error_model="numpy", nogil=True)
def _add_to_edge(place, value, weight, statistic, totals, counts, weights):
    counts[place] += 1
    if statistic == SUM:
        totals[place] += value * weight
        if len(weights):
            weights[place] += weight
    # What is not a number spoils its edge for good.
    elif math.isnan(value) or (
        value < totals[place] if statistic == MIN else value > totals[place]
    ):
        totals[place] = value


@host_kernel
def add_pairs(labels, values, factors, ranked, order, statistic, totals, counts, weights):
    """Add streamlines with two labels each; return how many lie between nodes.

    ``values`` and ``factors`` (the weights of streamlines) have one entry for each streamline, or
    a single one for all; ``weights`` is empty where nobody needs their sums.
    """
    n_nodes = len(ranked)
    n_assigned = 0
    for s in range(len(labels)):
        a = _node_of(labels[s, 0], ranked, order)
        b = _node_of(labels[s, 1], ranked, order)
        if a < 0 or b < 0:
            continue
        n_assigned += 1
        value, factor = values[s % len(values)], factors[s % len(factors)]
        _add_to_edge(_place(a, b, n_nodes), value, factor, statistic, totals, counts, weights)
    return n_assigned


@host_kernel
def add_lists(
    flat, offsets, values, factors, ranked, order, statistic, totals, counts, weights, nodes
):
    """Add streamlines with any number of labels: to every pair of two or more, and to each itself.

    As `add_pairs`; ``nodes`` is scratch, as long as the longest list.
    """
    n_nodes = len(ranked)
    n_assigned = 0
    for s in range(len(offsets) - 1):
        n = 0
        for at in range(offsets[s], offsets[s + 1]):
            node = _node_of(flat[at], ranked, order)
            if node >= 0:
                nodes[n] = node
                n += 1
        if n < 2:
            continue
        n_assigned += 1
        value, factor = values[s % len(values)], factors[s % len(factors)]
        for first in range(n):
            for second in range(first, n):
                place = _place(nodes[first], nodes[second], n_nodes)
                _add_to_edge(place, value, factor, statistic, totals, counts, weights)
    return n_assigned


@host_kernel
def to_square(triangle, square):
    """Write the upper triangle, row by row, into both halves of a matrix."""
    n = len(square)
    at = 0
    for i in range(n):
        for j in range(i, n):
            square[i, j] = np.float64(triangle[at])
            square[j, i] = np.float64(triangle[at])
            at += 1
