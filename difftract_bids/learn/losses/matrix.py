"""How far one matrix or image is from another, by their squares."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def relative_square(found: Float[Tensor, ...], target: Float[Tensor, ...]) -> Float[Tensor, ""]:
    """Divide the squared error by the target's square; by 1 where the target is zero."""
    wanted = target.detach().to(found)
    square = wanted.square().sum()
    return (found - wanted).square().sum() / square.where(square > 0, square.new_ones(()))
