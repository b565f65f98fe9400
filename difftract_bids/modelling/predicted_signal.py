"""The signal that fODFs predict: the convolutions that a model deconvolves, as matrices."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Bool, Float

from difftract_bids.config import TISSUES, FittedModel
from difftract_bids.core.deconvolution.convolution import convolution_matrix
from difftract_bids.io.gradients import GradientTable, deconvolution_shell
from difftract_bids.modelling.zonal import Response


def convolution_matrices(
    gradients: GradientTable,
    responses: Mapping[str, Response],
    model: FittedModel,
    lmax: int,
) -> tuple[Bool[np.ndarray, " volume"], dict[str, Float[torch.Tensor, "used coeff"]]]:
    """Give the maps from each tissue's coefficients to the volumes that a model looks at.

    Parameters
    ----------
    gradients
        Gradient table.
    responses
        Responses by tissue, of shells that the table has.
    model
        ``csd``, ``ss2t`` or ``msmtcsd``: which volumes it uses is as in
        `difftract_bids.modelling.deconvolution.build_deconvolution`.
    lmax
        Largest degree of white matter; other tissues have no directions.

    Returns
    -------
    volumes
        Which volumes the model uses.
    matrices
        By tissue, white matter first; float64.

    References
    ----------
    Jeurissen et al. 2014, doi:10.1016/j.neuroimage.2014.07.061, equation 1.
    """
    if model == "msmtcsd":
        shells = gradients.shell_volumes()
    else:
        b0 = gradients.shell_volumes()[:1] if model == "ss2t" else []
        shells = [*b0, deconvolution_shell(gradients)]
    used = np.logical_or.reduce([volumes for _, volumes in shells])
    shell = np.argmax([volumes[used] for _, volumes in shells], axis=0)
    # A volume of b=0 may have a direction, which means nothing.
    bvecs = torch.from_numpy(np.where(gradients.b0_mask[:, None], 0.0, gradients.bvecs)[used])
    matrices = {}
    for tissue in TISSUES[model]:
        response = responses[tissue]
        apart = np.abs(np.subtract.outer([bval for bval, _ in shells], response.bvals_s_mm2))
        rows = torch.from_numpy(response.coefficients[apart.argmin(axis=1)])
        degree = lmax if tissue == "WM" else 0
        matrices[tissue] = convolution_matrix(bvecs.double(), rows[shell].double(), degree)
    return used, matrices
