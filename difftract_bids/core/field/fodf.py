"""Direction field: the peak of an fODF image, at any position."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from difftract_bids.config import TrackingConfig
from difftract_bids.core.field.protocol import Heading
from difftract_bids.core.interpolation import Grid, interpolate
from difftract_bids.core.peaks import find_peaks
from difftract_bids.core.sh import lmax_of, n_coefficients
from difftract_bids.core.streamlines import StopReason
from difftract_bids.core.tensor_form import contract, sh_to_tensor
from difftract_bids.errors import FodfError, InputError

#: Rows of the table are filled up to a multiple of this many numbers: whole vector registers.
_LANES = 8


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
        fODFs in the tensor form, one row for each voxel that holds one, filled up with zeros at
        its end; row 0 is all zeros. A brain fills a quarter of its image.
    row
        Which row belongs to each voxel.
    cutoff
        Amplitude below which there is nothing to follow.
    peak_tolerance
        See `find_peaks`.
    """

    grid: Grid
    lmax: int
    table: Float[Tensor, "row width"]
    row: Int32[Tensor, "x y z"]
    cutoff: float
    peak_tolerance: float

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
        largest = _largest(fodf.detach())
        _check_finite(largest)
        try:
            grid = Grid.from_affine(tuple(fodf.shape[:3]), vox2ras, fodf.device)
        except InputError as error:
            raise FodfError(error.what, where=error.where, remedy=error.remedy) from error
        occupied = torch.nonzero(largest, as_tuple=True)
        numbers = torch.arange(1, len(occupied[0]) + 1, dtype=torch.int32, device=fodf.device)
        row = torch.zeros_like(largest, dtype=torch.int32).index_put(occupied, numbers)
        rows = sh_to_tensor(fodf[occupied], lmax)
        table = torch.nn.functional.pad(rows, (0, -rows.shape[1] % _LANES, 1, 0))
        return cls(
            grid=grid,
            lmax=lmax,
            table=table,
            row=row.contiguous(),
            cutoff=cutoff,
            peak_tolerance=peak_tolerance,
        )

    @classmethod
    def for_tracking(
        cls,
        fodf: Float[Tensor, "x y z coeff"],
        vox2ras: Float[Tensor, "4 4"],
        settings: TrackingConfig,
    ) -> FodfField:
        """Prepare an fODF image for tracking by settings that leave nothing open.

        Raises
        ------
        FodfError
            See `from_fodf`.
        """
        return cls.from_fodf(
            fodf, vox2ras, cutoff=settings.cutoff or 0.0, peak_tolerance=settings.peak_tolerance
        )

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the fODFs."""
        return self.table.dtype

    @property
    def device(self) -> torch.device:
        """Where the fODFs are."""
        return self.table.device

    def parameters(self) -> tuple[Tensor, ...]:
        """Give the fODFs in the tensor form, which hang together with those given."""
        return (self.table,)

    def heading(self, position_mm: Float[Tensor, "3 n"], start: Float[Tensor, "3 n"]) -> Heading:
        """Find the peak that a search from ``start`` leads to, at each position.

        Differentiable in the fODF and in the positions, not in ``start``.
        """
        voxel, row = self.grid.to_voxel(position_mm), self.row.reshape(-1)
        inside = self.grid.contains(voxel) & (row[self.grid.nearest(voxel)] > 0)
        tensor = interpolate(self.table, voxel, self.grid, row)[: n_coefficients(self.lmax)]
        peaks = find_peaks(tensor, start, self.lmax, self.peak_tolerance)
        reason = torch.where(peaks.amplitude < self.cutoff, int(StopReason.BELOW_CUTOFF), 0)
        reason = torch.where(peaks.found, reason, int(StopReason.NO_PEAK))
        return Heading(peaks.direction, torch.where(inside, reason, int(StopReason.OUTSIDE_IMAGE)))

    def strength(
        self, position_mm: Float[Tensor, "3 n"], direction: Float[Tensor, "3 n"]
    ) -> Float[Tensor, " n"]:
        """Evaluate the fODF at each position along a unit vector; 0 outside the image."""
        voxel, row = self.grid.to_voxel(position_mm), self.row.reshape(-1)
        inside = self.grid.contains(voxel) & (row[self.grid.nearest(voxel)] > 0)
        tensor = interpolate(self.table, voxel, self.grid, row)[: n_coefficients(self.lmax)]
        return torch.where(inside, contract(tensor, direction, self.lmax, 0)[0], 0)


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
    return lmax_of(fodf.shape[3])


def _largest(fodf: Float[Tensor, "x y z coeff"]) -> Float[Tensor, "x y z"]:
    """Find the largest magnitude in each voxel: 0 where it is empty, NaN where there is one."""
    if fodf.stride(0) < fodf.stride(3):
        # As NIfTI files come, x fastest: along their own order this takes a twentieth of the time.
        turned = fodf.permute(3, 2, 1, 0)
        return torch.maximum(turned.amax(0), -turned.amin(0)).permute(2, 1, 0)
    return torch.maximum(fodf.amax(3), -fodf.amin(3))


def _check_finite(largest: Float[Tensor, "x y z"]) -> None:
    bad = int((~torch.isfinite(largest)).sum())
    if bad:
        raise FodfError(
            f"The fODF is not finite in {bad} of {largest.numel()} voxels.",
            where="fodf",
            remedy="Set these voxels to zero (fodf.nan_to_num(0, 0, 0)), or mend the model fit.",
        )
