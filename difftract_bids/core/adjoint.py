"""Tracking by the kernels, and its gradient by the discrete adjoint.

The backward pass goes through each streamline from its ends to its seed, with the derivative of
one step at a time. All it is given are the vertices, which are the result anyway.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from difftract_bids.core.anatomy import Anatomy
from difftract_bids.core.field import FodfField
from difftract_bids.core.kernels import Job, backend_for
from difftract_bids.core.regions import RegionBits
from difftract_bids.core.rules import TrackingRules
from difftract_bids.core.streamlines import GradientReport, SeedStatus, Streamlines
from difftract_bids.errors import DerivativeError


def track_by_kernels(
    fodf: FodfField,
    seeds_mm: Float[Tensor, "n 3"],
    starts: Float[Tensor, "n 3"],
    rules: TrackingRules,
    regions: RegionBits,
    anatomy: Anatomy | None = None,
) -> Streamlines:
    """Track seeds by the compiled kernels; see `difftract_bids.core.propagate.track_field`."""
    job = Job(fodf.lmax, fodf.row, fodf.grid.ras2vox, rules, regions, anatomy)
    report = GradientReport()
    points, fates = _Track.apply(fodf.table, seeds_mm, starts, job, report)  # type: ignore[no-untyped-call]
    status, vertices, seed_vertex, *reasons = fates.unbind(1)
    kept = torch.nonzero(status == SeedStatus.KEPT).squeeze(1)
    return Streamlines(
        points=points,
        offsets=_offsets(vertices[kept]),
        seed_index=kept,
        seed_vertex=seed_vertex[kept],
        stop_reason=torch.stack(reasons, dim=1)[kept],
        seed_status=status,
        gradient_report=report,
    )


def _offsets(vertices: Int[Tensor, " n"]) -> Int[Tensor, " n+1"]:
    return torch.cat([vertices.new_zeros(1), vertices.cumsum(0)])


class _Track(torch.autograd.Function):
    """All vertices as a function of the fODFs and the seeds."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch leaves the type of its context open
        table: Tensor,
        seeds_mm: Tensor,
        starts: Tensor,
        job: Job,
        report: GradientReport,
    ) -> tuple[Tensor, Tensor]:
        points, fates = backend_for(table).trace(job, table, seeds_mm, starts)
        ctx.mark_non_differentiable(fates)
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(table, points, fates, starts)
            ctx.job, ctx.report = job, report
        return points, fates

    @staticmethod
    def backward(
        ctx: Any,  # noqa: ANN401
        cotangent: Tensor,
        _: Tensor,
    ) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        table, points, fates, starts = ctx.saved_tensors
        with torch.no_grad():
            kept = torch.nonzero(fates[:, 0] == SeedStatus.KEPT).squeeze(1)
            pulled = backend_for(table).pull_back(
                ctx.job,
                table.detach(),
                points.detach(),
                _offsets(fates[kept, 1]),
                fates[kept, 2].contiguous(),
                starts[kept],
                cotangent.detach().contiguous(),
            )
            to_seeds = torch.zeros_like(starts).index_copy_(0, kept, pulled.seeds)
        ctx.report.add(pulled.growth, pulled.bounded)
        to_table = pulled.table
        if torch.is_grad_enabled() and cotangent.requires_grad:
            to_table, to_seeds = _once(to_table, cotangent), _once(to_seeds, cotangent)
        return to_table, to_seeds, None, None, None


def _once(gradient: Tensor, cotangent: Tensor) -> Tensor:
    result: Tensor = _OnceOnly.apply(gradient, cotangent)  # type: ignore[no-untyped-call]
    return result


class _OnceOnly(torch.autograd.Function):
    """A gradient that says why it cannot be differentiated again."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, cotangent: Tensor) -> Tensor:  # noqa: ANN401, ARG004
        return gradient.clone()

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[None, None]:  # noqa: ANN401, ARG004
        raise DerivativeError(
            "Second derivatives of streamlines are not implemented.",
            where="track",
            remedy="Leave create_graph=True out, or detach the gradient before it enters a loss.",
        )
