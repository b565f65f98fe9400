"""One step along a direction field: Euler, midpoint, and two Runge-Kutta rules of four stages.

MRtrix tests the angle of each Euler step against the previous one. In the rules with stages only
the whole step is tested: its first stage against the peak at the new point; and if there is none
to follow there, the point is dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from difftract_bids.config import Integrator
from difftract_bids.core.field import DirectionField, Heading
from difftract_bids.core.streamlines import StopReason


class Step(NamedTuple):
    """The new positions and directions, and a `StopReason` where no step could be made."""

    position_mm: Float[Tensor, "3 n"]
    direction: Float[Tensor, "3 n"]
    reason: Int[Tensor, " n"]


@dataclass(frozen=True)
class StepRule:
    """What every integrator needs to know: the field, the step and the largest angle's cosine."""

    field: DirectionField
    step_size_mm: float
    cos_max_angle: float

    def turn(self, before: Float[Tensor, "3 n"], after: Float[Tensor, "3 n"]) -> Int[Tensor, " n"]:
        """Tell where the angle between two directions is too large."""
        cosine = (before.detach() * after.detach()).sum(0)
        return torch.where(cosine < self.cos_max_angle, int(StopReason.HIGH_CURVATURE), 0)


def euler(
    rule: StepRule, position_mm: Float[Tensor, "3 n"], direction: Float[Tensor, "3 n"]
) -> Step:
    """Go along the peak at the position: order 1."""
    here = rule.field.heading(position_mm, direction)
    reason = _first(here.reason, rule.turn(direction, here.direction))
    moved = position_mm + rule.step_size_mm * here.direction
    return Step(moved, here.direction.detach(), reason)


def midpoint(
    rule: StepRule, position_mm: Float[Tensor, "3 n"], direction: Float[Tensor, "3 n"]
) -> Step:
    """Go along the peak that is found half a step ahead: order 2."""
    k1 = rule.field.heading(position_mm, direction)
    half = position_mm + 0.5 * rule.step_size_mm * k1.direction
    k2 = rule.field.heading(half, k1.direction.detach())
    return _finish(rule, position_mm, k2.direction, (k1, k2))


def rk4(
    rule: StepRule, position_mm: Float[Tensor, "3 n"], direction: Float[Tensor, "3 n"]
) -> Step:
    """Go along MRtrix's mean of four peaks, made a unit vector: order 2 at the end point."""
    stages = _four_stages(rule, position_mm, direction)
    return _finish(rule, position_mm, _unit(_weighted_sum(stages)), stages)


def rk4_classic(
    rule: StepRule, position_mm: Float[Tensor, "3 n"], direction: Float[Tensor, "3 n"]
) -> Step:
    """Go along the mean of four peaks, shorter where they disagree: order 4."""
    stages = _four_stages(rule, position_mm, direction)
    return _finish(rule, position_mm, _weighted_sum(stages) / 6, stages)


INTEGRATORS: dict[Integrator, Callable[[StepRule, Tensor, Tensor], Step]] = {
    "euler": euler,
    "midpoint": midpoint,
    "rk4": rk4,
    "rk4_classic": rk4_classic,
}


def _four_stages(
    rule: StepRule, position_mm: Float[Tensor, "3 n"], direction: Float[Tensor, "3 n"]
) -> tuple[Heading, ...]:
    step = rule.step_size_mm
    k1 = rule.field.heading(position_mm, direction)
    k2 = rule.field.heading(position_mm + 0.5 * step * k1.direction, direction)
    k3 = rule.field.heading(position_mm + 0.5 * step * k2.direction, direction)
    ahead = _unit(k2.direction.detach() + k3.direction.detach())
    k4 = rule.field.heading(position_mm + step * k3.direction, ahead)
    return k1, k2, k3, k4


def _weighted_sum(stages: tuple[Heading, ...]) -> Float[Tensor, "3 n"]:
    k1, k2, k3, k4 = (stage.direction for stage in stages)
    return k1 + 2 * k2 + 2 * k3 + k4


def _finish(
    rule: StepRule,
    position_mm: Float[Tensor, "3 n"],
    slope: Float[Tensor, "3 n"],
    stages: tuple[Heading, ...],
) -> Step:
    """Make the step and test its end; no gradient comes from the test."""
    moved = position_mm + rule.step_size_mm * slope
    direction = _unit(slope.detach())
    with torch.no_grad():
        end = rule.field.heading(moved.detach(), direction)
    turned = rule.turn(stages[0].direction, end.direction)
    reasons = [stage.reason for stage in stages]
    return Step(moved, direction, _first(*reasons, end.reason, turned))


def _first(*reasons: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Take the first reason that is one."""
    result = reasons[0]
    for reason in reasons[1:]:
        result = torch.where(result == 0, reason, result)
    return result


def _unit(vector: Float[Tensor, "3 n"]) -> Float[Tensor, "3 n"]:
    x, y, z = vector
    length = torch.sqrt(x * x + y * y + z * z)
    return vector / torch.where(length > 0, length, 1)
