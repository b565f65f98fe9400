"""The kernels on NVIDIA GPUs, by numba-cuda: one thread for each seed, or for each streamline."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numba
import torch
from numba import cuda
from numba.extending import overload
from torch import Tensor

from difftract_bids.core.kernels.amplitude import amplitudes_along, pull_back_amplitudes
from difftract_bids.core.kernels.contraction import (
    matrix_of,
    power_of,
    slope_of,
    unrolled_matrix,
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
from difftract_bids.core.kernels.target import add_to, compile_as
from difftract_bids.core.streamlines import SeedStatus

compile_as(matrix_of, unrolled_matrix, target="cuda")
compile_as(slope_of, unrolled_slope, target="cuda")
compile_as(power_of, unrolled_power, target="cuda")

_THREADS_PER_BLOCK = 128
#: Memory for the vertices of one launch: each seed has room for the longest streamline.
_LAUNCH_BYTES = 1 << 30
#: Components of the highest degree, 12, filled up: threads have their own memory of a fixed size.
_MAX_WIDTH = 96


@overload(add_to, target="cuda")
def _add_atomically(array, i, j, value):  # noqa: ARG001 - the compiler looks at the names
    def add(array, i, j, value):
        cuda.atomic.add(array, (i, j), value)

    return add


class CudaBackend:
    """See `difftract_bids.core.kernels.job.Backend`."""

    def trace(
        self, job: Job, table: Tensor, seeds_mm: Tensor, starts: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Track every seed, as many at a time as there is memory for."""
        kernel = _kernels(table.dtype).trace
        field, rules = _field(job, table), job.kernel_rules(table.dtype)
        regions, tissues = region_arrays(job, _array), tissue_arrays(job, _array)
        room = rules.max_vertices + 1
        fates = torch.zeros(len(seeds_mm), 5, dtype=torch.int64, device=table.device)
        size = max(_LAUNCH_BYTES // (3 * room * table.element_size()), 1)
        points = [table.new_zeros(0, 3)]
        scratch = table.new_empty(min(size, len(seeds_mm)), room, 3)
        for at in range(0, len(seeds_mm), size):
            part = slice(at, min(at + size, len(seeds_mm)))
            n = part.stop - at
            given = [_array(x[part]) for x in (seeds_mm, starts)]
            kernel[_blocks(n), _THREADS_PER_BLOCK](
                *(field, regions, tissues, rules, *given),
                *(_array(scratch[:n]), _array(fates[part])),
            )
            points.append(scratch[:n][_written(fates[part], room)])
        return torch.cat(points), fates

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
        """Pass derivatives on; all threads add into one table, atomically."""
        n = len(seed_vertex)
        to_table, to_seeds = torch.zeros_like(table), table.new_zeros(n, 4)
        bounded = torch.zeros(n, dtype=torch.int64, device=table.device)
        given = (points, offsets, seed_vertex, starts, cotangent, to_table, to_seeds, bounded)
        if n:
            _kernels(table.dtype).pull_back[_blocks(n), _THREADS_PER_BLOCK](
                _field(job, table), job.kernel_rules(table.dtype), *map(_array, given)
            )
        return PulledBack(to_table, to_seeds[:, :3], to_seeds[:, 3], int(bounded.sum()))

    def amplitudes(self, job: Job, table: Tensor, points: Tensor, offsets: Tensor) -> Tensor:
        """Find the amplitudes along streamlines, one thread for each."""
        n, result = len(offsets) - 1, table.new_empty(len(points))
        if n:
            _kernels(table.dtype).amplitudes[_blocks(n), _THREADS_PER_BLOCK](
                _field(job, table),
                job.kernel_rules(table.dtype),
                *map(_array, (points, offsets, result)),
            )
        return result

    def pull_back_amplitudes(
        self, job: Job, table: Tensor, points: Tensor, offsets: Tensor, cotangent: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Pass derivatives on; all threads add into one table, atomically."""
        n = len(offsets) - 1
        to_table, to_points = torch.zeros_like(table), torch.zeros_like(points)
        if n:
            given = (points, offsets, cotangent, to_points, to_table)
            _kernels(table.dtype).pull_back_amplitudes[_blocks(n), _THREADS_PER_BLOCK](
                _field(job, table), job.kernel_rules(table.dtype), *map(_array, given)
            )
        return to_table, to_points


def _written(fates: Tensor, room: int) -> Tensor:
    """Mark the vertices of the streamlines kept."""
    count = torch.where(fates[:, 0] == SeedStatus.KEPT, fates[:, 1], 0)
    return torch.arange(room, device=fates.device) < count[:, None]


def _blocks(n: int) -> int:
    return -(-n // _THREADS_PER_BLOCK)


def _array(tensor: Tensor) -> Any:  # noqa: ANN401 - an array of numba's own
    given = tensor.detach().contiguous()
    return cuda.as_cuda_array(given) if given.is_cuda else given.numpy()


def _field(job: Job, table: Tensor) -> FieldArrays:
    return field_arrays(job, _array(table), _array(job.row), _array(job.ras2vox[:3]))


class Kernels(NamedTuple):
    """What is launched: one thread for each seed, or for each streamline."""

    trace: Any
    pull_back: Any
    amplitudes: Any
    pull_back_amplitudes: Any


@cache
def _kernels(dtype: torch.dtype) -> Kernels:
    return Kernels(*map(cuda.jit, device_sources(dtype)))


def device_sources(dtype: torch.dtype) -> Kernels:  # noqa: C901 - four kernels of a few lines
    """Write the kernels for one floating-point type, not compiled yet."""
    real = numba.float32 if dtype == torch.float32 else numba.float64

    # Inlined before it is compiled: local memory ends with the function that asks for it.
    @cuda.jit(device=True, inline="always")
    def workspace():
        cell = cuda.local.array(3, numba.int64)
        cell[0] = -1
        cotangent = cuda.local.array(_MAX_WIDTH, real)
        for e in range(_MAX_WIDTH):
            cotangent[e] = 0  # what fills a row up is added too, and local memory holds anything
        return Workspace(
            cuda.local.array(_MAX_WIDTH, real),
            cotangent,
            cuda.local.array(6, real),
            cell,
            cuda.local.array(8, numba.int64),
        )

    def trace_all(field, regions, tissues, rules, seeds_mm, starts, points, fates):
        i = cuda.grid(1)
        if i < seeds_mm.shape[0]:
            work = workspace()
            fate = trace(field, regions, tissues, rules, work, seeds_mm[i], starts[i], points[i])
            for column in range(5):
                fates[i, column] = fate[column]

    def pull_back_all(
        field, rules, points, offsets, seed_vertex, starts, cotangent, table, seeds, bounded
    ):
        i = cuda.grid(1)
        if i < seed_vertex.shape[0]:
            work = workspace()
            mine = slice(offsets[i], offsets[i + 1])
            x, y, z, n = pull_back(
                field, rules, work, points[mine], seed_vertex[i], starts[i], cotangent[mine], table
            )
            seeds[i, 0], seeds[i, 1], seeds[i, 2] = x, y, z
            seeds[i, 3] = growth_of(x, y, z, cotangent[mine])
            bounded[i] = n

    def amplitudes_all(field, rules, points, offsets, result):
        i = cuda.grid(1)
        if i < offsets.shape[0] - 1:
            work = workspace()
            mine = slice(offsets[i], offsets[i + 1])
            amplitudes_along(field, rules, work, points[mine], result[mine])

    def pull_back_amplitudes_all(field, rules, points, offsets, cotangent, to_points, to_table):
        i = cuda.grid(1)
        if i < offsets.shape[0] - 1:
            work = workspace()
            mine = slice(offsets[i], offsets[i + 1])
            pull_back_amplitudes(
                field, rules, work, points[mine], cotangent[mine], to_points[mine], to_table
            )

    return Kernels(trace_all, pull_back_all, amplitudes_all, pull_back_amplitudes_all)
