"""Soft connectomes by compiled code: streamlines are shared out to threads."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, Int32
from torch import Tensor

from difftract_bids.core.kernels.soft_assignment import (
    SoftArrays,
    add_streamline,
    count_nodes,
    pull_back_end,
    pull_back_streamline,
    reach,
    read_slopes,
    soft_workspace,
    write_sorted,
)
from difftract_bids.core.kernels.target import host_kernel, source_digest
from difftract_bids.core.kernels.threads import Span, first_come, in_turn, share

#: Streamlines that a thread takes at a time: about a millisecond of work.
_PORTION = 512
#: Bytes that the matrices of all threads may take together, beyond the first thread's.
_MATRIX_BYTES = 1 << 30


class SoftKernel:
    """The same as `difftract_bids.core.connectome.soft_reference.SoftReference`.

    Parameters
    ----------
    nodes
        Row of the connectome of each voxel, -1 where it has no label.
    vox2ras, ras2vox
        Affines between voxels and RAS+ millimetres, float64.
    radius_mm, sigma_mm
        See `SoftConnectome`.
    n_nodes
        Rows of the connectome.
    """

    def __init__(
        self,
        nodes: Int32[Tensor, "x y z"],
        vox2ras: Float[Tensor, "4 4"],
        ras2vox: Float[Tensor, "4 4"],
        radius_mm: float,
        sigma_mm: float,
        n_nodes: int,
    ) -> None:
        extent = torch.linalg.vector_norm(ras2vox[:3, :3], dim=1) * radius_mm + 1e-6
        self.shared = SoftArrays(
            nodes=_array(nodes),
            vox2ras=_array(vox2ras[:3]),
            ras2vox=_array(ras2vox[:3]),
            extent=_array(extent),
            radius_mm=radius_mm,
            sharpness=0.5 / sigma_mm**2,
        )
        self.n_nodes = n_nodes

    def assign(
        self, ends_mm: Float[Tensor, "n 2 3"]
    ) -> tuple[Int[Tensor, "n 2 k"], Float[Tensor, "n 2 k"]]:
        """Find the nodes that each end reaches, ascending, and their probabilities."""
        ends, n = _array(ends_mm), len(ends_mm)
        counts = np.zeros((n, 2), np.int64)
        self._run(_kernels().n_nodes, ends, counts)
        k = int(counts.max(initial=0))
        nodes, probability = np.full((n, 2, k), -1), np.zeros((n, 2, k))
        self._run(_kernels().assign, ends, nodes, probability)
        return torch.from_numpy(nodes), torch.from_numpy(probability)

    def pull_back_assign(
        self,
        ends_mm: Float[Tensor, "n 2 3"],
        nodes: Int[Tensor, "n 2 k"],
        cotangent: Float[Tensor, "n 2 k"],
    ) -> Float[Tensor, "n 2 3"]:
        """Pass derivatives by the probabilities on to the ends."""
        to_ends = np.zeros(ends_mm.shape)
        given = (_array(x) for x in (ends_mm, nodes, cotangent))
        self._run(_kernels().pull_back_assign, *given, to_ends)
        return torch.from_numpy(to_ends)

    def sums(
        self,
        ends_mm: Float[Tensor, "n 2 3"],
        weights: Float[Tensor, "n channel"],
        hard: Int[Tensor, "n 2"] | None,
    ) -> Float[Tensor, "channel node node"]:
        """Sum the weights of each edge, upper triangles; each thread into matrices of its own."""
        ends, weight, chosen = _array(ends_mm), _array(weights), _hard_array(hard, len(ends_mm))
        shape = (weight.shape[1], self.n_nodes, self.n_nodes)
        kernel = _kernels().sums

        def work_on(spans: Iterable[Span]) -> np.ndarray:
            work, upper = soft_workspace(self.shared), np.zeros(shape)
            for at, end in spans:
                kernel(self.shared, work, ends, weight, chosen, at, end, upper)
            return upper

        most_threads = 1 + _MATRIX_BYTES // (8 * math.prod(shape))
        n = len(ends)
        total, *others = share(work_on, in_turn(n, max(_PORTION, -(-n // most_threads))))
        for upper in others:
            total += upper
        return torch.from_numpy(total)

    def pull_back(
        self,
        ends_mm: Float[Tensor, "n 2 3"],
        weights: Float[Tensor, "n channel"],
        hard: Int[Tensor, "n 2"] | None,
        to_upper: Float[Tensor, "channel node node"],
    ) -> tuple[Float[Tensor, "n 2 3"], Float[Tensor, "n channel"]]:
        """Pass derivatives by the sums on to the ends and the weights."""
        to_ends, to_weights = np.zeros(ends_mm.shape), np.zeros(weights.shape)
        given = (_array(ends_mm), _array(weights), _hard_array(hard, len(ends_mm)))
        self._run(_kernels().pull_back, *given, _array(to_upper), to_ends, to_weights)
        return torch.from_numpy(to_ends), torch.from_numpy(to_weights)

    def _run(self, kernel: Callable[..., None], ends: np.ndarray, *arrays: np.ndarray) -> None:
        def work_on(spans: Iterable[Span]) -> None:
            work = soft_workspace(self.shared)
            for at, end in spans:
                kernel(self.shared, work, ends, *arrays, at, end)

        share(work_on, first_come(len(ends), _PORTION))


class _Kernels(NamedTuple):
    n_nodes: Callable[..., None]
    assign: Callable[..., None]
    pull_back_assign: Callable[..., None]
    sums: Callable[..., None]
    pull_back: Callable[..., None]


@cache
def _kernels() -> _Kernels:
    return _made_of(source_digest())


def _made_of(digest: str) -> _Kernels:
    """Compile what loops over a portion; the digest makes a kernel's name in the cache on disk."""

    @host_kernel
    def count_portion(shared, work, ends, counts, at, end):
        _ = digest
        count_nodes(shared, work, ends[at:end], counts[at:end])

    @host_kernel
    def assign_portion(shared, work, ends, nodes, probability, at, end):
        _ = digest
        for i in range(2 * at, 2 * end):
            reach(shared, work, 0, ends[i // 2, i % 2])
            write_sorted(work, 0, nodes[i // 2, i % 2], probability[i // 2, i % 2])

    @host_kernel
    def pull_back_assign_portion(shared, work, ends, nodes, cotangent, to_ends, at, end):
        _ = digest
        for i in range(2 * at, 2 * end):
            reach(shared, work, 0, ends[i // 2, i % 2])
            read_slopes(work, 0, nodes[i // 2, i % 2], cotangent[i // 2, i % 2])
            pull_back_end(shared, work, 0, to_ends[i // 2, i % 2])

    @host_kernel
    def sums_portion(shared, work, ends, weights, hard, at, end, upper):
        _ = digest
        for i in range(at, end):
            add_streamline(shared, work, ends[i], weights[i], hard[i], upper)

    @host_kernel
    def pull_back_portion(
        shared, work, ends, weights, hard, to_upper, to_ends, to_weights, at, end
    ):
        _ = digest
        for i in range(at, end):
            given = ends[i], weights[i], hard[i]
            pull_back_streamline(shared, work, *given, to_upper, to_ends[i], to_weights[i])

    return _Kernels(
        count_portion, assign_portion, pull_back_assign_portion, sums_portion, pull_back_portion
    )


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()


def _hard_array(hard: Tensor | None, n: int) -> np.ndarray:
    """Give the kernels a row for each streamline in every case, an empty one for no choice."""
    return np.zeros((n, 0), np.int64) if hard is None else _array(hard)
