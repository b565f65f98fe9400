"""Derivatives of many sums over streamlines, each by the few fODFs that it depends on.

An edge of a connectome is such a sum. Its derivative by the whole image is zero almost everywhere:
what is not is picked out, and a thread's table is used again for its next sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from difftract_bids.core.kernels.amplitude import pull_back_amplitudes
from difftract_bids.core.kernels.cpu import array_of, fields_of, workspace
from difftract_bids.core.kernels.job import Job
from difftract_bids.core.kernels.streamline import pull_back
from difftract_bids.core.kernels.target import host_kernel, source_digest
from difftract_bids.core.kernels.threads import Span, first_come, share


class SparseRows(NamedTuple):
    """Rows of a table that are not zero.

    Attributes
    ----------
    row
        Which they are, ascending.
    value
        What they hold.
    """

    row: Int[np.ndarray, " n"]
    value: Float[np.ndarray, "n width"]


def pull_back_groups(
    job: Job,
    table: Float[Tensor, "row width"],
    points: Float[Tensor, "p 3"],
    offsets: Int[Tensor, " n+1"],
    seed_vertex: Int[Tensor, " n"],
    starts: Float[Tensor, "n 3"],
    members: Int[Tensor, " m"],
    cotangents: Float[Tensor, "m 2 3"],
    shares: Float[Tensor, " m"],
    survival: Float[Tensor, " p"],
    groups: Int[Tensor, " group+1"],
) -> list[SparseRows]:
    """Pass derivatives by streamlines on to the fODFs, a sum for each group.

    Parameters
    ----------
    job, table, points, offsets, seed_vertex, starts
        As for `difftract_bids.core.kernels.job.Backend.pull_back`.
    members
        Streamlines of all groups, one group after the other; a streamline may be in many.
    cotangents
        Derivatives of the group's sum by the first and the last vertex of each member.
    shares
        Derivatives of the group's sum by the logarithm of each member's weight.
    survival
        Derivatives of that logarithm by the amplitude at each vertex; 0 at both ends.
    groups
        Group ``i`` is ``members[groups[i]:groups[i + 1]]``.

    Returns
    -------
    list
        Derivatives of each group's sum.
    """
    field, rules = fields_of(job, table), job.kernel_rules(table.dtype)
    along = (points, offsets, seed_vertex, starts)
    given = [array_of(x) for x in (*along, members, cotangents, shares, survival)]
    bounds = array_of(groups)
    n_groups, longest = len(bounds) - 1, int(np.diff(given[1]).max(initial=1))
    result: list[SparseRows | None] = [None] * n_groups
    kernels = _kernels()

    def work_on(spans: Iterable[Span]) -> None:
        work, to_table = workspace(field), np.zeros_like(field.table)
        scratch = np.zeros((longest, 4), field.table.dtype)
        found = np.empty(len(to_table), np.int64)
        for group, _ in spans:
            kernels.add(
                field, rules, work, *given, bounds[group], bounds[group + 1], scratch, to_table
            )
            rows = found[: kernels.find(to_table, found)].copy()
            result[group] = SparseRows(rows, to_table[rows])
            to_table[rows] = 0

    share(work_on, first_come(n_groups, 1))
    return [rows for rows in result if rows is not None]


class _Kernels(NamedTuple):
    add: Callable[..., None]
    find: Callable[..., int]


@cache
def _kernels() -> _Kernels:
    return _made_of(source_digest())


def _made_of(digest: str) -> _Kernels:  # noqa: C901 - two kernels, and their loops
    """Compile; the digest makes a kernel's name in the cache on disk."""

    @host_kernel
    def add(
        field,
        rules,
        work,
        points,
        offsets,
        seed_vertex,
        starts,
        members,
        cotangents,
        shares,
        survival,
        at,
        end,
        scratch,
        to_table,
    ):
        _ = digest
        for member in range(at, end):
            i = members[member]
            first, beyond = offsets[i], offsets[i + 1]
            n = beyond - first
            mine = points[first:beyond]
            to_points, by_amplitude = scratch[:n, :3], scratch[:n, 3]
            for k in range(n):
                by_amplitude[k] = shares[member] * survival[first + k]
            pull_back_amplitudes(field, rules, work, mine, by_amplitude, to_points, to_table)
            for axis in range(3):
                to_points[0, axis] += cotangents[member, 0, axis]
                to_points[n - 1, axis] += cotangents[member, 1, axis]
            pull_back(field, rules, work, mine, seed_vertex[i], starts[i], to_points, to_table)
            for k in range(n):
                for column in range(4):
                    scratch[k, column] = 0

    @host_kernel
    def find(to_table, found):
        _ = digest
        n = 0
        for row in range(to_table.shape[0]):
            for column in range(to_table.shape[1]):
                if to_table[row, column] != 0:
                    found[n] = row
                    n += 1
                    break
        return n

    return _Kernels(add, find)
