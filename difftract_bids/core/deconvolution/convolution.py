"""The signal that an fODF gives: its convolution with a zonal response, as a matrix."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from difftract_bids.core.sh import sh_basis, sh_degrees_and_orders


def zonal_gain(
    response: Float[Tensor, "*batch order"], lmax: int
) -> Float[Tensor, "*batch coeff"]:
    """Tell by what a convolution with a zonal response multiplies each coefficient.

    Parameters
    ----------
    response
        Zonal coefficients of degrees 0, 2, ... in MRtrix's convention; missing ones count as 0.
    lmax
        Largest degree.

    References
    ----------
    Tournier et al. 2007, doi:10.1016/j.neuroimage.2007.02.016, equation 1.
    """
    degrees = torch.tensor(
        [degree for degree, _ in sh_degrees_and_orders(lmax)], device=response.device
    )
    missing = lmax // 2 + 1 - response.shape[-1]
    whole = torch.nn.functional.pad(response, (0, max(missing, 0)))
    scale = torch.sqrt(4 * math.pi / (2 * degrees + 1)).to(response.dtype)
    return scale * whole[..., degrees // 2]


def convolution_matrix(
    bvecs: Float[Tensor, "volume 3"], response: Float[Tensor, "volume order"], lmax: int
) -> Float[Tensor, "volume coeff"]:
    """Map an fODF to the signal of each volume.

    Parameters
    ----------
    bvecs
        Unit gradient directions, scanner axes; a zero vector has no direction, and only the mean
        of the fODF counts in its volume.
    response
        Zonal coefficients of the response at the b-value of each volume.
    lmax
        Largest degree of the fODF.
    """
    basis = sh_basis(bvecs, lmax)
    # Whatever is not weighted has the same signal in all directions.
    directed = (bvecs.detach() != 0).any(dim=1, keepdim=True)
    isotropic = torch.zeros_like(basis)
    isotropic[:, 0] = basis[:, 0]
    return torch.where(directed, basis, isotropic) * zonal_gain(response, lmax)
