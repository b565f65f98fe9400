"""Whether streamlines go on where those of the target do: the one decision of tracking, learnt.

A streamline ends where the amplitude of its peak falls below the cutoff, and no derivative of
where it went says that it should have gone on. So the amplitudes of both fODFs are compared along
the streamlines of both, and a step beyond their ends: where the target's streamlines go the
prediction must be above the cutoff, where its own go astray below. Nothing is multiplied along a
streamline, so nothing grows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from difftract_bids.core.field import FodfField
from difftract_bids.core.streamlines import Streamlines
from difftract_bids.core.survival import amplitudes_along
from difftract_bids.errors import ConfigError


@dataclass(frozen=True, eq=False)
class Amplitudes:
    """Amplitudes of the peaks of two fODFs at the same vertices of the same streamlines.

    Attributes
    ----------
    found, wanted
        Of the predicted fODF, with a graph, and of the target's.
    cutoff
        fODF amplitude below which streamlines end.
    softness
        Amplitude over which that is softened.

    Raises
    ------
    ConfigError
        If the softness is not above 0.
    """

    found: Float[Tensor, " p"]
    wanted: Float[Tensor, " p"]
    cutoff: float
    softness: float

    def __post_init__(self) -> None:
        """Check that there is something to soften by."""
        if not self.softness > 0:
            raise ConfigError(
                f"The softness of survival is {self.softness}.",
                where="survival_softness",
                remedy="Give an fODF amplitude above 0, a fifth of the cutoff say.",
            )

    @classmethod
    def along(
        cls,
        streamlines: Sequence[Streamlines],
        found: FodfField,
        wanted: FodfField,
        mask: Bool[Tensor, "x y z"],
        *,
        cutoff: float,
        softness: float,
    ) -> Self:
        """Find them at each vertex, and one step beyond each end if that is in the mask.

        Parameters
        ----------
        streamlines
            Where to look; no derivatives by their vertices are taken.
        found, wanted
            Both fODFs, on the mask's grid.
        mask
            Where streamlines may go: one that ended there had no choice.
        cutoff, softness
            See `Amplitudes`.
        """
        ours, theirs = [], []
        for lines in streamlines:
            longer = beyond_ends(lines)
            own = amplitudes_along(found, longer)
            with torch.no_grad():
                other = amplitudes_along(wanted, longer)
            # The outermost vertices count as sure, whatever is there: ∞.
            counted = other.isfinite() & own.detach().isfinite()
            counted &= found.grid.is_in(mask, found.grid.to_voxel(longer.points.T))
            ours.append(own[counted])
            theirs.append(other[counted])
        return cls(torch.cat(ours), torch.cat(theirs), cutoff, softness)


def survival_loss(amplitudes: Amplitudes) -> Float[Tensor, ""]:
    """Compare how surely streamlines go on: the mean divergence of one choice from the other.

    At each vertex a streamline goes on with the probability σ((amplitude − cutoff) / softness), as
    in `soft_survival`. The loss is the Kullback-Leibler divergence of the prediction's from the
    target's: 0 where the amplitudes are equal, linear in amplitudes that are far below the cutoff
    and should not be, and next to nothing where both are far above. Its least expected value is
    at the probability with which the target goes on, not at its mean amplitude: unlike squares of
    coefficients, it does not trade streamlines for smoothness.

    Returns
    -------
    Tensor
        Exactly 0, with a graph, where there is no vertex.

    References
    ----------
    Kullback & Leibler 1951, doi:10.1214/aoms/1177729694.
    """
    found, wanted = amplitudes.found, amplitudes.wanted.to(amplitudes.found)
    if not len(found):
        return found.sum()
    surplus = (found - amplitudes.cutoff) / amplitudes.softness
    goes_on = torch.sigmoid((wanted - amplitudes.cutoff) / amplitudes.softness)
    entropy = torch.nn.functional.binary_cross_entropy
    crossed = torch.nn.functional.binary_cross_entropy_with_logits(surplus, goes_on)
    return crossed - entropy(goes_on, goes_on)


@torch.no_grad()
def beyond_ends(streamlines: Streamlines) -> Streamlines:
    """Go on at both ends, straight ahead, for two vertices: the first is looked at.

    Parameters
    ----------
    streamlines
        Each of two vertices at least; none keeps its graph.

    Returns
    -------
    Streamlines
        With four vertices more each.
    """
    points, offsets = streamlines.points.detach(), streamlines.offsets
    first, last = offsets[:-1], offsets[1:] - 1
    n = torch.arange(len(streamlines), device=offsets.device)
    longer = offsets + 4 * torch.arange(len(offsets), device=offsets.device)
    found = points.new_empty((len(points) + 4 * len(n), 3))
    owner = n.repeat_interleave(streamlines.n_vertices())
    found[torch.arange(len(points), device=offsets.device) + 4 * owner + 2] = points
    before, after = points[first] - points[first + 1], points[last] - points[last - 1]
    for steps in (1, 2):
        found[longer[:-1] + 2 - steps] = points[first] + steps * before
        found[longer[1:] - 3 + steps] = points[last] + steps * after
    return replace(streamlines, points=found, offsets=longer)
