"""How well fODFs explain the signal that they were made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from difftract_bids.core.deconvolution.convolution import convolution_matrix
from difftract_bids.core.sh import lmax_of
from difftract_bids.errors import InputError
from difftract_bids.io.gradients import GradientTable, deconvolution_shell

#: Of the squared signal: a model without noise has no misfit to compare an increase with.
_LEAST_MISFIT = 1e-8


@dataclass(frozen=True, eq=False)
class Signal:
    """The signal of a scan as a linear function of its fODFs.

    Attributes
    ----------
    dwi
        Signal of some volumes.
    matrix
        From an fODF to these volumes, see `convolution_matrix`.
    background
        Signal of other tissues in these volumes, in the units of ``dwi``; none if left out.
    """

    dwi: Float[Tensor, "x y z volume"]
    matrix: Float[Tensor, "volume coeff"]
    background: Float[Tensor, "x y z volume"] | None = None

    @classmethod
    def of_shell(
        cls,
        dwi: Float[Tensor, "x y z all_volume"],
        gradients: GradientTable,
        response: Float[Tensor, " order"],
        lmax: int,
        background: Float[Tensor, "x y z all_volume"] | None = None,
    ) -> Self:
        """Take the shell that is deconvolved.

        Parameters
        ----------
        dwi, gradients
            The scan, all its volumes.
        response
            Zonal coefficients of that shell's single-fibre signal, in the units of ``dwi``.
        lmax
            Of the fODFs.
        background
            See the class.

        Raises
        ------
        GradientError
            If no shell can be deconvolved.
        InputError
            If the gradients are not of this scan.
        """
        if dwi.shape[-1] != len(gradients.bvals_s_mm2):
            raise InputError(
                f"The image has {dwi.shape[-1]} volumes, the gradient table "
                f"{len(gradients.bvals_s_mm2)}.",
                where="gradients",
                remedy="They must belong to the same image.",
            )
        volumes = torch.from_numpy(deconvolution_shell(gradients)[1])
        bvecs = torch.from_numpy(gradients.bvecs)[volumes].double()
        zonal = response.detach().double().expand(len(bvecs), -1)
        return cls(
            dwi[..., volumes],
            convolution_matrix(bvecs, zonal, lmax),
            None if background is None else background[..., volumes],
        )

    def misfit(self, fodf: Float[Tensor, "x y z coeff"], inside: Bool[Tensor, "x y z"]) -> Misfit:
        """Prepare the comparison for the fODFs of some voxels, from these fODFs on.

        Raises
        ------
        InputError
            If the grids or the coefficients differ, or there is no signal.
        """
        if self.dwi.shape[:3] != fodf.shape[:3] or self.matrix.shape[1] != fodf.shape[3]:
            raise InputError(
                f"The signal is an image of {tuple(self.dwi.shape)} of fODFs with "
                f"{self.matrix.shape[1]} coefficients (lmax {lmax_of(self.matrix.shape[1])}); the "
                f"fODFs are {tuple(fodf.shape)}.",
                where="signal",
                remedy="Give the scan that the fODFs are of, and the matrix of their lmax.",
            )
        rows = fodf[inside].detach()
        signal = self.dwi[inside].to(rows)
        power = signal.square().sum()
        usable = torch.isfinite(signal).all(1, keepdim=True)
        if not bool(torch.isfinite(power)):
            signal = signal.where(usable, 0)
            power = signal.square().sum()
        if not power > 0:
            raise InputError(
                f"There is no signal in the {len(rows)} voxels of fODFs.",
                where="signal",
                remedy="Check that the image lies where the fODFs do.",
            )
        if self.background is not None:
            signal = signal - self.background[inside].to(rows).where(usable, 0)
        matrix = self.matrix.to(rows)
        predicted = rows @ matrix.T
        square = predicted.square().sum(1, keepdim=True)
        factor = (predicted * signal).sum(1, keepdim=True).clamp(min=0) / square.clamp(
            min=torch.finfo(rows.dtype).tiny
        )
        at_start = (signal - factor * predicted).square().sum(1)
        return Misfit(signal, matrix, factor, power, at_start)


@dataclass(frozen=True, eq=False)
class Misfit:
    """Squared differences between the signal of voxels and what their fODFs predict.

    Attributes
    ----------
    signal
        Without the background.
    matrix
        From an fODF to the signal.
    factor
        What predictions are multiplied by in each voxel: the one that suited the fODF at the
        start best. Intensities may have been normalised since the fODF was fitted.
    power
        Summed squares of the signal, background included.
    at_start
        Squared difference of each voxel with the fODF of the start.
    """

    signal: Float[Tensor, "voxel volume"]
    matrix: Float[Tensor, "volume coeff"]
    factor: Float[Tensor, "voxel 1"]
    power: Float[Tensor, ""]
    at_start: Float[Tensor, " voxel"]

    def relative(self, rows: Float[Tensor, "voxel coeff"]) -> Float[Tensor, ""]:
        """Divide the squared difference, all voxels together, by the squared signal."""
        return self._of_voxels(rows).sum() / self.power

    def increase(self, rows: Float[Tensor, "voxel coeff"]) -> Float[Tensor, ""]:
        """Add up by how much voxels fit worse than at the start, relative to the misfit then.

        A voxel that fits no worse costs nothing: what the signal does not determine is free, and
        a voxel that nothing else changes is not pulled away from the constraints that it was
        fitted with. 1 means that the squared misfit has doubled.
        """
        more = torch.relu(self._of_voxels(rows) - self.at_start).sum()
        return more / torch.maximum(self.at_start.sum(), _LEAST_MISFIT * self.power)

    def _of_voxels(self, rows: Float[Tensor, "voxel coeff"]) -> Float[Tensor, " voxel"]:
        return (self.signal - self.factor * (rows @ self.matrix.T)).square().sum(1)
