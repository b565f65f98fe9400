"""The kernels on processors: seeds are shared out to threads, in small portions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from difftract_bids.core.kernels.amplitude import amplitudes_along, pull_back_amplitudes
from difftract_bids.core.kernels.contraction import (
    matrix_of,
    power_of,
    slope_of,
    unrolled_power,
    unrolled_slope,
)
from difftract_bids.core.kernels.job import (
    Job,
    PulledBack,
    field_arrays,
    region_arrays,
    tissue_arrays,
)
from difftract_bids.core.kernels.layout import FieldArrays, Workspace
from difftract_bids.core.kernels.streamline import growth_of, pull_back, trace
from difftract_bids.core.kernels.target import compile_as, host_kernel, source_digest
from difftract_bids.core.kernels.threads import Span, first_come, in_turn, n_portions, share
from difftract_bids.core.kernels.vector import lanes_of, matrix_by_vectors

compile_as(matrix_of, matrix_by_vectors, target="cpu", inline="always")
compile_as(slope_of, unrolled_slope, target="cpu")
compile_as(power_of, unrolled_power, target="cpu")

#: Seeds, or streamlines, that a thread takes at a time: some milliseconds of work.
_PORTION = 128
#: Vertices that a thread writes before they are copied out: as many as stay in the cache.
_BLOCK_VERTICES = 1 << 15


class CpuBackend:
    """See `difftract_bids.core.kernels.job.Backend`."""

    def trace(
        self, job: Job, table: Tensor, seeds_mm: Tensor, starts: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Track every seed, on as many threads as PyTorch uses."""
        n, field, regions = len(seeds_mm), fields_of(job, table), region_arrays(job, array_of)
        rules, tissues = job.kernel_rules(table.dtype), tissue_arrays(job, array_of)
        seeds, directions = array_of(seeds_mm), array_of(starts)
        fates = np.zeros((n, 5), dtype=np.int64)
        portions: list[list[np.ndarray]] = [[] for _ in range(n_portions(n, _PORTION))]
        size = max(_BLOCK_VERTICES, 2 * (rules.max_vertices + 1))
        kernel = _kernels().trace

        def work_on(spans: Iterable[Span]) -> None:
            work = workspace(field)
            block = np.empty((size, 3), dtype=field.table.dtype)
            for first, end in spans:
                at = first
                while at < end:
                    at, used = kernel(
                        *(field, regions, tissues, rules, work),
                        *(seeds, directions, at, end, block, fates),
                    )
                    portions[first // _PORTION].append(block[:used].copy())

        share(work_on, first_come(n, _PORTION))
        blocks = [block for portion in portions for block in portion]
        points = np.concatenate(blocks) if blocks else np.empty((0, 3), field.table.dtype)
        return torch.from_numpy(points), torch.from_numpy(fates)

    def pull_back(
        self,
        job: Job,
        table: Tensor,
        points: Tensor,
        offsets: Tensor,
        seed_vertex: Tensor,
        starts: Tensor,
        cotangent: Tensor,
    ) -> PulledBack:
        """Pass derivatives on; each thread adds into a table of its own."""
        n, field, rules = len(seed_vertex), fields_of(job, table), job.kernel_rules(table.dtype)
        given = [array_of(x) for x in (points, offsets, seed_vertex, starts, cotangent)]
        to_seeds = np.zeros((n, 4), dtype=field.table.dtype)
        kernel = _kernels().pull_back

        def work_on(spans: Iterable[Span]) -> tuple[np.ndarray, int]:
            work, to_table, bounded = workspace(field), np.zeros_like(field.table), 0
            for at, end in spans:
                bounded += kernel(field, rules, work, *given, at, end, to_table, to_seeds)
            return to_table, bounded

        done = share(work_on, in_turn(n, _PORTION))
        result = torch.from_numpy(to_seeds)
        total = torch.from_numpy(_sum([to_table for to_table, _ in done]))
        return PulledBack(total, result[:, :3], result[:, 3], sum(bounded for _, bounded in done))

    def amplitudes(self, job: Job, table: Tensor, points: Tensor, offsets: Tensor) -> Tensor:
        """Find the amplitudes along streamlines, each thread along some of them."""
        n, field, rules = len(offsets) - 1, fields_of(job, table), job.kernel_rules(table.dtype)
        given = [array_of(x) for x in (points, offsets)]
        result = np.empty(len(points), dtype=field.table.dtype)
        kernel = _kernels().amplitudes

        def work_on(spans: Iterable[Span]) -> None:
            work = workspace(field)
            for at, end in spans:
                kernel(field, rules, work, *given, at, end, result)

        share(work_on, first_come(n, _PORTION))
        return torch.from_numpy(result)

    def pull_back_amplitudes(
        self, job: Job, table: Tensor, points: Tensor, offsets: Tensor, cotangent: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Pass derivatives on; each thread adds into a table of its own."""
        n, field, rules = len(offsets) - 1, fields_of(job, table), job.kernel_rules(table.dtype)
        given = [array_of(x) for x in (points, offsets, cotangent)]
        to_points = np.zeros_like(given[0])
        kernel = _kernels().pull_back_amplitudes

        def work_on(spans: Iterable[Span]) -> np.ndarray:
            work, to_table = workspace(field), np.zeros_like(field.table)
            for at, end in spans:
                kernel(field, rules, work, *given, at, end, to_points, to_table)
            return to_table

        tables = share(work_on, in_turn(n, _PORTION))
        return torch.from_numpy(_sum(tables)), torch.from_numpy(to_points)


def _sum(tables: list[np.ndarray]) -> np.ndarray:
    """Add up the tables of all shares in their order, in the first one."""
    for other in tables[1:]:
        tables[0] += other
    return tables[0]


def array_of(tensor: Tensor) -> np.ndarray:
    """Give a tensor's values as a contiguous array, without copying where that can be."""
    return tensor.detach().contiguous().numpy()


def fields_of(job: Job, table: Tensor) -> FieldArrays:
    """Give an fODF as the kernels take it."""
    return field_arrays(job, array_of(table), array_of(job.row), array_of(job.ras2vox[:3]))


def workspace(field: FieldArrays) -> Workspace:
    """Make the memory of one thread."""
    width, real = field.table.shape[1], field.table.dtype
    return Workspace(
        # Vectors of numbers are read beyond the last component.
        tensor=np.zeros(width + lanes_of(len(field.order)), real),
        cotangent=np.zeros(width, real),
        fraction=np.zeros(6, real),
        cell=np.full(3, -1, np.int64),
        rows=np.zeros(8, np.int64),
    )


class _Kernels(NamedTuple):
    trace: Callable[..., tuple[int, int]]
    pull_back: Callable[..., int]
    amplitudes: Callable[..., None]
    pull_back_amplitudes: Callable[..., None]


@cache
def _kernels() -> _Kernels:
    return _made_of(source_digest())


def _made_of(digest: str) -> _Kernels:
    """Compile what loops over a portion; the digest makes a kernel's name in the cache on disk."""

    @host_kernel
    def trace_portion(
        field, regions, tissues, rules, work, seeds_mm, starts, at, end, block, fates
    ):
        _ = digest
        used = 0
        while at < end and used + rules.max_vertices + 1 <= block.shape[0]:
            fate = trace(
                field, regions, tissues, rules, work, seeds_mm[at], starts[at], block[used:]
            )
            for column in range(5):
                fates[at, column] = fate[column]
            used += fate[1]
            at += 1
        return at, used

    @host_kernel
    def pull_back_portion(
        field, rules, work, points, offsets, seed_vertex, starts, cotangent, at, end, table, seeds
    ):
        _ = digest
        bounded = 0
        for i in range(at, end):
            mine = slice(offsets[i], offsets[i + 1])
            x, y, z, n = pull_back(
                *(field, rules, work, points[mine], seed_vertex[i], starts[i]),
                *(cotangent[mine], table),
            )
            seeds[i, 0], seeds[i, 1], seeds[i, 2] = x, y, z
            seeds[i, 3] = growth_of(x, y, z, cotangent[mine])
            bounded += n
        return bounded

    @host_kernel
    def amplitudes_portion(field, rules, work, points, offsets, at, end, result):
        _ = digest
        for i in range(at, end):
            mine = slice(offsets[i], offsets[i + 1])
            amplitudes_along(field, rules, work, points[mine], result[mine])

    @host_kernel
    def pull_back_amplitudes_portion(
        field, rules, work, points, offsets, cotangent, at, end, to_points, to_table
    ):
        _ = digest
        for i in range(at, end):
            mine = slice(offsets[i], offsets[i + 1])
            pull_back_amplitudes(
                *(field, rules, work, points[mine], cotangent[mine]), to_points[mine], to_table
            )

    return _Kernels(
        trace_portion, pull_back_portion, amplitudes_portion, pull_back_amplitudes_portion
    )
