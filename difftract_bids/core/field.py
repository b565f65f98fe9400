"""The direction field that streamlines follow: the fODF's peak at any position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from difftract_bids.core.interpolation import Grid, interpolate
from difftract_bids.core.peaks import SEARCH_ITERATIONS, find_peaks
from difftract_bids.core.sh import lmax_of
from difftract_bids.core.streamlines import StopReason
from difftract_bids.core.tensor_form import sh_to_tensor
from difftract_bids.errors import FodfError, InputError

#: In place of a `StopReason`: the search needs more iterations than it was given.
UNFINISHED = -1


class Heading(NamedTuple):
    """Where to go from some positions: unit ``direction``, and a `StopReason` where one cannot."""

    direction: Float[Tensor, "3 n"]
    reason: Int[Tensor, " n"]


@dataclass(frozen=True)
class FodfField:
    """Peaks of an fODF image, anywhere in it.

    Attributes
    ----------
    grid
        The image's voxels.
    lmax
        Degree of its fODFs.
    table
        fODFs in the tensor form, one voxel each.
    occupied
        Which voxels hold an fODF, that is, are not all zeros.
    cutoff
        Amplitude below which there is nothing to follow.
    peak_tolerance, search_iterations
        See `find_peaks`; fewer iterations than MRtrix's leave headings `UNFINISHED`.
    """

    grid: Grid
    lmax: int
    table: Float[Tensor, "voxel component"]
    occupied: Bool[Tensor, " voxel"]
    cutoff: float
    peak_tolerance: float
    search_iterations: int = SEARCH_ITERATIONS

    @classmethod
    def from_fodf(
        cls,
        fodf: Float[Tensor, "x y z coeff"],
        vox2ras: Float[Tensor, "4 4"],
        *,
        cutoff: float,
        peak_tolerance: float,
    ) -> FodfField:
        """Check an fODF image and prepare it for lookups.

        Raises
        ------
        FodfError
            If it is not a finite, four-dimensional image of an even degree from 2 to 12, or its
            affine cannot be inverted.
        """
        lmax = _checked_lmax(fodf)
        try:
            grid = Grid.from_affine(tuple(fodf.shape[:3]), vox2ras, fodf.device)
        except InputError as error:
            raise FodfError(error.what, where=error.where, remedy=error.remedy) from error
        coefficients = fodf.reshape(-1, fodf.shape[3])
        return cls(
            grid=grid,
            lmax=lmax,
            table=sh_to_tensor(coefficients, lmax),
            occupied=(coefficients.detach() != 0).any(1),
            cutoff=cutoff,
            peak_tolerance=peak_tolerance,
        )

    def heading(self, position_mm: Float[Tensor, "3 n"], start: Float[Tensor, "3 n"]) -> Heading:
        """Find the peak that a search from ``start`` leads to, at each position.

        Differentiable in the fODF and in the positions, not in ``start``.
        """
        voxel = self.grid.to_voxel(position_mm)
        inside = self.grid.contains(voxel) & self.occupied[self.grid.nearest(voxel)]
        tensor = interpolate(self.table, voxel, self.grid)
        iterations = self.search_iterations
        peaks = find_peaks(tensor, start, self.lmax, self.peak_tolerance, iterations)
        not_found = int(StopReason.NO_PEAK) if iterations >= SEARCH_ITERATIONS else UNFINISHED
        reason = torch.where(peaks.amplitude < self.cutoff, int(StopReason.BELOW_CUTOFF), 0)
        reason = torch.where(peaks.found, reason, not_found)
        return Heading(peaks.direction, torch.where(inside, reason, int(StopReason.OUTSIDE_IMAGE)))


def _checked_lmax(fodf: Tensor) -> int:
    if fodf.ndim != 4 or not fodf.numel():
        raise FodfError(
            f"The fODF has the shape {tuple(fodf.shape)}; (x, y, z, coefficient) is needed.",
            where="fodf",
            remedy="Give a four-dimensional image of SH coefficients.",
        )
    if fodf.dtype not in (torch.float32, torch.float64):
        raise FodfError(
            f"The fODF is {fodf.dtype}; float32 or float64 is needed.",
            where="fodf",
            remedy="Convert it: fodf.float().",
        )
    lmax = lmax_of(fodf.shape[3])
    bad = int((~torch.isfinite(fodf.detach())).any(-1).sum())
    if bad:
        raise FodfError(
            f"The fODF is not finite in {bad} of {fodf[..., 0].numel()} voxels.",
            where="fodf",
            remedy="Set these voxels to zero (fodf.nan_to_num(0, 0, 0)), or mend the model fit.",
        )
    return lmax
