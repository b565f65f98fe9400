"""Even spherical harmonics as one symmetric tensor: no trigonometry, no Legendre functions.

On the sphere an even series of degree L equals a homogeneous polynomial of degree L, and that is
a symmetric tensor T of order L applied L times to the direction: p(d) = T(d, ..., d). It has
exactly as many independent components as the series has coefficients. Contracting it L - 2 times
leaves a 3 × 3 matrix M, from which amplitude = d'Md, gradient = L Md and Hessian = L (L - 1) M.

Components are ordered by exponents (a, b, c) of (x, y, z), a + b + c = L, highest a first, then
highest b. Arrays have components first and samples last, so that each operation runs along
contiguous memory.

References
----------
Barmpoutis et al. 2009, doi:10.1016/j.neuroimage.2008.10.056 (Cartesian tensors for orientation
functions); Schultz and Seidel 2008, doi:10.1109/TVCG.2008.128 (their maxima).
"""

from __future__ import annotations

import math
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from difftract_bids.core.sh import n_coefficients, sh_basis


@cache
def exponents(order: int) -> tuple[tuple[int, int, int], ...]:
    """List the exponents (a, b, c) of each component of a symmetric tensor, in our order."""
    return tuple(
        (a, b, order - a - b) for a in range(order, -1, -1) for b in range(order - a, -1, -1)
    )


@cache
def _sh_to_tensor_float64(lmax: int) -> Float[Tensor, "component coeff"]:
    # Twice as many directions as unknowns, evenly spread over a hemisphere (a Fibonacci lattice):
    # the fit is exact to rounding, because both bases span the same functions.
    count = 2 * n_coefficients(lmax)
    index = torch.arange(count, dtype=torch.float64)
    z = (index + 0.5) / count
    angle = math.pi * (1 + math.sqrt(5)) * index
    radius = torch.sqrt(1 - z * z)
    directions = torch.stack([radius * torch.cos(angle), radius * torch.sin(angle), z], dim=-1)
    return torch.linalg.lstsq(
        _monomials(directions.T, lmax).T, sh_basis(directions, lmax)
    ).solution


def sh_to_tensor(sh_coeffs: Float[Tensor, "... coeff"], lmax: int) -> Float[Tensor, "... coeff"]:
    """Convert SH coefficients into tensor components, differentiably."""
    return sh_coeffs @ _sh_to_tensor_float64(lmax).to(sh_coeffs).T


def contract(
    tensor: Float[Tensor, "component n"],
    direction: Float[Tensor, "3 n"],
    order: int,
    to_order: int,
) -> Float[Tensor, "fewer n"]:
    """Apply a symmetric tensor of ``order`` to a direction until ``to_order`` slots are left."""
    x, y, z = direction.unbind(0)
    for degree in range(order, to_order, -1):
        along_y, along_z = _raised(degree, tensor.device)
        lower = tensor[: n_coefficients(degree - 1)] * x
        lower.addcmul_(tensor.index_select(0, along_y), y)
        tensor = lower.addcmul_(tensor.index_select(0, along_z), z)
    return tensor


@cache
def _raised(degree: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Find, for each component of order ``degree - 1``, those with one more y and one more z.

    The one with one more x stands at the same place, by the choice of the order.
    """
    place = {exponent: index for index, exponent in enumerate(exponents(degree))}
    lower = exponents(degree - 1)
    return (
        torch.tensor([place[a, b + 1, c] for a, b, c in lower], device=device),
        torch.tensor([place[a, b, c + 1] for a, b, c in lower], device=device),
    )


def slope_cotangent(
    direction: Float[Tensor, "3 n"], along: Float[Tensor, "3 n"], lmax: int
) -> Float[Tensor, "component n"]:
    """Differentiate the slope of p at a direction along a vector by the tensor's components.

    The slope ∇p(d)·w is linear in T; these are its coefficients, mult(e) (w·∇) d^e.
    """
    values, slopes = _powers(direction, lmax)
    px, py, pz = (value[index] for value, index in zip(values, _columns(lmax), strict=True))
    sx, sy, sz = (slope[index] for slope, index in zip(slopes, _columns(lmax), strict=True))
    wx, wy, wz = along
    total = (sx * wx) * py * pz + px * (sy * wy) * pz + px * py * (sz * wz)
    return total * _multiplicities(lmax).to(direction)[:, None]


def _monomials(direction: Float[Tensor, "3 n"], order: int) -> Float[Tensor, "component n"]:
    """Evaluate mult(e) d^e for every component."""
    values, _ = _powers(direction, order)
    px, py, pz = (value[index] for value, index in zip(values, _columns(order), strict=True))
    return px * py * pz * _multiplicities(order).to(direction)[:, None]


def _powers(direction: Float[Tensor, "3 n"], order: int) -> tuple[list[Tensor], list[Tensor]]:
    """Tabulate powers 0..order of x, y and z, and their derivatives."""
    values, slopes = [], []
    for component in direction:
        powers = [torch.ones_like(component)]
        for _ in range(order):
            powers.append(powers[-1] * component)
        table = torch.stack(powers)
        degree = torch.arange(1, order + 1, device=table.device, dtype=table.dtype)[:, None]
        values.append(table)
        slopes.append(torch.cat([torch.zeros_like(table[:1]), degree * table[:-1]]))
    return values, slopes


def _columns(order: int) -> list[list[int]]:
    return [list(axis) for axis in zip(*exponents(order), strict=True)]


@cache
def _multiplicities(order: int) -> Float[Tensor, " component"]:
    counts = [
        math.factorial(order) // math.prod(math.factorial(power) for power in exponent)
        for exponent in exponents(order)
    ]
    return torch.tensor(counts, dtype=torch.float64)
