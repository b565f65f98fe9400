"""Derivatives that fade, or are held, on their way back along a streamline: for the reference.

The kernels do the same in `difftract_bids.core.kernels.streamline`, where the reason stands why it
is wanted: products of many Jacobians grow, and a few chaotic streamlines then outweigh all others.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from difftract_bids.core.rules import TrackingRules


class Damping:
    """What happens to derivatives between the steps of one half of each streamline.

    Parameters
    ----------
    rules
        How much is left after a step, and how long a derivative may become.
    n_streamlines
        How many streamlines there are.
    """

    def __init__(self, rules: TrackingRules, n_streamlines: int) -> None:
        self.rules = rules
        self.entered = torch.zeros(n_streamlines, dtype=torch.float64)

    def apart(
        self, position_mm: Float[Tensor, "3 m"], lane: Int[Tensor, " m"]
    ) -> tuple[Float[Tensor, "3 m"], Float[Tensor, "3 m"]]:
        """Give a vertex twice: as a result, and as where the next step begins.

        Parameters
        ----------
        position_mm
            The vertices.
        lane
            Whose they are.
        """
        if not self.rules.damps_gradients:
            return position_mm, position_mm
        apart: tuple[Tensor, Tensor] = _Apart.apply(position_mm, lane, self)  # type: ignore[no-untyped-call]
        return apart

    def damped(self, gradient: Float[Tensor, "3 m"], lane: Int[Tensor, " m"]) -> Tensor:
        """Let a derivative fade, and hold it to what has gone in so far."""
        length = torch.linalg.vector_norm(gradient, dim=0)
        most = self.rules.gradient_limit * self.entered.to(gradient)[lane]
        held = torch.where(length > most, most / length, 1.0)
        return self.rules.gradient_kept * held * gradient


class _Apart(torch.autograd.Function):
    """A vertex as a result and as a place to go on from.

    Its backward pass is met from the last step to the first, so that what went in behind a
    vertex is known when its derivative comes by.
    """

    @staticmethod
    def forward(ctx: Any, position: Tensor, lane: Tensor, damping: Damping) -> tuple[Tensor, ...]:  # noqa: ANN401
        ctx.lane, ctx.damping = lane, damping
        return position.clone(), position.clone()

    @staticmethod
    def backward(ctx: Any, as_result: Tensor, as_start: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        passed_on = ctx.damping.damped(as_start, ctx.lane)
        entered = ctx.damping.entered.to(as_result.device)
        entered[ctx.lane] += torch.linalg.vector_norm(as_result, dim=0).double()
        ctx.damping.entered = entered
        return as_result + passed_on, None, None
