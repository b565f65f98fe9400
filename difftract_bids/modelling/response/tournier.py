"""Single-fibre voxels by Tournier's iteration."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from difftract_bids.modelling.fodf import deconvolve
from difftract_bids.modelling.response.lobes import lobe_directions, peak_amplitudes
from difftract_bids.modelling.response.voxels import MIN_VOXELS, top
from difftract_bids.modelling.zonal import fit_zonal

_MAX_ROUNDS = 10
#: Voxels that are looked at again, per voxel finally used.
_CANDIDATES_PER_VOXEL = 10
#: A disc, whatever the units: the first guess.
_FIRST_RESPONSE = np.array([1.0, -1.0, 1.0])
#: The first response that is fitted comes from fODFs of this degree, and has it too.
_FIRST_LMAX = 4
_FODF_LMAX = 8


def single_fibre_voxels(
    signal: Float[np.ndarray, "voxel direction"],
    bvecs: Float[np.ndarray, "direction 3"],
    mask: Bool[np.ndarray, "x y z"],
    lmax: int,
    number: int,
) -> tuple[Bool[np.ndarray, " voxel"], Float[np.ndarray, "voxel 3"]]:
    """Find the voxels whose fODF looks most like one fibre population, and their directions.

    Deconvolves the mask with a flat disc, fits a response to the voxels with one large peak and no
    second one to speak of, deconvolves the ten times as many best ones and their neighbours with
    it, and so on until the choice no longer changes (at most ten rounds).

    Parameters
    ----------
    signal
        Signal of the shell, of the voxels of ``mask`` in the order of ``numpy.nonzero``.
    bvecs
        Its unit gradient directions.
    mask
        Where to look.
    lmax
        Largest degree of the responses between the rounds.
    number
        How many voxels to choose.

    Returns
    -------
    chosen
        Which voxels; too few for a response where hardly any has a peak.
    directions
        Fibre direction of each chosen voxel, unit vectors in the frame of ``bvecs``.

    References
    ----------
    Tournier et al. 2013, doi:10.1002/nbm.3017; as MRtrix3 3.0.3's ``dwi2response tournier``.
    """
    response = _FIRST_RESPONSE
    tested = np.ones(len(signal), dtype=bool)
    chosen = np.zeros(len(signal), dtype=bool)
    for iteration in range(_MAX_ROUNDS):
        degree = min(_FODF_LMAX, 2 * (len(response) - 1))
        fodf = deconvolve(signal[tested], bvecs, response, degree)
        score = np.full(len(signal), -np.inf)
        score[tested] = _likeness(fodf)
        n_possible = int(np.isfinite(score).sum())
        before, chosen = chosen, top(score, min(number, n_possible))
        directions = lobe_directions(fodf[chosen[tested]])
        if np.array_equal(chosen, before) or chosen.sum() < MIN_VOXELS:
            break
        fit_lmax = lmax if iteration else min(lmax, _FIRST_LMAX)
        response = fit_zonal(signal[chosen], bvecs, directions, fit_lmax, constrained=True)
        if not response[0] > 0:
            break
        best = np.zeros_like(mask)
        best[mask] = top(score, min(_CANDIDATES_PER_VOXEL * number, n_possible))
        tested = ndimage.binary_dilation(best)[mask]
    return chosen, directions


def _likeness(fodf: Float[np.ndarray, "voxel coeff"]) -> Float[np.ndarray, " voxel"]:
    """Score how much each is one fibre: a large first peak, and a second one small beside it."""
    first, second = peak_amplitudes(fodf, 2).T
    ratio = np.divide(second, first, out=np.zeros_like(first), where=first > 0)
    return np.where(first > 0, np.sqrt(first) * (1 - ratio) ** 2, -np.inf)
