"""Deconvolution of many voxels as one differentiable operation, in chunks of bounded memory.

What is solved in a voxel is a least-squares problem with constraints; near its solution the same
constraints stay active, and the solution is a linear function of the signal. Differentiating that
function (and not the iterations that found it) gives, for a cotangent g of the solution x, with v
the answer of the same linear system to g:

    signal' = M v,   M' = signal v',   N' = -(v x' + x v') / 2,   w' = -sum (a v)(a x)

M being the matrix of the forward model, N the normal matrix, and w the weight of the penalty on
the active directions a. At a signal for which a constraint is just about to become active the
solution has a kink: the derivative given there is that of one of its sides.

References
----------
Amos and Kolter 2017, arXiv:1703.00443 (differentiating a quadratic program at its solution).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

#: Voxels solved at a time: what they need beside the image stays below two hundred megabytes.
CHUNK_VOXELS = 8192


class Solver(Protocol):
    """Solves many voxels that share one model; float64 throughout."""

    @property
    def directions(self) -> Float[Tensor, "constraint coeff"]:
        """Constraints: rows whose product with a solution is an amplitude."""

    def solve(
        self, signal: Float[Tensor, "voxel volume"]
    ) -> tuple[Float[Tensor, "voxel coeff"], Bool[Tensor, "voxel constraint"]]:
        """Solve, and tell which constraints are active in the solution."""

    def pull_back(
        self, cotangent: Float[Tensor, "voxel coeff"], active: Bool[Tensor, "voxel constraint"]
    ) -> Float[Tensor, "voxel coeff"]:
        """Solve the linear system of each voxel's active constraints for a cotangent."""


@dataclass(frozen=True)
class Voxels:
    """Which part of a flat image is deconvolved.

    Attributes
    ----------
    voxel
        Voxels, ascending.
    volume
        Volumes.
    """

    voxel: Int[Tensor, " voxel"]
    volume: Int[Tensor, " volume"]

    def chunks(self) -> Iterator[Int[Tensor, " voxel"]]:
        """Take some voxels at a time."""
        for start in range(0, len(self.voxel), CHUNK_VOXELS):
            yield self.voxel[start : start + CHUNK_VOXELS]

    def signal(
        self, dwi: Float[Tensor, "image all_volume"], some: Int[Tensor, " voxel"]
    ) -> Float[Tensor, "voxel volume"]:
        """Copy the signals of some voxels, as they are, float64."""
        return dwi[some][:, self.volume].double()


def usable_voxels(
    dwi: Float[Tensor, "image all_volume"],
    volume: Int[Tensor, " volume"],
    mask: Bool[Tensor, " image"] | None,
) -> Int[Tensor, " voxel"]:
    """Find the voxels of the mask with a finite signal that is not zero in all volumes."""
    if mask is None:
        candidates = torch.arange(len(dwi), device=dwi.device)
    else:
        candidates = torch.nonzero(mask).squeeze(1)
    found = [candidates[:0]]
    for some in Voxels(candidates, volume).chunks():
        signal = dwi[some][:, volume]
        found.append(some[signal.isfinite().all(dim=1) & (signal > 0).any(dim=1)])
    return torch.cat(found)


def deconvolve(
    dwi: Float[Tensor, "image all_volume"],
    voxels: Voxels,
    matrix: Float[Tensor, "volume coeff"],
    normal: Float[Tensor, "coeff coeff"],
    weight: Float[Tensor, ""],
    solver: Solver,
) -> Float[Tensor, "image coeff"]:
    """Deconvolve the signal, differentiably in all tensors; zero outside ``voxels``.

    Parameters
    ----------
    dwi
        Signals, voxels in any order.
    voxels
        What is deconvolved.
    matrix, normal, weight
        Forward model, normal matrix and weight of the penalty that ``solver`` was made from: their
        cotangents are worked out here.
    solver
        Does the work.
    """
    return _Deconvolve.apply(dwi, matrix, normal, weight, voxels, solver)  # type: ignore[no-untyped-call]


class _Deconvolve(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch leaves the type of its context open
        dwi: Tensor,
        matrix: Tensor,
        normal: Tensor,  # noqa: ARG004 - here for its derivative
        weight: Tensor,
        voxels: Voxels,
        solver: Solver,
    ) -> Tensor:
        result = dwi.new_zeros(len(dwi), matrix.shape[1])
        active = []
        for some in voxels.chunks():
            # Negative signals are noise around zero, as for MRtrix.
            found, chosen = solver.solve(voxels.signal(dwi, some).clamp_min(0))
            result[some] = found.to(result.dtype)
            if any(ctx.needs_input_grad):
                active.append(_packed(chosen))
        ctx.save_for_backward(dwi, matrix, result, weight, *active)
        ctx.voxels, ctx.solver = voxels, solver
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        dwi, matrix, result, weight, *active = ctx.saved_tensors
        voxels: Voxels = ctx.voxels
        solver: Solver = ctx.solver
        to_dwi = torch.zeros_like(dwi) if ctx.needs_input_grad[0] else None
        to_matrix = torch.zeros_like(matrix)
        to_normal = matrix.new_zeros(matrix.shape[1], matrix.shape[1])
        to_weight = torch.zeros_like(weight)
        for some, bits in zip(voxels.chunks(), active, strict=True):
            chosen = _unpacked(bits, len(solver.directions))
            answer = solver.pull_back(cotangent[some].double(), chosen)
            signal, solution = voxels.signal(dwi, some), result[some].double()
            if to_dwi is not None:
                back = (answer @ matrix.T) * (signal > 0)
                rows = dwi.new_zeros(len(some), dwi.shape[1])
                rows[:, voxels.volume] = back.to(dwi.dtype)
                to_dwi[some] = rows
            to_matrix += signal.clamp_min(0).T @ answer
            to_normal -= answer.T @ solution
            if ctx.needs_input_grad[3]:
                amplitudes = (answer @ solver.directions.T) * (solution @ solver.directions.T)
                to_weight -= (amplitudes * chosen).sum()
        return to_dwi, to_matrix, (to_normal + to_normal.T) / 2, to_weight, None, None


_BITS = (1, 2, 4, 8, 16, 32, 64, 128)


def _packed(chosen: Bool[Tensor, "voxel constraint"]) -> Tensor:
    """Put eight answers of yes or no into a byte."""
    padded = torch.nn.functional.pad(chosen, (0, -chosen.shape[1] % 8))
    bits = torch.tensor(_BITS, dtype=torch.uint8, device=chosen.device)
    eights = padded.view(len(chosen), -1, 8).to(torch.uint8)
    return (eights * bits).sum(dim=2, dtype=torch.uint8)


def _unpacked(bits: Tensor, n: int) -> Bool[Tensor, "voxel constraint"]:
    masks = torch.tensor(_BITS, dtype=torch.uint8, device=bits.device)
    return ((bits[:, :, None] & masks) != 0).view(len(bits), -1)[:, :n]
