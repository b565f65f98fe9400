"""Soft survival: how surely a streamline passes the cutoff, as a smooth weight.

Whether a streamline goes on is a decision, and has no derivative. Its softened form is a product
over vertices of σ((amplitude − cutoff) / softness): 1 far above the cutoff, ½ for a vertex on it.
It weighs streamlines, in a connectome say, and passes gradients to the fODF and to the cutoff.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from difftract_bids.core.field import FodfField
from difftract_bids.core.kernels import Job, backend_for
from difftract_bids.core.peaks import SEARCH_TOLERANCE
from difftract_bids.core.regions import Regions, compile_regions
from difftract_bids.core.rules import TrackingRules
from difftract_bids.core.streamlines import Streamlines
from difftract_bids.errors import ConfigError


def soft_survival(
    fodf: Float[Tensor, "x y z coeff"],
    vox2ras: Float[Tensor, "4 4"],
    streamlines: Streamlines,
    *,
    cutoff: float | Float[Tensor, ""],
    softness: float,
    peak_tolerance: float = SEARCH_TOLERANCE,
) -> Float[Tensor, " n"]:
    """Weigh each streamline by how far its vertices are above the cutoff.

    Differentiable in ``fodf``, in the streamlines' points (and so, if they were tracked with
    gradients, in all that these depend on) and in ``cutoff``.

    Parameters
    ----------
    fodf, vox2ras
        The image that was tracked in, see `track`.
    streamlines
        From `track`.
    cutoff
        fODF amplitude.
    softness
        Amplitude over which the weight falls, above 0; as it goes to 0 the decision comes back.
    peak_tolerance
        See `TrackingConfig`.

    Returns
    -------
    Tensor
        Weights from 0 to 1. Both ends of a streamline count as sure: that it ends there is
        known. A streamline of two vertices has the weight 1.

    Raises
    ------
    ConfigError
        If the softness is not above 0.
    FodfError
        If the fODF or its affine cannot be used.
    """
    if not softness > 0:
        raise ConfigError(
            f"The softness is {softness}.",
            where="softness",
            remedy="Give an fODF amplitude above 0, a fifth of the cutoff say.",
        )
    with torch.autocast(fodf.device.type, enabled=False):
        field = FodfField.from_fodf(fodf, vox2ras, cutoff=0.0, peak_tolerance=peak_tolerance)
        amplitude = amplitudes_along(field, streamlines)
        margin = (amplitude - cutoff) / softness
        counts = streamlines.n_vertices()
        owner = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
        logs = torch.nn.functional.logsigmoid(margin)
        return logs.new_zeros(len(counts)).index_add(0, owner, logs).exp()


@torch.compiler.disable  # type: ignore[untyped-decorator]
def amplitudes_along(field: FodfField, streamlines: Streamlines) -> Float[Tensor, " p"]:
    """Give the amplitude of the peak followed at each vertex, and ∞ at both ends.

    Differentiable in the fODFs and in the streamlines' points.
    """
    rules = TrackingRules(
        integrator="euler",
        step_size_mm=1.0,
        cos_max_angle=0.0,
        cutoff=field.cutoff,
        peak_tolerance=field.peak_tolerance,
        min_vertices=1,
        max_vertices=1,
        one_way=False,
        stop_at_includes=False,
    )
    regions = compile_regions(Regions(), field.device)
    job = Job(field.lmax, field.row, field.grid.ras2vox, rules, regions)
    result: Tensor = _Amplitudes.apply(field.table, streamlines.points, streamlines.offsets, job)  # type: ignore[no-untyped-call]
    return result


class _Amplitudes(torch.autograd.Function):
    """Amplitudes as a function of the fODFs and the vertices."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, points: Tensor, offsets: Tensor, job: Job) -> Tensor:  # noqa: ANN401 - torch leaves the type of its context open
        ctx.save_for_backward(table, points, offsets)
        ctx.job = job
        return backend_for(table).amplitudes(job, table, points, offsets)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, Tensor, None, None]:  # noqa: ANN401
        table, points, offsets = ctx.saved_tensors
        to_table, to_points = backend_for(table).pull_back_amplitudes(
            ctx.job, table, points, offsets, cotangent.contiguous()
        )
        return to_table, to_points, None, None
