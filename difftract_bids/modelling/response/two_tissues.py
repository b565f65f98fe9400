"""Fibres and fluid told apart in each voxel: multi-tissue deconvolution over arrays."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float

from difftract_bids.core.deconvolution import msmt_csd
from difftract_bids.io.gradients import GradientTable
from difftract_bids.modelling.zonal import Response


def deconvolve_two_tissues(
    signal: Float[np.ndarray, "voxel volume"],
    gradients: GradientTable,
    white: Response,
    fluid: Response,
    lmax: int,
) -> tuple[Float[np.ndarray, "voxel coeff"], Float[np.ndarray, " voxel"]]:
    """Deconvolve all shells into an fODF and an isotropic rest, neither of them negative.

    Parameters
    ----------
    signal
        Signal of all volumes.
    gradients
        Their table; its shells are those of the responses.
    white, fluid
        Response of each tissue; the second is isotropic.
    lmax
        Largest degree of the fODF.

    Returns
    -------
    fodf
        Coefficients in MRtrix's basis, the frame of the gradient table.
    amount
        Coefficient of the fluid; sqrt(1 / 4π) where the signal is its response.

    References
    ----------
    Jeurissen et al. 2014, doi:10.1016/j.neuroimage.2014.07.061.
    """
    shell = np.zeros(len(gradients.bvals_s_mm2), dtype=np.int64)
    for number, (_, volumes) in enumerate(gradients.shell_volumes()):
        shell[volumes] = number
    # A volume of b=0 may have a direction, which means nothing.
    bvecs = np.where(gradients.b0_mask[:, None], 0.0, gradients.bvecs)
    fodf, amount = msmt_csd(
        torch.from_numpy(np.ascontiguousarray(signal, np.result_type(signal, np.float32))),
        torch.from_numpy(bvecs),
        torch.from_numpy(shell),
        [torch.from_numpy(np.array(tissue.coefficients)) for tissue in (white, fluid)],
        lmax=(lmax, 0),
    )
    return fodf.numpy(), amount.numpy()[:, 0]
