"""Fibres and fluid told apart in each voxel: multi-tissue deconvolution over arrays."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from difftract_bids.io.gradients import GradientTable
from difftract_bids.modelling.fodf import deconvolve_tissues
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
    fodf, amount = deconvolve_tissues(
        signal,
        gradients,
        gradients.shell_volumes(),
        [white.coefficients, fluid.coefficients],
        [lmax, 0],
    )
    return fodf, amount[:, 0]
