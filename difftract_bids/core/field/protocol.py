"""What the propagator asks of a direction field."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Heading(NamedTuple):
    """Where to go from some positions.

    Attributes
    ----------
    direction
        Unit vectors; also where there is nothing to follow, so that what is computed from them
        stays finite until it is dropped.
    reason
        A `StopReason` where one cannot go on, else 0.
    """

    direction: Float[Tensor, "3 n"]
    reason: Int[Tensor, " n"]


class DirectionField(Protocol):
    """Where to go from a position: what the reference propagator follows."""

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of directions, and of the seeds it wants."""
        ...

    @property
    def device(self) -> torch.device:
        """Where directions are computed, and where seeds must be."""
        ...

    def heading(self, position_mm: Float[Tensor, "3 n"], start: Float[Tensor, "3 n"]) -> Heading:
        """Tell where to go from each position, when one comes along ``start``.

        Parameters
        ----------
        position_mm
            RAS+ millimetres.
        start
            Unit vectors, scanner axes. They choose among several directions, and between the two
            senses of one; no gradient goes to them.
        """
        ...

    def parameters(self) -> tuple[Tensor, ...]:
        """List the tensors that gradients may be wanted for, positions apart.

        A result without a streamline is tied to them, so that a training loop goes on.
        """
        ...
