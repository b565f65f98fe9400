"""What a network starts from: constrained deconvolution of the volumes that it is given.

A network that starts from nothing spends most of its training on learning to deconvolve, and what
it then gives is smoother than what deconvolution gives at once. One that starts there learns what
deconvolution cannot know: what few directions miss, and neighbours tell.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from difftract_bids.core.deconvolution import CSD
from difftract_bids.errors import InputError
from difftract_bids.io.gradients import GradientTable
from difftract_bids.learn.representation import relative_signal
from difftract_bids.learn.scan import Scan
from difftract_bids.modelling.response import average_responses, estimate_response

#: Value of the first spherical harmonic: a signal's mean over its first coefficient.
_Y00 = 1 / math.sqrt(4 * math.pi)


def common_response(scans: Sequence[Scan], lmax: int) -> tuple[float, ...]:
    """Average the responses of scans, relative to b=0.

    One response for all, as in a study of a group: what a voxel's fODF is then depends on that
    voxel alone, wherever the model is used.

    Parameters
    ----------
    scans
        Each with the volumes that the network is given.
    lmax
        Largest degree of the fODFs.

    Returns
    -------
    tuple of float
        Zonal coefficients of the shell that is deconvolved, MRtrix3's convention, in units of the
        mean signal at b=0.

    Raises
    ------
    InputError, GradientError
        If the response of a scan cannot be estimated.

    References
    ----------
    Raffelt et al. 2012, doi:10.1016/j.neuroimage.2011.10.045 (a common response for a group).
    """
    found = []
    for scan in scans:
        with warnings.catch_warnings():
            # Few directions are what networks are trained for.
            warnings.filterwarnings("ignore", category=UserWarning)
            try:
                found.append(
                    estimate_response(scan.dwi.numpy(), scan.gradients, scan.mask.numpy(), lmax)
                )
            except InputError as error:
                raise InputError(
                    f"No response could be estimated for {scan.label}: {error.what}",
                    where=scan.label,
                    remedy="Look at its image and its mask, leave it out, or set deconvolve = "
                    "false in [network].",
                ) from error
    mean = average_responses(found)
    b0 = mean.coefficients[0, 0] * _Y00
    return tuple((mean.deconvolved / b0).tolist())


def deconvolved_sh(
    dwi: Float[Tensor, "x y z volume"],
    gradients: GradientTable,
    mask: Bool[Tensor, "x y z"] | None,
    response: Sequence[float],
    *,
    bval_s_mm2: float,
    lmax: int,
) -> Float[Tensor, "x y z coeff"]:
    """Deconvolve the signal relative to b=0, differentiably.

    Parameters
    ----------
    dwi, gradients, mask
        See `signal_sh`.
    response
        From `common_response`.
    bval_s_mm2
        Of its shell, s/mm²; one of the table's.
    lmax
        Largest degree of the fODFs.

    Returns
    -------
    Tensor
        SH coefficients in MRtrix3's basis, scanner axes; zero where the signal is described by
        zeros.
    """
    _, volumes = min(gradients.shell_volumes(), key=lambda shell: abs(shell[0] - bval_s_mm2))
    inside, relative = relative_signal(dwi, gradients, mask)
    zonal = torch.tensor(response, dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*super-resolved", category=UserWarning)
        model = CSD(
            torch.from_numpy(gradients.bvecs), zonal, lmax, volumes=torch.from_numpy(volumes)
        )
        fodf = model.to(dwi.device)(relative)
    image = relative.new_zeros((*dwi.shape[:3], fodf.shape[-1]))
    return image.index_put((inside,), fodf.to(relative))
