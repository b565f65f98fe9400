"""Fibre orientation distributions by constrained spherical deconvolution.

`deconvolve` is the seam: an implementation over plain arrays of one shell, here DIPY's.
"""

from __future__ import annotations

import warnings

import numpy as np
from dipy.core.geometry import cart2sphere
from dipy.data import small_sphere
from dipy.reconst.csdeconv import csdeconv
from dipy.reconst.shm import real_sh_tournier_from_index
from jaxtyping import Bool, Float

from difftract_bids.errors import ConfigError, GradientError, InputError
from difftract_bids.io.gradients import GradientTable, deconvolution_shell
from difftract_bids.modelling.zonal import Response

#: Below this b-value fibres and free water can hardly be told apart.
_MIN_BVAL_S_MM2 = 700.0
#: Neighbouring b-values further apart than this are different shells.
_SHELL_WIDTH_S_MM2 = 100.0
_MIN_DIRECTIONS = 6
# How strongly negative amplitudes, and the norm of the solution, are held down. Meant to be
# MRtrix 3.0.3's: with one response, coefficients correlate at r >= 0.995 with those of `dwi2fod
# csd` and median peaks agree within 3% (two human acquisitions, FA > 0.3). DIPY's own weights
# gave peaks 2 to 11% higher there.
_NORM_WEIGHT = 2e-4
_CONSTRAINT_DIRECTIONS = 300.0
_MAX_ITERATIONS = 50


