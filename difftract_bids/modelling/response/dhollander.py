"""Response functions of white matter, grey matter and fluid, unsupervised."""

from __future__ import annotations

import warnings

import numpy as np
from jaxtyping import Bool, Float

from difftract_bids.errors import ConfigError, GradientError, InputError
from difftract_bids.io.gradients import GradientTable
from difftract_bids.modelling.response.anisotropy import fit_anisotropy
from difftract_bids.modelling.response.lobes import peak_amplitudes
from difftract_bids.modelling.response.single_shell import DEFAULT_LMAX
from difftract_bids.modelling.response.tissues import divide_tissues, share_of, signal_decay
from difftract_bids.modelling.response.two_tissues import deconvolve_two_tissues
from difftract_bids.modelling.response.voxels import eroded, top, usable_voxels
from difftract_bids.modelling.zonal import Response, fit_zonal

__all__ = ["estimate_tissue_responses"]

_EROSION_STEPS = 3
#: A mask is eroded no further than this.
_LEAST_VOXELS = 1000
#: Of the refined white matter, the share from which the single-fibre response is estimated.
_SINGLE_FIBRE_SHARE = 0.005
#: A response from fewer voxels is doubtful.
_FEW_VOXELS = 10


def estimate_tissue_responses(
    dwi: Float[np.ndarray, "x y z volume"],
    gradients: GradientTable,
    mask: Bool[np.ndarray, "x y z"],
    lmax: int | None = None,
) -> dict[str, Response]:
    """Estimate the responses of white matter, grey matter and cerebrospinal fluid.

    Parameters
    ----------
    dwi
        Diffusion series.
    gradients
        Its table, with b=0 and at least one shell.
    mask
        Brain mask; it is eroded three times (less if it is small).
    lmax
        Largest degree of the white matter's response in every shell but b=0; 10 unless told.

    Returns
    -------
    dict of str to Response
        ``WM``, and isotropic ``GM`` and ``CSF``; rows for b=0 and every shell.

    Raises
    ------
    ConfigError
        If ``lmax`` is not an even number from 2.
    GradientError
        If the table does not fit the series, or lacks b=0 or a shell.
    InputError
        If the mask has no voxels with signal, or a tissue is not to be found.

    Warns
    -----
    UserWarning
        If a tissue has fewer than 10 voxels, fluid does not decay fastest, or voxels of the mask
        had to be left out.

    References
    ----------
    Dhollander, Raffelt and Connelly 2016, ISMRM Workshop on Breaking the Barriers of Diffusion
    MRI, 5; Dhollander et al. 2019, Proc. ISMRM 27, 555 (single-fibre voxels); as MRtrix3 3.0.3's
    ``dwi2response dhollander``.
    """
    lmax = DEFAULT_LMAX if lmax is None else lmax
    if lmax < 2 or lmax % 2:
        raise ConfigError(
            f"A response cannot have lmax {lmax}.", where="lmax", remedy="Choose an even number."
        )
    usable = usable_voxels(dwi, gradients, mask)
    if not gradients.n_directions:
        raise GradientError("There is no diffusion-weighted volume.", remedy="Merge the series.")
    safe = usable & eroded(mask, _EROSION_STEPS, least=_LEAST_VOXELS)
    decay = signal_decay(dwi[safe], gradients)
    safe[safe], decay = decay > 0, decay[decay > 0]
    if not len(decay):
        raise InputError(
            "In no voxel is the diffusion-weighted signal smaller than that at b=0.",
            remedy="Check that the b-values belong to this series.",
        )
    signal = dwi[safe]
    anisotropy = fit_anisotropy(signal, gradients)
    tissues = divide_tissues(decay, anisotropy.fa)
    isotropic = {
        "GM": _mean_signal(signal[tissues.grey], gradients),
        "CSF": _mean_signal(signal[tissues.fluid], gradients),
    }
    chosen = np.flatnonzero(tissues.white)
    chosen = chosen[_single_fibres(signal[chosen], gradients, isotropic["CSF"])]
    white = _single_fibre_response(signal[chosen], gradients, anisotropy.direction[chosen], lmax)
    responses = {"WM": white, **isotropic}
    _check(responses, (len(chosen), tissues.grey.sum(), tissues.fluid.sum()))
    return responses


