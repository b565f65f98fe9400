"""Even SH coefficients in the bases that other programs write, to MRtrix3's basis and back.

All bases have the same functions up to their order, their signs and, in one, a factor: with the
complex harmonics Y (Condon-Shortley sign included) and m > 0,

===================== ==================== ===================
basis                 function of order -m function of order m
===================== ==================== ===================
mrtrix3               √2 Im Yₗᵐ            √2 Re Yₗᵐ
descoteaux07          (-1)ᵐ √2 Re Yₗᵐ      √2 Im Yₗᵐ
descoteaux07_legacy   √2 Re Yₗᵐ            √2 Im Yₗᵐ
tournier07_legacy     Im Yₗᵐ               Re Yₗᵐ
===================== ==================== ===================

so a conversion picks coefficients in another sequence and scales them. It does not rotate: the
axes that the coefficients refer to stay what they were.

References
----------
Tournier et al. 2019, doi:10.1016/j.neuroimage.2019.116137 (``mrtrix3``);
Descoteaux et al. 2007, doi:10.1002/mrm.21277 (``descoteaux07``, DIPY's with ``legacy=False``;
DIPY's default, ``legacy=True``, leaves the sign out); Tournier et al. 2007,
doi:10.1016/j.neuroimage.2007.02.016 (``tournier07_legacy``, of MRtrix 0.2).
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from difftract_bids.core.sh import lmax_of, sh_degrees_and_orders
from difftract_bids.errors import FodfError

ShBasis = Literal["mrtrix3", "descoteaux07", "descoteaux07_legacy", "tournier07_legacy"]

SH_BASES: tuple[ShBasis, ...] = get_args(ShBasis)


def to_basis(sh_coeffs: Float[Tensor, "*voxel coeff"], basis: ShBasis) -> Tensor:
    """Turn coefficients in MRtrix3's basis into those of the same function in another.

    Differentiable in ``sh_coeffs``; the shape stays.

    Parameters
    ----------
    sh_coeffs
        Coefficients in MRtrix3's basis, even degrees up to 2, 4, ... or 12.
    basis
        The basis wanted.

    Raises
    ------
    FodfError
        If the basis is not known, or no even degree has that many coefficients.
    """
    return _picked(sh_coeffs, basis, forth=True)


def from_basis(sh_coeffs: Float[Tensor, "*voxel coeff"], basis: ShBasis) -> Tensor:
    """Turn coefficients in another basis into those of the same function in MRtrix3's.

    Differentiable in ``sh_coeffs``; the shape stays. The inverse of `to_basis`.

    Parameters
    ----------
    sh_coeffs
        Coefficients in ``basis``, even degrees up to 2, 4, ... or 12.
    basis
        The basis they are in.

    Raises
    ------
    FodfError
        If the basis is not known, or no even degree has that many coefficients.
    """
    return _picked(sh_coeffs, basis, forth=False)


def _picked(sh_coeffs: Tensor, basis: ShBasis, *, forth: bool) -> Tensor:
    if basis not in SH_BASES:
        raise FodfError(
            f"The spherical harmonic basis {basis!r} is not known.",
            remedy=f"Choose one of {', '.join(SH_BASES)}.",
        )
    orders = [m for _, m in sh_degrees_and_orders(lmax_of(sh_coeffs.shape[-1]))]
    if basis == "mrtrix3":
        return sh_coeffs
    if basis == "tournier07_legacy":
        # Functions without the √2 need coefficients with it.
        factor = math.sqrt(2) if forth else 1 / math.sqrt(2)
        return sh_coeffs * sh_coeffs.new_tensor([factor if m else 1.0 for m in orders])
    # Place p of order m is p - 2m away from its mirror image; the swap is its own inverse.
    mirrored = [place - 2 * m for place, m in enumerate(orders)]
    swapped = sh_coeffs[..., torch.tensor(mirrored, device=sh_coeffs.device)]
    if basis == "descoteaux07_legacy":
        return swapped
    # Sines (m > 0 there, m < 0 here) are the same in both; cosines of odd order are negated.
    odd_cosines = [m % 2 == 1 and ((m < 0) == forth) for m in orders]
    return swapped * sh_coeffs.new_tensor([-1.0 if odd else 1.0 for odd in odd_cosines])