def default_lmax(n_directions: int) -> int:
    """Choose lmax: 8, or the largest with no more coefficients than directions.

    Raises
    ------
    GradientError
        If there are fewer than six directions.
    """
    if n_directions < _MIN_DIRECTIONS:
        raise GradientError(
            f"{n_directions} directions are too few for an fODF; {_MIN_DIRECTIONS} are needed.",
            remedy="Leave this run out, or merge the parts of the acquisition.",
        )
    return max(lmax for lmax in (2, 4, 6, 8) if (lmax + 1) * (lmax + 2) // 2 <= n_directions)


def choose_lmax(gradients: GradientTable, wanted: int | None) -> int:
    """Take the lmax asked for, else the default for the shell that is deconvolved.

    Raises
    ------
    GradientError
        If no shell has six directions.
    """
    if wanted is not None:
        return wanted
    return default_lmax(int(deconvolution_shell(gradients)[1].sum()))


def fit_fodf(
    dwi: Float[np.ndarray, "x y z volume"],
    gradients: GradientTable,
    response: Response,
    mask: Bool[np.ndarray, "x y z"],
    lmax: int | None = None,
) -> Float[np.ndarray, "x y z coeff"]:
    """Deconvolve the response from one shell, in the mask.

    Parameters
    ----------
    dwi
        Diffusion series.
    gradients
        Its table; the shell is chosen by `deconvolution_shell`.
    response
        Single-fibre response, in the units of ``dwi``. A voxel whose signal equals it gets an
        fODF of integral 1, so amplitudes mean what they mean in MRtrix.
    mask
        Where to fit.
    lmax
        Largest degree of the fODF; default by `default_lmax`.

    Returns
    -------
    fodf
        float32, in MRtrix's real SH basis, scanner axes; zero outside the mask and where there is
        no signal.

    Raises
    ------
    ConfigError
        If ``lmax`` is odd or exceeds the response's.
    GradientError
        If the table does not fit the series or no shell can be deconvolved.

    References
    ----------
    Tournier et al. 2007, doi:10.1016/j.neuroimage.2007.02.016.
    """
    if len(gradients.bvals_s_mm2) != dwi.shape[-1]:
        raise GradientError(
            f"The image has {dwi.shape[-1]} volumes, the gradient table "
            f"{len(gradients.bvals_s_mm2)}.",
            remedy="They must belong to the same image.",
        )
    _, volumes = deconvolution_shell(gradients)
    degree = choose_lmax(gradients, lmax)
    if degree % 2 or not 2 <= degree <= response.lmax:
        raise ConfigError(
            f"The fODF cannot have lmax {degree}: the response has lmax {response.lmax}.",
            where="lmax",
            remedy="Choose an even number from 2 up to the response's.",
        )
    fodf = np.zeros((*dwi.shape[:3], (degree + 1) * (degree + 2) // 2), dtype=np.float32)
    signal = np.nan_to_num(dwi[mask][:, volumes].astype(np.float64), posinf=0.0, neginf=0.0)
    fodf[mask] = deconvolve(signal, gradients.bvecs[volumes], response.deconvolved, degree)
    return fodf


def deconvolve(
    signal: Float[np.ndarray, "voxel direction"],
    bvecs: Float[np.ndarray, "direction 3"],
    response: Float[np.ndarray, " order"],
    lmax: int,
) -> Float[np.ndarray, "voxel coeff"]:
    """Deconvolve each voxel's signal under a non-negativity constraint (DIPY's ``csdeconv``).

    Parameters
    ----------
    signal
        Signal of one shell.
    bvecs
        Its unit gradient directions; the fODF is in the same frame.
    response
        Zonal coefficients in MRtrix's convention, at least up to ``lmax``.
    lmax
        Largest degree.

    Returns
    -------
    fodf
        Coefficients in MRtrix's basis; zeros where the signal is all zero or has no solution.

    Raises
    ------
    InputError
        If the response is not positive.

    References
    ----------
    Tournier et al. 2007, doi:10.1016/j.neuroimage.2007.02.016.
    """
    if not response[0] > 0:
        raise InputError(
            f"The response's mean signal is {response[0]:g}; it must be positive.",
            where="response",
            remedy="Estimate it from voxels that have signal.",
        )
    degree = sh_degrees(lmax)
    # A zonal convolution multiplies each degree by sqrt(4π / (2 l + 1)) r_l.
    gain = np.sqrt(4 * np.pi / (2 * degree + 1)) * response[degree // 2]
    forward = sh_basis(bvecs, lmax) * gain
    normal = forward.T @ forward
    normal += _NORM_WEIGHT * normal[0, 0] * np.eye(len(normal))
    sphere = sh_basis(small_sphere.vertices, lmax)
    # Both weights grow with the signal and the number of directions, as the data term does.
    sphere *= len(bvecs) * response[0] / np.sqrt(_CONSTRAINT_DIRECTIONS * len(sphere))
    fodf = np.zeros((len(signal), len(degree)))
    with warnings.catch_warnings():
        # A voxel still switching directions after 50 iterations has a usable, if noisy, fODF.
        warnings.filterwarnings("ignore", message="maximum number of iterations exceeded")
        for voxel in np.flatnonzero(signal.any(axis=1)):
            try:
                fodf[voxel], _ = csdeconv(
                    signal[voxel],
                    forward,
                    sphere,
                    tau=0.0,
                    convergence=_MAX_ITERATIONS,
                    P=normal,
                )
            except np.linalg.LinAlgError:
                continue
    fodf[~np.isfinite(fodf).all(axis=1)] = 0.0
    return fodf


def sh_degrees(lmax: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Degree l of each coefficient, in MRtrix's order."""
    return np.concatenate([np.full(2 * degree + 1, degree) for degree in range(0, lmax + 1, 2)])


def sh_basis(
    directions: Float[np.ndarray, "direction 3"], lmax: int
) -> Float[np.ndarray, "direction coeff"]:
    """Evaluate MRtrix's real SH basis: DIPY's ``tournier07`` with ``legacy=False``."""
    degree = sh_degrees(lmax)
    order = np.concatenate([np.arange(-n, n + 1) for n in range(0, lmax + 1, 2)])
    _, theta, phi = cart2sphere(*np.asarray(directions, dtype=np.float64).T)
    return real_sh_tournier_from_index(order, degree, theta[:, None], phi[:, None], legacy=False)
