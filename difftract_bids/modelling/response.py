"""Estimating the single-fibre response function."""

from __future__ import annotations

import warnings

import numpy as np
from dipy.data import get_sphere
from jaxtyping import Bool, Float, Int
from scipy import ndimage

from difftract_bids.errors import GradientError, InputError
from difftract_bids.io.gradients import GradientTable, deconvolution_shell
from difftract_bids.modelling.fodf import deconvolve, sh_basis
from difftract_bids.modelling.tensor import fit_tensor
from difftract_bids.modelling.zonal import Response, fit_zonal

__all__ = ["Response", "estimate_response"]

_N_SINGLE_FIBRE = 300
#: Voxels among which single fibres are looked for, per voxel finally used.
_CANDIDATES_PER_VOXEL = 10
_EROSION_STEPS = 3
_MAX_ROUNDS = 10
#: A fit to fewer voxels than this is noise.
_MIN_VOXELS = 5
#: Anisotropy of single white-matter bundles is above this even at low resolution.
_DOUBTFUL_FA = 0.4


def estimate_response(
    dwi: Float[np.ndarray, "x y z volume"],
    gradients: GradientTable,
    mask: Bool[np.ndarray, "x y z"],
    lmax: int,
) -> Response:
    """Estimate the response from the 300 voxels that look most like a single fibre.

    Starts from the most anisotropic voxels of the eroded mask, then deconvolves ten times as many
    candidates with the response so far and keeps those whose second peak is smallest, until the
    choice no longer changes. The signals of the chosen voxels are fitted together, each about its
    tensor's principal direction.

    Parameters
    ----------
    dwi
        Diffusion series.
    gradients
        Its table; the shell is chosen as for the fODF.
    mask
        Brain mask. A small one is eroded less.
    lmax
        Largest degree of the response.

    Returns
    -------
    Response
        Rows for b=0 and for the shell that is deconvolved.

    Raises
    ------
    InputError
        If fewer than 5 voxels have any anisotropy, or the response is not positive.
    GradientError
        If the table does not fit the series or no shell can be deconvolved.

    Warns
    -----
    UserWarning
        If the voxels chosen are hardly anisotropic.

    References
    ----------
    Tournier et al. 2013, doi:10.1002/nbm.3017.
    """
    if not gradients.b0_mask.any():
        raise GradientError("There is no b=0 volume.", remedy="Add one to the series.")
    bval, volumes = deconvolution_shell(gradients)
    tensor = fit_tensor(dwi, gradients, mask)
    candidates = _most_anisotropic(tensor.fa, mask)
    signal = np.nan_to_num(dwi[candidates].astype(np.float64), posinf=0.0, neginf=0.0)
    fibres = tensor.v1[candidates].astype(np.float64)
    chosen = _single_fibre_voxels(signal[:, volumes], gradients.bvecs[volumes], fibres, lmax)
    fa = float(np.median(tensor.fa[candidates][chosen]))
    if fa < _DOUBTFUL_FA:
        warnings.warn(
            f"The response function comes from voxels with a median anisotropy of {fa:.2f}; "
            "single fibres have about 0.7. Check the gradient table, the mask and the images.",
            stacklevel=2,
        )
    coefficients = np.zeros((2, lmax // 2 + 1))
    coefficients[0, 0] = signal[chosen][:, gradients.b0_mask].mean() * np.sqrt(4 * np.pi)
    coefficients[1] = fit_zonal(
        signal[chosen][:, volumes], gradients.bvecs[volumes], fibres[chosen], lmax
    )
    if not coefficients[1, 0] > 0:
        raise InputError(
            f"The mean signal of {len(chosen)} single-fibre voxels is {coefficients[1, 0]:g}.",
            remedy="Look at the diffusion-weighted volumes: they may be empty.",
        )
    return Response((0.0, bval), coefficients)


def _most_anisotropic(
    fa: Float[np.ndarray, "x y z"], mask: Bool[np.ndarray, "x y z"]
) -> tuple[Int[np.ndarray, " voxel"], ...]:
    """Return the voxel indices of the candidates, most anisotropic first."""
    interior = mask & (fa > 0)
    for steps in range(_EROSION_STEPS, 0, -1):
        eroded = ndimage.binary_erosion(mask, iterations=steps) & (fa > 0)
        if eroded.sum() >= _N_SINGLE_FIBRE:
            interior = eroded
            break
    where = np.nonzero(interior)
    if len(where[0]) < _MIN_VOXELS:
        raise InputError(
            f"Only {len(where[0])} voxels in the mask have any anisotropy; a response function "
            f"needs {_MIN_VOXELS}.",
            remedy="Check the brain mask and that the series is diffusion-weighted.",
        )
    order = np.argsort(-fa[where], kind="stable")[: _N_SINGLE_FIBRE * _CANDIDATES_PER_VOXEL]
    return tuple(index[order] for index in where)


def _single_fibre_voxels(
    signal: Float[np.ndarray, "voxel direction"],
    bvecs: Float[np.ndarray, "direction 3"],
    fibres: Float[np.ndarray, "voxel 3"],
    lmax: int,
) -> Int[np.ndarray, " chosen"]:
    chosen = np.arange(min(_N_SINGLE_FIBRE, len(signal)))
    if len(signal) <= _N_SINGLE_FIBRE:
        return chosen
    for _ in range(_MAX_ROUNDS):
        response = fit_zonal(signal[chosen], bvecs, fibres[chosen], lmax)
        if not response[0] > 0:
            break
        first, second = _peak_amplitudes(deconvolve(signal, bvecs, response, lmax), lmax)
        # Tournier 2013: a large first peak, and a second one that is small beside it.
        score = np.sqrt(first) * (1 - second / np.maximum(first, 1e-12)) ** 2
        best = np.sort(np.argsort(-score, kind="stable")[:_N_SINGLE_FIBRE])
        if np.array_equal(best, chosen):
            break
        chosen = best
    return chosen


def _peak_amplitudes(
    fodf: Float[np.ndarray, "voxel coeff"], lmax: int
) -> tuple[Float[np.ndarray, " voxel"], Float[np.ndarray, " voxel"]]:
    """Return the two largest local maxima of each fODF over a sphere of 724 points."""
    sphere = get_sphere(name="repulsion724")
    # One half of the sphere suffices, but neighbours across its rim are needed: keep the whole.
    amplitude = fodf @ sh_basis(sphere.vertices, lmax).T
    is_peak = amplitude > 0
    for one, other in sphere.edges:
        is_peak[:, one] &= amplitude[:, one] >= amplitude[:, other]
        is_peak[:, other] &= amplitude[:, other] > amplitude[:, one]
    ranked = -np.sort(-np.where(is_peak, amplitude, 0.0), axis=1)
    return ranked[:, 0], ranked[:, 2]  # each peak has its antipode
