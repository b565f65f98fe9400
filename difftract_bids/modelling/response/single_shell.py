"""The response of a single fibre, for the one shell that is deconvolved."""

from __future__ import annotations

import warnings
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from difftract_bids.errors import ConfigError, InputError
from difftract_bids.io.gradients import GradientTable, deconvolution_shell
from difftract_bids.modelling.response.anisotropy import fit_anisotropy
from difftract_bids.modelling.response.tournier import single_fibre_voxels
from difftract_bids.modelling.response.voxels import MIN_VOXELS, eroded, top, usable_voxels
from difftract_bids.modelling.zonal import Response, fit_zonal

__all__ = ["estimate_response"]

#: MRtrix's default: all voxels are fitted together, which determines more than any one could.
DEFAULT_LMAX = 10
_N_SINGLE_FIBRE = 300
_FEW_VOXELS = 20
_EROSION_STEPS = 3
#: Anisotropy of single white-matter bundles is above this even at low resolution.
_DOUBTFUL_FA = 0.4


def estimate_response(
    dwi: Float[np.ndarray, "x y z volume"],
    gradients: GradientTable,
    mask: Bool[np.ndarray, "x y z"],
    lmax: int = DEFAULT_LMAX,
    *,
    algorithm: Literal["tournier", "fa"] = "tournier",
) -> Response:
    """Estimate the response from the 300 voxels that look most like a single fibre.

    Parameters
    ----------
    dwi
        Diffusion series.
    gradients
        Its table; the shell is chosen as for the fODF.
    mask
        Brain mask.
    lmax
        Largest degree of the response.
    algorithm
        ``tournier`` looks for one large and no second peak in fODFs, again and again;
        ``fa`` takes the most anisotropic voxels of the mask, eroded three times (less if it is
        small).

    Returns
    -------
    Response
        Rows for b=0 and for the shell that is deconvolved.

    Raises
    ------
    ConfigError
        If ``lmax`` is not an even number from 2, or the algorithm is unknown.
    InputError
        If fewer than 5 voxels have signal, or the response is not positive.
    GradientError
        If the table does not fit the series, there is no b=0, or no shell can be deconvolved.

    Warns
    -----
    UserWarning
        If the voxels chosen are few or hardly anisotropic, or voxels of the mask had to be left
        out.

    References
    ----------
    Tournier et al. 2013, doi:10.1002/nbm.3017 (tournier);
    Tournier et al. 2004, doi:10.1016/j.neuroimage.2004.07.037 (fa).
    """
    if lmax < 2 or lmax % 2:
        raise ConfigError(
            f"A response cannot have lmax {lmax}.", where="lmax", remedy="Choose an even number."
        )
    if algorithm not in ("tournier", "fa"):
        raise ConfigError(
            f"There is no algorithm {algorithm!r} for the response.",
            where="algorithm",
            remedy="Choose tournier or fa.",
        )
    usable = usable_voxels(dwi, gradients, mask)
    bval, volumes = deconvolution_shell(gradients)
    chosen = np.zeros_like(usable)
    if algorithm == "fa":
        where = usable & eroded(mask, _EROSION_STEPS, least=_N_SINGLE_FIBRE)
        anisotropy = fit_anisotropy(dwi[where], gradients)
        best = top(anisotropy.fa, _N_SINGLE_FIBRE)
        chosen[where] = best
        fibres = anisotropy.direction[best]
    else:
        signal = dwi[usable][:, volumes].astype(np.float64)
        chosen[usable], fibres = single_fibre_voxels(
            signal, gradients.bvecs[volumes], usable, lmax, _N_SINGLE_FIBRE
        )
    _check_choice(dwi[chosen], gradients)
    signal = dwi[chosen].astype(np.float64)
    coefficients = np.zeros((2, lmax // 2 + 1))
    coefficients[0, 0] = signal[:, gradients.b0_mask].mean() * np.sqrt(4 * np.pi)
    coefficients[1] = fit_zonal(
        signal[:, volumes], gradients.bvecs[volumes], fibres, lmax, constrained=True
    )
    if not (coefficients[:, 0] > 0).all():
        raise InputError(
            f"The mean signal of {len(signal)} single-fibre voxels is {coefficients[1, 0]:g}.",
            remedy="Look at the diffusion-weighted volumes: they may be empty.",
        )
    return Response((0.0, bval), coefficients)


def _check_choice(signal: Float[np.ndarray, "voxel volume"], gradients: GradientTable) -> None:
    if len(signal) < MIN_VOXELS:
        raise InputError(
            f"Only {len(signal)} voxels in the mask look like a fibre at all; a response function "
            f"needs {MIN_VOXELS}.",
            remedy="Check the brain mask and that the series is diffusion-weighted.",
        )
    if len(signal) < _FEW_VOXELS:
        warnings.warn(
            f"The response function comes from {len(signal)} voxels only. Check the brain mask.",
            stacklevel=3,
        )
    fa = float(np.median(fit_anisotropy(signal, gradients).fa))
    if fa < _DOUBTFUL_FA:
        warnings.warn(
            f"The response function comes from voxels with a median anisotropy of {fa:.2f}; "
            "single fibres have about 0.7. Check the gradient table, the mask and the images.",
            stacklevel=3,
        )
