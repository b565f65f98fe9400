"""How far the signal stands above the noise."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from scipy import special

from difftract_bids.checks.findings import Findings
from difftract_bids.checks.verdict import Check, judged
from difftract_bids.io.gradients import GradientTable

NAME, TITLE = "noise", "Signal-to-noise ratio"
#: b=0. Anisotropy is overestimated below about 20 (Pierpaoli and Basser 1996); what is acquired
#: in small voxels and denoised begins at 10 to 20 on purpose.
_LOOK_B0, _BAD_B0 = 10.0, 5.0
#: Diffusion-weighted. Below 3 the noise of a magnitude is no longer Gaussian (Gudbjartsson and
#: Patz 1995); nothing but noise has a mean of 1.25 standard deviations.
_LOOK_DWI, _BAD_DWI = 3.0, 1.5
#: Degrees of freedom that an estimate of the noise needs at the least.
_LEAST_FREEDOM = 6
_VOXELS = 20_000


def check_noise(
    dwi: NDArray[np.floating],
    gradients: GradientTable,
    mask: Bool[np.ndarray, "x y z"],
    sigma: Float[np.ndarray, "x y z"] | None = None,
) -> Check:
    """Judge the signal-to-noise ratio of b=0 images and of the strongest shell in the brain.

    Both are medians over the brain, that of a shell of the mean over its directions. Without a
    noise map, noise is what the signal of a shell deviates from a smooth function of direction,
    which counts residual motion as noise.

    Parameters
    ----------
    dwi
        Series (x, y, z, volume).
    gradients
        Table of the series.
    mask
        Brain.
    sigma
        Noise standard deviation, same grid, in the units of ``dwi``; 0 where not known.

    References
    ----------
    Pierpaoli and Basser 1996, doi:10.1002/mrm.1910360612; Gudbjartsson and Patz 1995,
    doi:10.1002/mrm.1910340618; Jones and Basser 2004, doi:10.1002/mrm.20283.
    """
    chosen = np.flatnonzero(mask if sigma is None else mask & (sigma > 0))
    if sigma is not None and not chosen.size:  # a map of nothing
        return check_noise(dwi, gradients, mask)
    # A part of the voxels says as much.
    chosen = chosen[:: max(1, len(chosen) // _VOXELS)]
    at = np.unravel_index(chosen, mask.shape)
    signal = np.nan_to_num(dwi[at].astype(np.float64))
    findings = Findings()
    figure = "fa" if sigma is None else "denoising"
    noise = residual_noise(signal, gradients) if sigma is None else sigma[at]
    if noise is None or not (noise > 0).any():
        findings.found.append("the noise was not mapped, and cannot be estimated from this series")
        return findings.check(NAME, TITLE, figure)
    shells = gradients.shell_volumes()
    ratios = {bval: _ratio(signal[:, volumes], noise) for bval, volumes in shells}
    strongest = shells[-1][0]
    of_b0 = ratios.get(0.0, float("nan"))
    source, remedy = (
        ("by the noise map", "denoising takes a part of it alone")
        if sigma is not None
        else (
            "by how far the signal is from smooth over directions, noise and motion alike",
            "denoise (--denoise-method mppca)",
        )
    )
    at_b0 = f"{of_b0:.0f} times the noise at b=0 and " if 0.0 in ratios else ""
    noun = "times" if at_b0 else "times the noise"
    findings.found.append(
        f"the signal is {at_b0}{ratios[strongest]:.1f} {noun} at b={strongest:.0f} s/mm² (medians "
        f"over the brain, {source})"
    )
    findings.judge(
        judged(of_b0, look=_LOOK_B0, bad=_BAD_B0),
        f"anisotropy is overestimated at such noise: {remedy}, do not compare FA with less noisy "
        "scans",
    )
    findings.judge(
        judged(ratios[strongest], look=_LOOK_DWI, bad=_BAD_DWI),
        f"at b={strongest:.0f} s/mm² the signal comes near the noise floor, which hides how far "
        "it decays: look whether the fODFs of white matter still follow it",
    )
    return findings.check(NAME, TITLE, figure, value=of_b0)


def residual_noise(
    signal: Float[np.ndarray, "voxel volume"], gradients: GradientTable
) -> Float[np.ndarray, " voxel"] | None:
    """Estimate the noise of each voxel from the shell with most directions.

    Of even functions on the sphere up to the fourth order, the one that fits best is taken away.
    Where directions are few it is of the second order, and what white matter has beyond that
    counts as noise. Near the noise floor magnitudes vary less than what they are the magnitudes
    of, which is made up for (Koay and Basser 2006, doi:10.1016/j.jmr.2006.01.016).

    Returns
    -------
    ndarray or None
        Standard deviation; None if there are too few directions.
    """
    weighted = [volumes for bval, volumes in gradients.shell_volumes() if bval > 0]
    if not weighted:
        return None
    volumes = max(weighted, key=np.count_nonzero)
    for order in (4, 2):
        design = _monomials(gradients.bvecs[volumes], order)
        freedom = len(design) - np.linalg.matrix_rank(design)
        if freedom >= _LEAST_FREEDOM:
            base = np.linalg.svd(design, full_matrices=False)[0][:, : len(design) - freedom]
            values = signal[:, volumes]
            residual = values - (values @ base) @ base.T
            spread = np.sqrt((residual**2).sum(axis=1) / freedom)
            return spread / _narrowing(values.mean(axis=1), spread)
    return None


def _narrowing(
    mean: Float[np.ndarray, " voxel"], spread: Float[np.ndarray, " voxel"]
) -> Float[np.ndarray, " voxel"]:
    """Give the spread of magnitudes over that of the noise: 0.66 for noise alone, 1 for none."""
    ratio = np.linspace(0, 10, 201)
    half = ratio**2 / 2
    bessel = (1 + half) * special.ive(0, half / 2) + half * special.ive(1, half / 2)
    means = np.sqrt(np.pi / 2) * bessel
    spreads = np.sqrt(2 + ratio**2 - means**2)
    found = np.divide(mean, spread, out=np.full_like(mean, np.inf), where=spread > 0)
    return np.interp(found, means / spreads, spreads)


def _monomials(directions: Float[np.ndarray, "n 3"], order: int) -> Float[np.ndarray, "n term"]:
    """Give all products of ``order`` components: they span the even functions up to that order."""
    x, y, z = directions.T
    return np.stack(
        [
            x**i * y**j * z ** (order - i - j)
            for i in range(order + 1)
            for j in range(order + 1 - i)
        ],
        axis=1,
    )


def _ratio(signal: Float[np.ndarray, "voxel n"], noise: Float[np.ndarray, " voxel"]) -> float:
    """Give the median over voxels of the mean signal over the noise."""
    known = noise > 0  # not where the images are empty
    return float(np.median(signal[known].mean(axis=1) / noise[known]))
