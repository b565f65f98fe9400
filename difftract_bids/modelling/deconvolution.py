"""The deconvolution of a diffusion run as a PyTorch module, made from its gradient table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from difftract_bids.config import TISSUES, FittedModel
from difftract_bids.core.deconvolution import CSD, MSMTCSD
from difftract_bids.errors import GradientError
from difftract_bids.io.gradients import GradientTable, deconvolution_shell, is_same_shell
from difftract_bids.modelling.zonal import Response


class Deconvolution(nn.Module):
    """A model of some of a run's volumes.

    Parameters
    ----------
    model
        Deconvolves them.
    volumes
        Which they are; all if left out.
    """

    volumes: Tensor | None

    def __init__(self, model: nn.Module, volumes: Bool[Tensor, " volume"] | None = None) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("volumes", volumes)

    def forward(
        self, dwi: Float[Tensor, "*grid volume"], mask: Bool[Tensor, "*grid"] | None = None
    ) -> tuple[Float[Tensor, "*grid coeff"], ...]:
        """Give the coefficients of each tissue, white matter first."""
        found = self.model(dwi if self.volumes is None else dwi[..., self.volumes], mask)
        return (found,) if isinstance(found, Tensor) else tuple(found)


def build_deconvolution(
    gradients: GradientTable,
    responses: Mapping[str, Response],
    model: FittedModel,
    lmax: int,
    directions: Float[Tensor, "n 3"] | None = None,
) -> Deconvolution:
    """Make the module that fits a run's fODFs; see `difftract_bids.modelling.fodf.fit`.

    Parameters
    ----------
    gradients
        Gradient table.
    responses
        Responses by tissue.
    model
        ``csd``, ``ss2t`` or ``msmtcsd``.
    lmax
        Largest degree of white matter.
    directions
        Where amplitudes are constrained; the default ones if left out.

    Raises
    ------
    GradientError
        If a response is of other shells than the data.
    """
    if model == "csd":
        bval, volumes = deconvolution_shell(gradients)
        row = responses["WM"].coefficients[_row_of(responses["WM"], bval, "WM")]
        csd = CSD(
            torch.from_numpy(gradients.bvecs),
            torch.from_numpy(row),
            lmax,
            volumes=torch.from_numpy(volumes),
            directions=directions,
        )
        return Deconvolution(csd)
    shells = gradients.shell_volumes()
    if model == "ss2t":
        shells = [*shells[:1], deconvolution_shell(gradients)]
    rows = [
        responses[tissue].coefficients[[_row_of(responses[tissue], b, tissue) for b, _ in shells]]
        for tissue in TISSUES[model]
    ]
    degrees = [lmax if tissue == "WM" else 0 for tissue in TISSUES[model]]
    return build_tissue_deconvolution(gradients, shells, rows, degrees, directions)


def build_tissue_deconvolution(
    gradients: GradientTable,
    shells: Sequence[tuple[float, Bool[np.ndarray, " volume"]]],
    responses: Sequence[Float[np.ndarray, "shell order"]],
    lmax: Sequence[int],
    directions: Float[Tensor, "n 3"] | None = None,
) -> Deconvolution:
    """Make the module that fits some shells by tissues, see `core.deconvolution.msmt_csd`.

    Parameters
    ----------
    gradients
        Gradient table.
    shells
        Of its `GradientTable.shell_volumes`, those that are used, b=0 first.
    responses
        Zonal coefficients of each tissue, a row for each of these shells.
    lmax
        Largest degree of each tissue.
    directions
        Where amplitudes are constrained; the default ones if left out.
    """
    used = np.logical_or.reduce([volumes for _, volumes in shells])
    shell = np.argmax([volumes[used] for _, volumes in shells], axis=0)
    # A volume of b=0 may have a direction, which means nothing.
    bvecs = np.where(gradients.b0_mask[:, None], 0.0, gradients.bvecs)[used]
    model = MSMTCSD(
        torch.from_numpy(bvecs),
        torch.from_numpy(shell),
        [torch.from_numpy(np.array(response)) for response in responses],
        lmax,
        directions=directions,
    )
    return Deconvolution(model, None if used.all() else torch.from_numpy(used))


def _row_of(response: Response, bval_s_mm2: float, tissue: str) -> int:
    """Find which row of a response is of a shell."""
    apart = np.abs(np.array(response.bvals_s_mm2) - bval_s_mm2)
    nearest = int(apart.argmin())
    if not is_same_shell(response.bvals_s_mm2[nearest], bval_s_mm2):
        raise GradientError(
            f"The response of {tissue} has the shells {', '.join(_round(response.bvals_s_mm2))}; "
            f"the data have b = {bval_s_mm2:.0f} s/mm².",
            where="response",
            remedy="Give a response estimated from data with the same b-values.",
        )
    return nearest


def _round(bvals: tuple[float, ...]) -> list[str]:
    return [f"{bval:.0f}" for bval in bvals]
