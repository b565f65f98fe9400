"""The one value class of the core: a set of streamlines and where each came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import torch
from jaxtyping import Float, Int
from torch import Tensor


class StopReason(IntEnum):
    """Why a streamline ended where it did."""

    NONE = 0
    OUTSIDE_IMAGE = 1  #: left the image, or came to a voxel without an fODF
    NO_PEAK = 2  #: the peak search did not converge
    BELOW_CUTOFF = 3  #: the fODF's amplitude along the peak was below the cutoff
    HIGH_CURVATURE = 4  #: turned by more than the largest angle in one step
    LEFT_MASK = 5  #: the next vertex would have been outside the mask
    MAX_LENGTH = 6  #: reached the largest length
    ALL_INCLUDED = 7  #: had visited every region to visit, and was told to stop then
    ENTERED_EXCLUDE = 8  #: entered a region to keep out of; such a streamline is not kept
    ENTERED_CORTEX = 9  #: came to cortical grey matter; the vertex there is its last
    WITHIN_DEEP_GREY = 10  #: could not go on within deep grey matter
    LEFT_DEEP_GREY = 11  #: left deep grey matter, and was cut back to where the fODF is least
    LEFT_TISSUE = 12  #: the next vertex would have been outside the tissue image
    ENTERED_FLUID = 13  #: entered cerebrospinal fluid; such a streamline is not kept


class SeedStatus(IntEnum):
    """What became of a seed."""

    KEPT = 0
    OUTSIDE_IMAGE = 1  #: outside the image, or in a voxel without an fODF
    NO_PEAK = 2  #: no peak was found from the seed's direction
    BELOW_CUTOFF = 3  #: the peak is below the cutoff
    OUTSIDE_MASK = 4  #: outside the mask
    SINGLE_VERTEX = 5  #: not a step could be made
    TOO_SHORT = 6  #: shorter than the smallest length
    EXCLUDED = 7  #: started in, or came to, a region to keep out of
    MISSED_INCLUDE = 8  #: did not visit every region to visit
    UNSUITABLE_TISSUE = 9  #: in cerebrospinal fluid or beyond the border of grey matter
    ENDED_IN_FLUID = 10  #: came to cerebrospinal fluid
    ENDED_IN_WHITE_MATTER = 11  #: could not go on where a streamline does not end
    TOO_LONG = 12  #: reached the largest length before it came to grey matter
    STAYED_IN_DEEP_GREY = 13  #: started in deep grey matter and never left it


@dataclass
class GradientReport:
    """What backward passes through some streamlines met; filled as they are made.

    Attributes
    ----------
    passes
        How many there were.
    growth
        Of the last one, for each streamline: length of the derivative by its seed, over the
        summed lengths of the derivatives by its vertices. Long products of Jacobians can grow.
    bounded
        How many peaks were so flat, in all, that their curvature was bounded to keep the
        derivative finite (two about to merge), or were none (a search that ended on a slope).
        The gradient of a streamline through such a place is not to be trusted.
    """

    passes: int = 0
    growth: Float[Tensor, " n"] | None = None
    bounded: int = 0

    def add(self, growth: Float[Tensor, " n"], bounded: int) -> None:
        """Take note of a backward pass."""
        self.passes += 1
        self.growth = growth
        self.bounded += bounded


@dataclass(frozen=True)
class Streamlines:
    """Kept streamlines, their vertices one after another.

    Attributes
    ----------
    points
        Vertices, RAS+ millimetres, in ``tckgen``'s order: the half that starts in the seed's
        direction reversed, the seed, the other half.
    offsets
        Streamline ``i`` is ``points[offsets[i]:offsets[i + 1]]``.
    seed_index
        Which seed each streamline came from; ascending.
    seed_vertex
        Which vertex of each streamline is its seed.
    stop_reason
        `StopReason` at the first and at the last vertex.
    seed_status
        `SeedStatus` of every seed, also of those that gave no streamline.
    gradient_report
        What backward passes met; ``None`` if the reference tracked.
    """

    points: Float[Tensor, "p 3"]
    offsets: Int[Tensor, " n+1"]
    seed_index: Int[Tensor, " n"]
    seed_vertex: Int[Tensor, " n"]
    stop_reason: Int[Tensor, "n 2"]
    seed_status: Int[Tensor, " seeds"]
    gradient_report: GradientReport | None = None

    def __len__(self) -> int:
        return len(self.seed_index)

    def __getitem__(self, index: int) -> Float[Tensor, "vertex 3"]:
        """Vertices of one streamline, RAS+ millimetres."""
        place = range(len(self))[index]  # negative indices, and an IndexError at the end
        return self.points[self.offsets[place] : self.offsets[place + 1]]

    def ends(self) -> Float[Tensor, "n 2 3"]:
        """First and last vertex of each streamline, RAS+ millimetres."""
        return torch.stack([self.points[self.offsets[:-1]], self.points[self.offsets[1:] - 1]], 1)

    def n_vertices(self) -> Int[Tensor, " n"]:
        """Count the vertices of each streamline."""
        return self.offsets.diff()

    def lengths_mm(self) -> Float[Tensor, " n"]:
        """Sum the segments of each streamline, millimetres; differentiable."""
        counts = self.n_vertices()
        owner = torch.repeat_interleave(torch.arange(len(self), device=counts.device), counts)
        inner = torch.nonzero(owner[1:] == owner[:-1]).squeeze(1)
        segments = torch.linalg.vector_norm(self.points[inner + 1] - self.points[inner], dim=1)
        return self.points.new_zeros(len(self)).index_add(0, owner[inner], segments)

    def count_seeds(self) -> dict[SeedStatus, int]:
        """Count the seeds of each status; those that do not occur are left out."""
        counts = torch.bincount(self.seed_status.long(), minlength=len(SeedStatus)).tolist()
        return {status: counts[status] for status in SeedStatus if counts[status]}

    def count_stops(self) -> dict[StopReason, int]:
        """Count the ends of each reason; those that do not occur are left out."""
        counts = torch.bincount(
            self.stop_reason.long().ravel(), minlength=len(StopReason)
        ).tolist()
        return {reason: counts[reason] for reason in StopReason if counts[reason]}


def concatenate(parts: Sequence[Streamlines]) -> Streamlines:
    """Join the streamlines of successive runs of seeds, whose indices go on counting."""
    first_point = first_seed = 0
    offsets = [parts[0].offsets[:1]]
    seed_index = []
    for part in parts:
        offsets.append(part.offsets[1:] + first_point)
        seed_index.append(part.seed_index + first_seed)
        first_point += len(part.points)
        first_seed += len(part.seed_status)
    return Streamlines(
        points=torch.cat([part.points for part in parts]),
        offsets=torch.cat(offsets),
        seed_index=torch.cat(seed_index),
        seed_vertex=torch.cat([part.seed_vertex for part in parts]),
        stop_reason=torch.cat([part.stop_reason for part in parts]),
        seed_status=torch.cat([part.seed_status for part in parts]),
    )
