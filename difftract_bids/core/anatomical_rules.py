"""What tissue does to streamlines under way: for the reference, see `core.kernels.streamline`.

The rules are those of ``tckgen -act``; see `difftract_bids.core.anatomy`.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from difftract_bids.core.anatomy import (
    LEFT_SEED,
    SEEDED_DEEP,
    SICK,
    Kind,
    TissueTable,
    tissues_at,
)
from difftract_bids.core.streamlines import SeedStatus, StopReason

_ENTERED_CORTEX = int(StopReason.ENTERED_CORTEX)
_WITHIN_DEEP_GREY = int(StopReason.WITHIN_DEEP_GREY)
_LEFT_DEEP_GREY = int(StopReason.LEFT_DEEP_GREY)
_ENTERED_FLUID = int(StopReason.ENTERED_FLUID)


class TissueRules:
    """The tissue that each streamline has met; without tissue it has no say.

    Parameters
    ----------
    table
        The tissue, if there is any.
    known
        Bits remembered of each seed, see `difftract_bids.core.anatomy.judge_seeds`.
    """

    def __init__(self, table: TissueTable | None, known: Int[Tensor, " m"]) -> None:
        self.table = table
        self.known = known.clone()
        self.depth = torch.zeros_like(known)

    def start_half(self) -> None:
        """Forget how many vertices have been in deep grey matter."""
        self.depth.zero_()

    def after_step(
        self, lane: Int[Tensor, " k"], position_mm: Float[Tensor, "3 k"], why: Int[Tensor, " k"]
    ) -> Int[Tensor, " k"]:
        """Say why streamlines end where their next vertex would be, and take note of it.

        Parameters
        ----------
        lane
            Which streamlines.
        position_mm
            Their next vertices.
        why
            `StopReason` of those that could not make a step, else 0.
        """
        if self.table is None:
            return why
        depth, known = self.depth[lane], self.known[lane]
        moved = why == 0
        here = tissues_at(self.table, position_mm)
        kind = here.kind()
        sick = torch.where(here.is_sick(), SICK, 0)
        known = torch.where(moved, known & (SEEDED_DEEP | LEFT_SEED) | sick, known)
        was_deep = depth > 0
        leaves = moved & was_deep & ((kind == Kind.FLUID) | (kind == Kind.PASSABLE))
        may_leave = (known & SEEDED_DEEP != 0) & (known & LEFT_SEED == 0) & (kind != Kind.FLUID)
        self.known[lane] = known | torch.where(leaves & may_leave, LEFT_SEED, 0)
        deeper = torch.where(moved & (kind == Kind.DEEP), depth + 1, depth)
        self.depth[lane] = torch.where(leaves & may_leave, 0, deeper)
        reason = torch.zeros_like(why)
        for applies, which in (
            (leaves & ~may_leave, _LEFT_DEEP_GREY),
            ((kind == Kind.FLUID) & ~was_deep, _ENTERED_FLUID),
            (kind == Kind.CORTEX, _ENTERED_CORTEX),
            (kind == Kind.NOWHERE, int(StopReason.LEFT_TISSUE)),
        ):
            reason = torch.where(applies, which, reason)
        stuck = torch.where(was_deep, _WITHIN_DEEP_GREY, why)
        return torch.where(moved, reason, stuck)

    def rejects(self, why: Int[Tensor, " m"]) -> Int[Tensor, " m"]:
        """Say for which `SeedStatus` ends for a reason reject a streamline, those of one half.

        To be asked at the end of a half, before the tissue of the next one is looked up.
        """
        status = torch.where(
            why == StopReason.ENTERED_EXCLUDE, int(SeedStatus.EXCLUDED), torch.zeros_like(why)
        )
        if self.table is None:
            return status
        within = (why > StopReason.OUTSIDE_IMAGE) & (why <= StopReason.HIGH_CURVATURE)
        for applies, which in (
            (within & (self.known & SICK == 0), SeedStatus.ENDED_IN_WHITE_MATTER),
            (why == StopReason.MAX_LENGTH, SeedStatus.TOO_LONG),
            (why == _ENTERED_FLUID, SeedStatus.ENDED_IN_FLUID),
        ):
            status = torch.where(applies, int(which), status)
        return status

    def never_left(self) -> Bool[Tensor, " m"]:
        """Tell streamlines that started in deep grey matter and stayed there."""
        return (self.known & SEEDED_DEEP != 0) & (self.known & LEFT_SEED == 0)
