"""Given streamlines with vertices at equal steps from their middles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from difftract_bids.core.streamlines import Streamlines


@dataclass(frozen=True, eq=False)
class Middles:
    """The middle of each streamline, by length, and how many steps go either way from there.

    Attributes
    ----------
    points_mm
        Vertices as given.
    along_mm
        Length of the way from the first vertex of all: one sum, in which what joins a streamline
        with the next counts too, but lies in neither.
    beyond
        The vertex after the last one of each streamline.
    centre_mm
        Where on it each streamline has its middle.
    half_steps
        Whole steps from the middle to either end.
    step_size_mm
        Length of a step.
    """

    points_mm: Float[Tensor, "p 3"]
    along_mm: Float[Tensor, " p"]
    beyond: Int[Tensor, " n"]
    centre_mm: Float[Tensor, " n"]
    half_steps: Int[Tensor, " n"]
    step_size_mm: float

    @classmethod
    def of(
        cls, points_mm: Float[Tensor, "p 3"], offsets: Int[Tensor, " n+1"], step_size_mm: float
    ) -> Self:
        """Find the middles; a streamline without a vertex has 0 steps, and no place."""
        points = points_mm.detach().double()
        along = points.new_zeros(len(points))
        along[1:] = torch.linalg.vector_norm(points.diff(dim=0), dim=1).cumsum(0)
        last = len(points) - 1
        first = along[offsets[:-1].clamp(max=last)]
        end = torch.maximum(along[(offsets[1:] - 1).clamp(min=0)], first)
        half = torch.floor((end - first) / 2 / step_size_mm).long()
        return cls(points, along, offsets[1:].long(), (first + end) / 2, half, step_size_mm)

    def centres_mm(self) -> Float[Tensor, "n 3"]:
        """Give the middles, RAS+ millimetres."""
        return self._at(self.centre_mm, self.beyond)

    def streamlines(self, chosen: Int[Tensor, " k"]) -> Streamlines:
        """Give some streamlines at equal steps along their way, float64, their middles as seeds.

        Parameters
        ----------
        chosen
            Which, ascending; each with a step at least.
        """
        half = self.half_steps[chosen]
        count = 2 * half + 1
        owner = torch.repeat_interleave(torch.arange(len(chosen), device=count.device), count)
        step = torch.arange(len(owner), device=count.device) - (count.cumsum(0) - half - 1)[owner]
        place = self.centre_mm[chosen][owner] + step * self.step_size_mm
        none = torch.zeros_like(half)
        return Streamlines(
            points=self._at(place, self.beyond[chosen][owner]),
            offsets=torch.cat([none[:1], count.cumsum(0)]),
            seed_index=torch.arange(len(chosen), device=count.device),
            seed_vertex=half,
            stop_reason=torch.stack([none, none], dim=1),
            seed_status=none,
        )

    def _at(
        self, place_mm: Float[Tensor, " m"], beyond: Int[Tensor, " m"]
    ) -> Float[Tensor, "m 3"]:
        """Go along the vertices to some places, each before the vertex ``beyond``."""
        before = torch.searchsorted(self.along_mm, place_mm, right=True) - 1
        before = torch.minimum(before, beyond - 1).clamp(min=0)
        after = torch.minimum(before + 1, beyond - 1).clamp(min=0)
        length = self.along_mm[after] - self.along_mm[before]
        share = (place_mm - self.along_mm[before]) / torch.where(length > 0, length, 1)
        first = self.points_mm[before]
        return first + share.clamp(0, 1)[:, None] * (self.points_mm[after] - first)
