"""What a network sees of a scan: the signal of each shell relative to b=0, as SH coefficients."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from difftract_bids.core.sh import n_coefficients, sh_basis, sh_degrees_and_orders
from difftract_bids.errors import InputError
from difftract_bids.io.gradients import GradientTable

#: Relative signals beyond this are damage (a b=0 image near zero), and would drown the others.
_LARGEST = 2.0
#: A fit with this many directions for each coefficient needs no regularisation.
_PLENTY = 1.5
#: By what share of the fit's own weight the highest degree is held back where they are fewer.
_SMOOTHING = 0.05


def signal_sh(
    dwi: Float[Tensor, "x y z volume"],
    gradients: GradientTable,
    mask: Bool[Tensor, "x y z"] | None,
    lmax: int,
) -> Float[Tensor, "x y z channel"]:
    """Describe the signal independently of the directions that it was measured in.

    Each shell, divided by the mean of the b=0 volumes, is fitted by SH in scanner axes. All
    coefficients are of the order of 1 whatever the scanner's gain, and need no other
    normalisation; those of fODFs (about 0.3 at l=0 from deconvolution) need none either.

    Parameters
    ----------
    dwi
        Signal; differentiable. float64 stays float64, everything else gives float32.
    gradients
        Its b-values, and directions in scanner axes.
    mask
        Where the signal is described; everywhere if left out. It is zero elsewhere, and where
        the b=0 image is not above 0 or a value is not finite.
    lmax
        Maximum degree, even.

    Returns
    -------
    Tensor
        Coefficients of each shell, b-values rising, one shell behind the other.

    Raises
    ------
    InputError
        If there is no b=0 volume, no other one, or their number is not that of the image.

    References
    ----------
    Descoteaux et al. 2007, doi:10.1002/mrm.21277 (the fit and its Laplace-Beltrami term).
    """
    fit = _fit_of_shells(gradients, dwi.shape[3], lmax)
    inside, relative = relative_signal(dwi, gradients, mask)
    image = relative.new_zeros((*dwi.shape[:3], len(fit)))
    return image.index_put((inside,), relative @ fit.to(relative).T)


def relative_signal(
    dwi: Float[Tensor, "x y z volume"],
    gradients: GradientTable,
    mask: Bool[Tensor, "x y z"] | None,
) -> tuple[Bool[Tensor, "x y z"], Float[Tensor, "voxel volume"]]:
    """Divide the signal of each voxel by the mean of its b=0 volumes.

    Parameters
    ----------
    dwi, gradients, mask
        See `signal_sh`.

    Returns
    -------
    tuple of Tensor
        Which voxels, and the relative signal of each of them; 0 where there is none.
    """
    kind = torch.float64 if dwi.dtype == torch.float64 else torch.float32
    inside = torch.ones(dwi.shape[:3], dtype=torch.bool) if mask is None else mask
    inside = inside.to(dwi.device)
    b0_mask = torch.from_numpy(gradients.b0_mask).to(dwi.device)
    return inside, _relative_to_b0(dwi[inside].to(kind), b0_mask)


def _fit_of_shells(
    gradients: GradientTable, n_volumes: int, lmax: int
) -> Float[Tensor, "channel volume"]:
    """Give the fits of all shells as one matrix, zero where a volume is not of the shell."""
    n_gradients = len(gradients.bvals_s_mm2)
    if n_gradients != n_volumes:
        raise InputError(
            f"The image has {n_volumes} volumes, the gradient table {n_gradients}.",
            where="gradient table",
            remedy="They must belong to the same image.",
        )
    if not gradients.b0_mask.any() or gradients.b0_mask.all():
        raise InputError(
            f"{int(gradients.b0_mask.sum())} of {n_volumes} volumes are b=0; both kinds are "
            "needed.",
            where="gradient table",
            remedy="Check --b0-threshold and the b-values.",
        )
    shells = [volumes for bval, volumes in gradients.shell_volumes() if bval > 0]
    n_coeff = n_coefficients(lmax)
    whole = torch.zeros(len(shells), n_coeff, n_volumes, dtype=torch.float64)
    for part, volumes in zip(whole, shells, strict=True):
        bvecs = torch.from_numpy(gradients.bvecs[volumes]).double()
        part[:, torch.from_numpy(volumes)] = _fit_matrix(bvecs, lmax)
    return whole.flatten(0, 1)


def _relative_to_b0(
    signal: Float[Tensor, "voxel volume"], b0_mask: Bool[Tensor, " volume"]
) -> Float[Tensor, "voxel volume"]:
    b0 = signal[:, b0_mask].mean(dim=1, keepdim=True)
    # A sum is finite if all its terms are, and quicker to look at.
    sound = signal.sum(dim=1, keepdim=True).isfinite() & (b0 > 0)
    # Before the division, and not after it: the derivative of 0/0 is no number either.
    relative = torch.where(sound, signal, 0.0) / torch.where(sound, b0, 1.0)
    return relative.clamp(-_LARGEST, _LARGEST)


def _fit_matrix(bvecs: Float[Tensor, "volume 3"], lmax: int) -> Float[Tensor, "coeff volume"]:
    """Give the least squares fit, regularised where directions are few."""
    basis = sh_basis(bvecs, lmax)
    n, n_coeff = basis.shape
    degrees = torch.tensor([d for d, _ in sh_degrees_and_orders(lmax)], dtype=basis.dtype)
    beltrami = (degrees * (degrees + 1)) ** 2
    few = n < _PLENTY * n_coeff
    strength = _SMOOTHING * n / (4 * math.pi) if few else 0.0
    # With even directions, the fit's own weight is n/4π for each coefficient.
    normal = basis.T @ basis + torch.diag(strength * beltrami / beltrami.max().clamp_min(1.0))
    fit: Tensor = torch.linalg.lstsq(normal, basis.T, driver="gelsd").solution
    return fit
