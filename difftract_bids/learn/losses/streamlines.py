"""How far streamlines are from those wanted from the same seeds, vertex by vertex."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from difftract_bids.core.streamlines import Streamlines
from difftract_bids.errors import InputError

#: Distances up to this one count by their square, larger ones as they are, millimetres.
HUBER_MM = 1.0


class StreamlineLosses(NamedTuple):
    """Distances between streamlines of common seeds; exactly 0, with a graph, if there are none.

    Attributes
    ----------
    points
        Mean Huber distance of common vertices, millimetres: those that both streamlines have at
        the same number of steps from the seed, on the same side of it.
    directions
        Mean of 1 - |cosine| between common segments.
    ends
        Mean Huber distance of the ends, millimetres: also of what one streamline has beyond the
        other.
    n_compared
        How many streamlines have a counterpart.
    """

    points: Float[Tensor, ""]
    directions: Float[Tensor, ""]
    ends: Float[Tensor, ""]
    n_compared: int


def streamline_losses(
    found: Streamlines, target: Streamlines, *, huber_mm: float = HUBER_MM
) -> StreamlineLosses:
    """Compare the streamlines of seeds that gave one in both sets.

    Vertices are matched by their number of steps from the seed, so both sets must have the same
    step size. Which half comes first is a matter of the seed's direction and says nothing: halves
    are matched by the tangents at the seed. Differentiable in ``found.points``.

    Parameters
    ----------
    found, target
        Streamlines of the same seeds.
    huber_mm
        Distances d up to δ = ``huber_mm`` count d² / 2δ, larger ones d - δ/2, so that a streamline
        gone astray does not outweigh all others.

    Raises
    ------
    InputError
        If the sets are of different numbers of seeds.

    References
    ----------
    Huber 1964, doi:10.1214/aoms/1177703732.
    """
    if len(found.seed_status) != len(target.seed_status):
        raise InputError(
            f"The streamlines are of {len(found.seed_status)} seeds, those wanted of "
            f"{len(target.seed_status)}.",
            where="streamline_losses",
            remedy="Track both from the same seeds.",
        )
    one, other = _common(found.seed_index, target.seed_index)
    if not len(one):
        nothing = found.points[:0].sum()
        return StreamlineLosses(nothing, nothing, nothing, 0)
    pairs = _match(found, target, one, other)
    here, there = found.points, target.points.detach().to(found.points)
    apart = here[pairs.found] - there[pairs.target]
    ends = found.ends()[one] - target.ends().detach().to(here)[other[:, None], pairs.ends]
    return StreamlineLosses(
        points=_huber(apart, huber_mm).mean(),
        directions=_turns(here, there, pairs),
        ends=_huber(ends.flatten(0, 1), huber_mm).mean(),
        n_compared=len(one),
    )


class _Pairs(NamedTuple):
    """Which vertices belong together.

    Attributes
    ----------
    owner
        Which pair of streamlines each pair of vertices is of; ascending.
    found, target
        Vertices.
    ends
        Which end of the target belongs to the first and to the last one of each streamline found.
    """

    owner: Int[Tensor, " p"]
    found: Int[Tensor, " p"]
    target: Int[Tensor, " p"]
    ends: Int[Tensor, "n 2"]


def _common(
    found: Int[Tensor, " n"], target: Int[Tensor, " m"]
) -> tuple[Int[Tensor, " k"], Int[Tensor, " k"]]:
    """Find which streamlines have the same seed; both lists of seeds ascend."""
    place = torch.searchsorted(target.contiguous(), found.contiguous())
    there = place < len(target)
    same = there.clone()
    same[there] = target[place[there]] == found[there]
    return torch.nonzero(same).squeeze(1), place[same]


@torch.no_grad()
def _match(found: Streamlines, target: Streamlines, one: Tensor, other: Tensor) -> _Pairs:
    """Go out from the seed both ways, as far as both streamlines go."""
    seed, before, after = _halves(found, one)
    its_seed, its_before, its_after = _halves(target, other)
    along = _tangents(found, one).double() * _tangents(target, other).to(found.points).double()
    reverse = along.sum(1) < 0
    back = torch.minimum(before, torch.where(reverse, its_after, its_before))
    count = back + 1 + torch.minimum(after, torch.where(reverse, its_before, its_after))
    owner = torch.repeat_interleave(torch.arange(len(one), device=count.device), count)
    first = count.cumsum(0) - count
    step = torch.arange(len(owner), device=count.device) - (first + back)[owner]
    turned = torch.where(reverse, -1, 1)[owner] * step
    ends = torch.stack([reverse.long(), 1 - reverse.long()], dim=1)
    return _Pairs(owner, seed[owner] + step, its_seed[owner] + turned, ends)


def _halves(
    streamlines: Streamlines, some: Int[Tensor, " k"]
) -> tuple[Int[Tensor, " k"], Int[Tensor, " k"], Int[Tensor, " k"]]:
    """Find the seed among all vertices, and how many there are on either side of it."""
    before = streamlines.seed_vertex[some].long()
    first, beyond = streamlines.offsets[some], streamlines.offsets[some + 1]
    return first + before, before, beyond - first - before - 1


def _tangents(streamlines: Streamlines, some: Int[Tensor, " k"]) -> Float[Tensor, "k 3"]:
    """Take the difference of the seed's neighbours, or of it and its only one."""
    seed, before, after = _halves(streamlines, some)
    points = streamlines.points.detach()
    return points[seed + after.clamp(max=1)] - points[seed - before.clamp(max=1)]


def _huber(apart: Float[Tensor, "n 3"], delta: float) -> Float[Tensor, " n"]:
    square = apart.square().sum(1)
    # Clamped before the root is taken: its slope at 0 is infinite, and that times 0 not a number.
    far = square.clamp(min=delta**2).sqrt() - delta / 2
    return torch.where(square <= delta**2, square / (2 * delta), far)


def _turns(here: Tensor, there: Tensor, pairs: _Pairs) -> Float[Tensor, ""]:
    """Average 1 - |cosine| over common segments."""
    inner = torch.nonzero(pairs.owner[1:] == pairs.owner[:-1]).squeeze(1)
    if not len(inner):
        return here[:0].sum()
    own = here[pairs.found[inner + 1]] - here[pairs.found[inner]]
    wanted = there[pairs.target[inner + 1]] - there[pairs.target[inner]]
    tiny = torch.finfo(own.dtype).tiny
    lengths = (own.square().sum(1) * wanted.square().sum(1)).clamp(min=tiny).sqrt()
    return (1 - ((own * wanted).sum(1) / lengths).abs()).mean()
