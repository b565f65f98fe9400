"""Real, even spherical harmonics in the basis of MRtrix3 (DIPY's ``tournier07``, not legacy)."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from difftract_bids.errors import FodfError

#: Degrees from 2 to this one are tracked; beyond it float32 loses digits in the tensor form.
MAX_LMAX = 12


def n_coefficients(lmax: int) -> int:
    """Count the coefficients of an even series of maximum degree ``lmax``."""
    return (lmax + 1) * (lmax + 2) // 2


def lmax_of(n_coeff: int) -> int:
    """Find the maximum degree of an even series from its number of coefficients.

    Raises
    ------
    FodfError
        If no even degree from 2 to 12 has that many coefficients.
    """
    counts = {n_coefficients(lmax): lmax for lmax in range(2, MAX_LMAX + 1, 2)}
    if n_coeff not in counts:
        raise FodfError(
            f"{n_coeff} coefficients belong to no even degree from 2 to {MAX_LMAX}.",
            where="last axis of the fODF",
            remedy=f"Give {', '.join(map(str, counts))} coefficients in MRtrix's order.",
        )
    return counts[n_coeff]


def sh_degrees_and_orders(lmax: int) -> list[tuple[int, int]]:
    """List (degree l, order m) of each coefficient; (l, m) is at ``l (l + 1) / 2 + m``."""
    return [(degree, m) for degree in range(0, lmax + 1, 2) for m in range(-degree, degree + 1)]


def sh_basis(directions: Float[Tensor, "n 3"], lmax: int) -> Float[Tensor, "n coeff"]:
    """Evaluate every basis function in every direction.

    Written in Cartesian coordinates, with sinᵐθ cos(mφ) = Re (x + iy)ᵐ, so the poles are ordinary
    points and the result can be differentiated.

    Parameters
    ----------
    directions
        Unit vectors, in the axes the coefficients refer to.
    lmax
        Maximum degree, even.

    References
    ----------
    Tournier et al. 2019, doi:10.1016/j.neuroimage.2019.116137 (the basis of MRtrix3).
    """
    x, y, z = directions.unbind(-1)
    columns: dict[tuple[int, int], Tensor] = {}
    cosine, sine = torch.ones_like(x), torch.zeros_like(x)
    for m in range(lmax + 1):
        for degree, legendre in _legendre_over_sine_power(z, m, lmax).items():
            if degree % 2 == 0:
                scale = _normalisation(degree, m) * (math.sqrt(2) if m else 1.0)
                columns[degree, m] = scale * legendre * cosine
                if m:
                    columns[degree, -m] = scale * legendre * sine
        cosine, sine = x * cosine - y * sine, x * sine + y * cosine
    return torch.stack([columns[index] for index in sh_degrees_and_orders(lmax)], dim=-1)


def _legendre_over_sine_power(z: Float[Tensor, " n"], m: int, lmax: int) -> dict[int, Tensor]:
    """Evaluate P_l^m(z) / (1 - z²)^(m/2) for l = m..lmax, with the Condon-Shortley sign."""
    first = float((-1) ** m * math.prod(range(2 * m - 1, 0, -2)))
    values = {m: torch.full_like(z, first), m + 1: (2 * m + 1) * first * z}
    for degree in range(m + 2, lmax + 1):
        higher = (2 * degree - 1) * z * values[degree - 1]
        values[degree] = (higher - (degree + m - 1) * values[degree - 2]) / (degree - m)
    return {degree: value for degree, value in values.items() if degree <= lmax}


def _normalisation(degree: int, m: int) -> float:
    ratio = math.factorial(degree - m) / math.factorial(degree + m)
    return math.sqrt((2 * degree + 1) / (4 * math.pi) * ratio)