def _single_fibres(
    signal: Float[np.ndarray, "voxel volume"], gradients: GradientTable, fluid: Response
) -> Bool[np.ndarray, " voxel"]:
    """Choose the white-matter voxels with the largest fODF peak for their size.

    The response is an extreme one, of a flat disc, and what it leaves is fluid. A coarse fODF
    chooses twice as many voxels as are needed, a sharper one half of these.
    """
    bvals = fluid.bvals_s_mm2
    size = np.median(signal.mean(axis=1, dtype=np.float64)) * np.sqrt(4 * np.pi)
    disc = size * np.array([[1, -1, 1, -1] if bval > 0 else [1, 0, 0, 0] for bval in bvals])
    number = share_of(np.ones(len(signal), dtype=bool), _SINGLE_FIBRE_SHARE)
    chosen = np.ones(len(signal), dtype=bool)
    for lmax, wanted in ((2, 2 * number), (6, number)):
        fodf, water = deconvolve_two_tissues(
            signal[chosen], gradients, Response(bvals, disc), fluid, lmax
        )
        total = fodf[:, 0] + water
        score = np.divide(
            peak_amplitudes(fodf, 1)[:, 0], total, out=np.zeros_like(total), where=total > 0
        )
        chosen[chosen] = top(score, wanted)
    return chosen


def _mean_signal(signal: Float[np.ndarray, "voxel volume"], gradients: GradientTable) -> Response:
    shells = gradients.shell_volumes()
    means = [
        [signal[:, volumes].mean(dtype=np.float64) * np.sqrt(4 * np.pi)] for _, volumes in shells
    ]
    return Response(tuple(bval for bval, _ in shells), np.array(means))


def _single_fibre_response(
    signal: Float[np.ndarray, "voxel volume"],
    gradients: GradientTable,
    fibres: Float[np.ndarray, "voxel 3"],
    lmax: int,
) -> Response:
    isotropic = _mean_signal(signal, gradients)
    coefficients = np.zeros((len(isotropic.bvals_s_mm2), lmax // 2 + 1))
    coefficients[:, 0] = isotropic.coefficients[:, 0]
    for row, (bval, volumes) in zip(coefficients, gradients.shell_volumes(), strict=True):
        if bval > 0:
            bvecs = gradients.bvecs[volumes]
            row[:] = fit_zonal(signal[:, volumes], bvecs, fibres, lmax, constrained=True)
    return Response(isotropic.bvals_s_mm2, coefficients)


def _check(responses: dict[str, Response], counts: tuple[int, ...]) -> None:
    for tissue, count in zip(responses, counts, strict=True):
        if count < _FEW_VOXELS:
            warnings.warn(
                f"The response function of {tissue} comes from {count} voxels only. Check the "
                "brain mask.",
                stacklevel=3,
            )
        means = responses[tissue].coefficients[:, 0]
        if not (means > 0).all():
            raise InputError(
                f"The mean signal of {tissue} is {means.min():g} in one shell.",
                remedy="Look at the diffusion-weighted volumes: they may be empty.",
            )
    decay = {
        tissue: float(np.log(response.coefficients[0, 0] / response.coefficients[-1, 0]))
        for tissue, response in responses.items()
    }
    if decay["CSF"] <= max(decay["WM"], decay["GM"]):
        told = ", ".join(f"{tissue} {value:.2f}" for tissue, value in decay.items())
        warnings.warn(
            "The response function of CSF does not decay fastest (ln of b=0 over the largest "
            f"shell: {told}). Check the brain mask and the b-values.",
            stacklevel=3,
        )
