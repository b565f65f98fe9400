"""Direction fields given by formulas, their streamlines in closed form.

Positions are RAS+ millimetres, rows of three; lengths are millimetres; everything is float64.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from difftract_bids.config import TrackingConfig
from difftract_bids.core.field import CallableField
from difftract_bids.core.propagate import track_field

Tangent = Callable[[torch.Tensor], torch.Tensor]


def analytic_field(tangent: Tangent) -> CallableField:
    return CallableField(tangent, dtype=torch.float64)


def point_after(
    tangent: Tangent, seed_mm: torch.Tensor, length_mm: float, n_steps: int, integrator: str
) -> torch.Tensor:
    """Go a length from a seed, in the field's own sense, in so many steps."""
    config = TrackingConfig(
        integrator=integrator,
        step_size_mm=length_mm / n_steps,
        min_length_mm=0.0,
        max_length_mm=length_mm,
    )
    start = tangent(seed_mm.detach()[None])
    start = start / start.norm()
    result = track_field(analytic_field(tangent), seed_mm[None], start.detach(), config)
    return result[0][int(result.seed_vertex[0]) - n_steps]


def circle(centre_mm: torch.Tensor) -> Tangent:
    """Tangents of the circles about an axis along z through (x, y)."""

    def tangent(position_mm: torch.Tensor) -> torch.Tensor:
        x, y, _ = position_mm.unbind(-1)
        across = torch.stack([centre_mm[1] - y, x - centre_mm[0], torch.zeros_like(x)], dim=-1)
        return across / across.norm(dim=-1, keepdim=True)

    return tangent


def on_circle(seed_mm: torch.Tensor, centre_mm: torch.Tensor, length_mm: float) -> torch.Tensor:
    return _turned(seed_mm, centre_mm, length_mm / (seed_mm[:2] - centre_mm).norm())


def helix(rise_mm: torch.Tensor) -> Tangent:
    """Tangents of the helices about the z axis that rise by so much in a radian."""

    def tangent(position_mm: torch.Tensor) -> torch.Tensor:
        x, y, _ = position_mm.unbind(-1)
        along = torch.stack([-y, x, rise_mm.expand_as(x)], dim=-1)
        return along / along.norm(dim=-1, keepdim=True)

    return tangent


def on_helix(seed_mm: torch.Tensor, rise_mm: torch.Tensor, length_mm: float) -> torch.Tensor:
    angle = length_mm / torch.sqrt((seed_mm[:2] ** 2).sum() + rise_mm[0] ** 2)
    axis = torch.zeros(2, dtype=torch.float64)
    return _turned(seed_mm, axis, angle) + torch.stack([0 * angle, 0 * angle, rise_mm[0] * angle])


def saddle(rate: torch.Tensor) -> Tangent:
    """Directions of x' = x, y' = -rate y, whose streamlines turn from the y to the x axis."""

    def tangent(position_mm: torch.Tensor) -> torch.Tensor:
        x, y, _ = position_mm.unbind(-1)
        flow = torch.stack([x, -rate * y, torch.zeros_like(x)], dim=-1)
        return flow / flow.norm(dim=-1, keepdim=True)

    return tangent


def on_saddle(seed_mm: torch.Tensor, rate: torch.Tensor, length_mm: float) -> torch.Tensor:
    """Follow (x e^t, y e^-rt) to the time at which its length is reached.

    The length is an integral (Gauss-Legendre); Newton's method inverts it, and its last step,
    taken with gradients, makes the time differentiable.
    """
    nodes, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(40))

    def speed(time: torch.Tensor) -> torch.Tensor:
        x = seed_mm[0] * torch.exp(time)
        y = rate[0] * seed_mm[1] * torch.exp(-rate[0] * time)
        return torch.sqrt(x * x + y * y)

    time = torch.zeros((), dtype=torch.float64)
    for _ in range(30):
        time = time.detach()
        excess = (weights * speed(time * (nodes + 1) / 2)).sum() * time / 2 - length_mm
        time = time - excess / speed(time).detach()
    x, y, z = seed_mm
    return torch.stack([x * torch.exp(time), y * torch.exp(-rate[0] * time), z])


def _turned(
    position_mm: torch.Tensor, centre_mm: torch.Tensor, angle: torch.Tensor
) -> torch.Tensor:
    dx, dy = position_mm[:2] - centre_mm
    cosine, sine = torch.cos(angle), torch.sin(angle)
    x = centre_mm[0] + cosine * dx - sine * dy
    y = centre_mm[1] + sine * dx + cosine * dy
    return torch.stack([x, y, position_mm[2]])
