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
from difftract_bids.core.uncompiled import uncompiled
from difftract_bids.errors import ConfigError


def soft_survival(
    fodf: Float[Tensor, "x y z coeff"],
    vox2ras: Float[Tensor, "4 4"],
    streamlines: Streamlines,
    *,
    cutoff: float | Float[Tensor, ""],
    softness: float,
    margin_mm: float = 0.0,
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
    margin_mm
        Vertices nearer to an end than this, along the streamline, count as sure too: one that
        ended there instead would hardly be another.
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
    with torch.autocast(fodf.device.type, enabled=False):
        field = FodfField.from_fodf(fodf, vox2ras, cutoff=0.0, peak_tolerance=peak_tolerance)
        surplus = surplus_in(
            field, streamlines, cutoff=cutoff, softness=softness, margin_mm=margin_mm
        )
        return survival_of(surplus, streamlines)


def surplus_in(
    field: FodfField,
    streamlines: Streamlines,
    *,
    cutoff: float | Float[Tensor, ""],
    softness: float,
    margin_mm: float = 0.0,
) -> Float[Tensor, " p"]:
    """Give (amplitude − cutoff) / softness at each vertex, ∞ at those that count as sure."""
    if not softness > 0:
        raise ConfigError(
            f"The softness is {softness}.",
            where="softness",
            remedy="Give an fODF amplitude above 0, a fifth of the cutoff say.",
        )
    surplus = (amplitudes_along(field, streamlines) - cutoff) / softness
    if margin_mm > 0:
        surplus = surplus.masked_fill(_to_end_mm(streamlines) < margin_mm, torch.inf)
    return surplus


@torch.no_grad()
def _to_end_mm(streamlines: Streamlines) -> Float[Tensor, " p"]:
    """Measure how far each vertex is from the nearer end of its streamline, along it."""
    points = streamlines.points.detach().double()
    along = torch.zeros(len(points), dtype=points.dtype, device=points.device)
    # One sum along all of them: what joins two streamlines cancels in each.
    along[1:] = torch.linalg.vector_norm(points.diff(dim=0), dim=1).cumsum(0)
    counts = streamlines.n_vertices()
    first = along[streamlines.offsets[:-1]].repeat_interleave(counts)
    last = along[streamlines.offsets[1:] - 1].repeat_interleave(counts)
    return torch.minimum(along - first, last - along)


def survival_of(surplus: Float[Tensor, " p"], streamlines: Streamlines) -> Float[Tensor, " n"]:
    """Multiply σ(surplus) over the vertices of each streamline."""
    counts = streamlines.n_vertices()
    owner = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    logs = torch.nn.functional.logsigmoid(surplus)
    return logs.new_zeros(len(counts)).index_add(0, owner, logs).exp()


@uncompiled
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
