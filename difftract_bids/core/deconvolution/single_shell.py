"""Single-shell constrained spherical deconvolution, as a function and as a module."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from difftract_bids.core.deconvolution.checks import (
    check_bvecs,
    check_lmax,
    check_response,
    flat_volumes,
    indices,
    warn_if_super_resolved,
)
from difftract_bids.core.deconvolution.convolution import convolution_matrix, zonal_gain
from difftract_bids.core.deconvolution.directions import constraint_directions
from difftract_bids.core.deconvolution.layer import Voxels, deconvolve, usable_voxels
from difftract_bids.core.deconvolution.penalised import PenalisedSolver
from difftract_bids.core.sh import MAX_LMAX, n_coefficients, sh_basis
from difftract_bids.errors import GradientError

#: Largest degree where none is asked for.
DEFAULT_LMAX = 8
#: Scale of the two weights of MRtrix3, which are 1 by default.
_NORM_SCALE, _NEGATIVITY_SCALE = 2e-4, 50.0
#: The search starts from degrees up to this one, deconvolved without constraint.
_START_LMAX = 4
#: Keeps that start finite where directions do not determine it.
_START_RIDGE = 1e-2


@dataclass(frozen=True)
class CSDOptions:
    """Weights and limits of `csd`, as ``dwi2fod csd`` calls them.

    Attributes
    ----------
    norm_lambda
        Weight of the solution's norm.
    neg_lambda
        Weight of negative amplitudes.
    threshold
        Amplitudes below this one count as negative.
    max_iterations
        Most solutions in a voxel.
    """

    norm_lambda: float = 1.0
    neg_lambda: float = 1.0
    threshold: float = 0.0
    max_iterations: int = 50


def csd(
    dwi: Float[Tensor, "*grid volume"],
    bvecs: Float[Tensor, "volume 3"],
    response: Float[Tensor, " order"],
    *,
    lmax: int | None = None,
    volumes: Bool[Tensor, " volume"] | None = None,
    mask: Bool[Tensor, "*grid"] | None = None,
    directions: Float[Tensor, "n 3"] | None = None,
    options: CSDOptions | None = None,
    reference: bool = False,
) -> Float[Tensor, "*grid coeff"]:
    """Deconvolve a response from one shell under a soft constraint on negative amplitudes.

    Differentiable in ``dwi``, ``response`` and ``bvecs`` (see
    `difftract_bids.core.deconvolution.layer`); computed in float64 whatever the type.

    Parameters
    ----------
    dwi
        Signal of every volume. Negative values count as 0; voxels with a value that is not finite,
        or with nothing positive, get zeros.
    bvecs
        Unit gradient directions, scanner axes.
    response
        Zonal coefficients of the shell's single-fibre signal, MRtrix's convention; degrees it
        lacks count as 0.
    lmax
        Largest degree of the fODF; default 8, or the response's if that is less.
    volumes
        Which volumes are the shell; default all.
    mask
        Where to fit; default everywhere.
    directions
        Unit vectors along which amplitudes are constrained; default `constraint_directions`.
    options
        Weights and limits; default MRtrix's.
    reference
        Use PyTorch for many voxels at a time, as on a GPU, and not compiled code.

    Returns
    -------
    sh_coeffs
        MRtrix's basis, scanner axes, in the type of ``dwi``. A signal equal to the response gives
        an fODF of integral 1.

    Raises
    ------
    ConfigError
        If ``lmax`` is odd or out of range.
    GradientError
        If there are fewer than six directions, or b-vectors are not of unit length.
    InputError
        If shapes differ, or the response is not positive.

    Warns
    -----
    UserWarning
        If there are fewer directions than coefficients: the fODF is super-resolved, the constraint
        supplying what the data do not determine.

    References
    ----------
    Tournier et al. 2007, doi:10.1016/j.neuroimage.2007.02.016; MRtrix3 3.0.3 ``dwi2fod csd``.
    """
    options = options or CSDOptions()
    if lmax is None:
        lmax = min(DEFAULT_LMAX, 2 * (response.shape[-1] - 1))
    check_lmax(lmax, smallest=2)
    check_response(response, "response")
    chosen = volumes if volumes is not None else torch.ones(len(bvecs), dtype=torch.bool)
    check_bvecs(bvecs, chosen)
    flat = flat_volumes(dwi, len(bvecs), mask)
    volume = indices(chosen.to(dwi.device))
    _check_directions(len(volume), lmax)

    vectors, zonal = bvecs.to(dwi.device)[volume].double(), response.to(dwi.device).double()
    sphere = constraint_directions() if directions is None else directions
    sphere = sphere.detach().to(dwi.device).double()
    matrix = convolution_matrix(vectors, zonal.expand(len(volume), -1), lmax)
    normal = matrix.T @ matrix
    unit = torch.eye(len(normal), dtype=normal.dtype, device=normal.device)
    normal = normal + options.norm_lambda * _NORM_SCALE * normal[0, 0] * unit
    weight = (options.neg_lambda * _NEGATIVITY_SCALE * zonal[0] / len(sphere)) ** 2
    solver = PenalisedSolver(
        matrix.detach(),
        normal.detach(),
        sh_basis(sphere, lmax),
        float(weight.detach()),
        start=_start(vectors.detach(), zonal.detach(), lmax),
        threshold=options.threshold,
        max_iterations=options.max_iterations,
        by_kernels=dwi.device.type == "cpu" and not reference,
    )
    voxels = Voxels(usable_voxels(flat.dwi.detach(), volume, flat.mask), volume)
    return flat.restored(deconvolve(flat.dwi, voxels, matrix, normal, weight, solver))


class CSD(nn.Module):
    """`csd` with the acquisition and the response held by a module.

    Parameters
    ----------
    bvecs, response, lmax, volumes, directions, options
        As for `csd`.
    learn_response, learn_bvecs
        Make these parameters that an optimiser may change; without, they are constants.
    """

    def __init__(
        self,
        bvecs: Float[Tensor, "volume 3"],
        response: Float[Tensor, " order"],
        lmax: int | None = None,
        *,
        volumes: Bool[Tensor, " volume"] | None = None,
        directions: Float[Tensor, "n 3"] | None = None,
        options: CSDOptions | None = None,
        learn_response: bool = False,
        learn_bvecs: bool = False,
    ) -> None:
        super().__init__()
        self.bvecs = nn.Parameter(bvecs.detach().double(), requires_grad=learn_bvecs)
        self.response = nn.Parameter(response.detach().double(), requires_grad=learn_response)
        chosen = volumes if volumes is not None else torch.ones(len(bvecs), dtype=torch.bool)
        self.register_buffer("volumes", chosen)
        self.register_buffer(
            "directions", constraint_directions() if directions is None else directions
        )
        self.lmax, self.options = lmax, options or CSDOptions()

    def forward(
        self, dwi: Float[Tensor, "*grid volume"], mask: Bool[Tensor, "*grid"] | None = None
    ) -> Float[Tensor, "*grid coeff"]:
        """Deconvolve; see `csd`."""
        return csd(
            dwi,
            self.bvecs,
            self.response,
            lmax=self.lmax,
            volumes=self.get_buffer("volumes"),
            mask=mask,
            directions=self.get_buffer("directions"),
            options=self.options,
        )


def _check_directions(n_directions: int, lmax: int) -> None:
    if n_directions < n_coefficients(2):
        raise GradientError(
            f"{n_directions} directions are too few for an fODF; {n_coefficients(2)} are needed.",
            where="bvecs",
            remedy="Leave this run out, or merge the parts of the acquisition.",
        )
    warn_if_super_resolved(n_directions, lmax)


def _start(
    bvecs: Float[Tensor, "direction 3"], response: Float[Tensor, " order"], lmax: int
) -> Float[Tensor, "coeff direction"]:
    """Map a signal to its unconstrained deconvolution, low degrees only."""
    in_data = max(
        degree for degree in range(2, MAX_LMAX + 1, 2) if n_coefficients(degree) <= len(bvecs)
    )
    fitted = min(in_data, lmax, 2 * (len(response) - 1))
    basis = sh_basis(bvecs, fitted)
    basis.diagonal().add_(_START_RIDGE)
    inverse = torch.linalg.pinv(basis)
    kept = min(fitted, _START_LMAX)
    n = n_coefficients(kept)
    start = bvecs.new_zeros(n_coefficients(lmax), len(bvecs))
    start[:n] = inverse[:n] / zonal_gain(response, kept)[:, None]
    return start
