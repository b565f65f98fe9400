"""Multi-shell multi-tissue constrained spherical deconvolution, as a function and a module."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from difftract_bids.core.deconvolution.checks import (
    check_bvecs,
    check_lmax,
    check_response,
    flat_volumes,
    warn_if_super_resolved,
)
from difftract_bids.core.deconvolution.convolution import convolution_matrix
from difftract_bids.core.deconvolution.directions import constraint_directions
from difftract_bids.core.deconvolution.layer import Voxels, deconvolve, usable_voxels
from difftract_bids.core.deconvolution.nonnegative import NonnegativeSolver
from difftract_bids.core.deconvolution.single_shell import DEFAULT_LMAX
from difftract_bids.core.sh import n_coefficients, sh_basis
from difftract_bids.errors import ConfigError, GradientError, InputError

#: Makes the normal matrix positive, relative to its largest diagonal entry, as in MRtrix3.
_NORM_RIDGE = 1e-10


def msmt_csd(
    dwi: Float[Tensor, "*grid volume"],
    bvecs: Float[Tensor, "volume 3"],
    shell: Int[Tensor, " volume"],
    responses: Sequence[Float[Tensor, "shell order"]],
    *,
    lmax: Sequence[int] | None = None,
    mask: Bool[Tensor, "*grid"] | None = None,
    directions: Float[Tensor, "n 3"] | None = None,
    reference: bool = False,
) -> tuple[Float[Tensor, "*grid coeff"], ...]:
    """Deconvolve several tissues' responses from all shells; no amplitude is negative.

    Differentiable in ``dwi``, ``responses`` and ``bvecs`` (see
    `difftract_bids.core.deconvolution.layer`); computed in float64 whatever the type.

    Parameters
    ----------
    dwi
        Signal of every volume. Negative values count as 0; voxels with a value that is not finite,
        or with nothing positive, get zeros.
    bvecs
        Unit gradient directions, scanner axes; zero where a volume is not weighted.
    shell
        Which row of the responses each volume belongs to, b=0 included.
    responses
        For each tissue the zonal coefficients of its signal in each shell, MRtrix's convention;
        those of isotropic tissues have one column.
    lmax
        Largest degree of each tissue; default its response's, up to 8.
    mask
        Where to fit; default everywhere.
    directions
        Unit vectors along which amplitudes are constrained; default `constraint_directions`.
    reference
        Use PyTorch for many voxels at a time, as on a GPU, and not compiled code.

    Returns
    -------
    tuple of sh_coeffs
        One for each tissue, MRtrix's basis, scanner axes, in the type of ``dwi``.

    Raises
    ------
    ConfigError
        If a degree is odd or out of range, or their number is not that of tissues.
    GradientError
        If b-vectors are not of unit length, or there are fewer shells than tissues.
    InputError
        If shapes differ, or a response is not positive or has another number of shells.

    Warns
    -----
    UserWarning
        If there are fewer weighted volumes than coefficients of a tissue.

    References
    ----------
    Jeurissen et al. 2014, doi:10.1016/j.neuroimage.2014.07.061; MRtrix3 3.0.3 ``dwi2fod
    msmt_csd``.
    """
    degrees = _degrees(responses, lmax)
    warn_if_super_resolved(int((bvecs.detach() != 0).any(dim=1).sum()), max(degrees))
    _check_shells(shell, responses)
    check_bvecs(bvecs, (bvecs.detach() != 0).any(dim=1))
    flat = flat_volumes(dwi, len(bvecs), mask)
    if len(shell) != len(bvecs):
        raise InputError(
            f"There are {len(shell)} shell numbers for {len(bvecs)} b-vectors.",
            where="shell",
            remedy="Give one for each volume.",
        )
    device = dwi.device
    vectors, row = bvecs.to(device).double(), shell.to(device)
    matrix = torch.cat(
        [
            convolution_matrix(vectors, response.to(device).double()[row], degree)
            for response, degree in zip(responses, degrees, strict=True)
        ],
        dim=1,
    )
    normal = matrix.T @ matrix
    unit = torch.eye(len(normal), dtype=normal.dtype, device=device)
    normal = normal + _NORM_RIDGE * normal.diagonal().max() * unit
    sphere = constraint_directions() if directions is None else directions
    solver = NonnegativeSolver(
        matrix.detach(),
        normal.detach(),
        _constraints(sphere.detach().to(device).double(), degrees),
        by_kernels=device.type == "cpu" and not reference,
    )
    volume = torch.arange(len(bvecs), device=device)
    voxels = Voxels(usable_voxels(flat.dwi.detach(), volume, flat.mask), volume)
    result = deconvolve(flat.dwi, voxels, matrix, normal, matrix.new_zeros(()), solver)
    ends = list(accumulate(n_coefficients(degree) for degree in degrees))
    return tuple(
        flat.restored(result[:, end - n_coefficients(degree) : end])
        for end, degree in zip(ends, degrees, strict=True)
    )


class MSMTCSD(nn.Module):
    """`msmt_csd` with the acquisition and the responses held by a module.

    Parameters
    ----------
    bvecs, shell, responses, lmax, directions
        As for `msmt_csd`.
    learn_responses, learn_bvecs
        Make these parameters that an optimiser may change; without, they are constants.
    """

    def __init__(
        self,
        bvecs: Float[Tensor, "volume 3"],
        shell: Int[Tensor, " volume"],
        responses: Sequence[Float[Tensor, "shell order"]],
        lmax: Sequence[int] | None = None,
        *,
        directions: Float[Tensor, "n 3"] | None = None,
        learn_responses: bool = False,
        learn_bvecs: bool = False,
    ) -> None:
        super().__init__()
        self.bvecs = nn.Parameter(bvecs.detach().double(), requires_grad=learn_bvecs)
        self.responses = nn.ParameterList(
            nn.Parameter(response.detach().double(), requires_grad=learn_responses)
            for response in responses
        )
        self.register_buffer("shell", shell)
        self.register_buffer(
            "directions", constraint_directions() if directions is None else directions
        )
        self.lmax = lmax

    def forward(
        self, dwi: Float[Tensor, "*grid volume"], mask: Bool[Tensor, "*grid"] | None = None
    ) -> tuple[Float[Tensor, "*grid coeff"], ...]:
        """Deconvolve; see `msmt_csd`."""
        return msmt_csd(
            dwi,
            self.bvecs,
            self.get_buffer("shell"),
            list(self.responses),
            lmax=self.lmax,
            mask=mask,
            directions=self.get_buffer("directions"),
        )


def _degrees(responses: Sequence[Tensor], lmax: Sequence[int] | None) -> list[int]:
    if lmax is None:
        lmax = [min(DEFAULT_LMAX, 2 * (response.shape[1] - 1)) for response in responses]
    if len(lmax) != len(responses):
        raise ConfigError(
            f"There are {len(lmax)} degrees for {len(responses)} tissues.",
            where="lmax",
            remedy="Give one for each tissue: 0 for isotropic ones.",
        )
    for degree in lmax:
        check_lmax(degree, smallest=0)
    return list(lmax)


def _check_shells(shell: Tensor, responses: Sequence[Tensor]) -> None:
    n_shells = int(shell.max()) + 1 if len(shell) else 0
    for number, response in enumerate(responses, start=1):
        check_response(response, f"response of tissue {number}")
        if len(response) != n_shells:
            raise InputError(
                f"The response of tissue {number} has {len(response)} rows; the data have "
                f"{n_shells} shells, b=0 included.",
                where="responses",
                remedy="Estimate responses and fODFs from the same shells.",
            )
    if len(responses) > n_shells:
        raise GradientError(
            f"{n_shells} b-values, b=0 included, cannot tell {len(responses)} tissues apart.",
            where="responses",
            remedy="Leave a tissue out: with one shell and b=0, white matter and fluid are left.",
        )


def _constraints(sphere: Float[Tensor, "n 3"], degrees: Sequence[int]) -> Float[Tensor, "m coeff"]:
    """Basis functions of every tissue in its directions; one is enough where all are alike."""
    blocks = [sh_basis(sphere if degree else sphere[:1], degree) for degree in degrees]
    return torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
