"""Where a position lies in an image, and what the image holds there."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Int32
from torch import Tensor
from torch.autograd.function import once_differentiable

from difftract_bids.core.rules import mean_voxel_size_mm
from difftract_bids.errors import InputError

#: MRtrix leaves out corners of smaller weight; float64 keeps them, so that it stays continuous.
_SMALLEST_FLOAT32_WEIGHT = 1e-6
_CORNERS = tuple(product((0, 1), repeat=3))


@dataclass(frozen=True)
class Grid:
    """The voxels of an image and their place in the world.

    Attributes
    ----------
    shape
        Number of voxels along each axis.
    ras2vox
        Affine from RAS+ millimetres to voxel coordinates, where whole numbers are voxel centres;
        always float64, as positions far from the origin need it.
    """

    shape: tuple[int, int, int]
    ras2vox: Float[Tensor, "4 4"]

    @classmethod
    def from_affine(
        cls, shape: tuple[int, ...], vox2ras: Float[Tensor, "4 4"], device: torch.device
    ) -> Grid:
        """Make a grid from the affine of an image.

        Raises
        ------
        InputError
            If the affine is not 4 × 4, not finite or not invertible.
        """
        affine = vox2ras.detach().to(device="cpu", dtype=torch.float64)
        usable = affine.shape == (4, 4) and bool(torch.isfinite(affine).all())
        if not usable or float(torch.linalg.det(affine[:3, :3]).abs()) < 1e-12:  # mm³
            raise InputError(
                "The affine from voxels to millimetres is not an invertible 4 by 4 matrix.",
                where="vox2ras",
                remedy="Check the image's header: sform or qform must hold its voxel sizes.",
            )
        x, y, z = shape
        return cls((x, y, z), torch.linalg.inv(affine).to(device))

    @property
    def voxel_size_mm(self) -> float:
        """Cube root of the voxel volume, millimetres."""
        return mean_voxel_size_mm(torch.linalg.inv(self.ras2vox.cpu()))

    def to_voxel(self, position_mm: Float[Tensor, "3 n"]) -> Float[Tensor, "3 n"]:
        """Convert RAS+ millimetres into voxel coordinates, in float64."""
        return apply_affine(self.ras2vox, position_mm.to(torch.float64))

    def contains(self, voxel: Float[Tensor, "3 n"]) -> Bool[Tensor, " n"]:
        """Tell which coordinates lie in a voxel of the image: -0.5 < v < size - 0.5."""
        low, high = voxel > -0.5, voxel < self._size(voxel) - 0.5
        return (low & high).all(0)

    def nearest(self, voxel: Float[Tensor, "3 n"]) -> Int[Tensor, " n"]:
        """Find the flat index of the nearest voxel, or of the nearest edge voxel outside."""
        rounded = torch.floor(voxel.detach() + 0.5)
        index = torch.minimum(rounded.clamp(min=0), self._size(voxel) - 1).long()
        return self._flat(*index)

    def is_in(
        self, marked: Bool[Tensor, "*grid"], voxel: Float[Tensor, "3 n"]
    ) -> Bool[Tensor, " n"]:
        """Tell which coordinates lie in a marked voxel of the image (flat ones in C order)."""
        return self.contains(voxel) & marked.reshape(-1)[self.nearest(voxel)]

    def corners(
        self, voxel: Float[Tensor, "3 n"]
    ) -> tuple[Int[Tensor, "n 8"], Float[Tensor, "3 n"], Bool[Tensor, "3 n"]]:
        """Find the flat indices of the 8 voxels around, the fractions, and where these vary.

        In the half-voxel rim of the image the coordinate is that of the edge voxel's centre, so
        the fraction does not vary there.
        """
        last = self._size(voxel) - 1
        clamped = torch.minimum(voxel.clamp(min=0), last)
        low = torch.floor(clamped)
        high = torch.minimum(low + 1, last).long()
        ends = torch.stack([low.long(), high])
        flat = [self._flat(ends[i, 0], ends[j, 1], ends[k, 2]) for i, j, k in _CORNERS]
        varies = (voxel > 0) & (voxel < last)
        return torch.stack(flat, dim=1), clamped - low, varies

    def _flat(
        self, i: Int[Tensor, " n"], j: Int[Tensor, " n"], k: Int[Tensor, " n"]
    ) -> Int[Tensor, " n"]:
        return (i * self.shape[1] + j) * self.shape[2] + k

    def _size(self, voxel: Float[Tensor, "3 n"]) -> Float[Tensor, "3 1"]:
        return torch.tensor(self.shape, dtype=voxel.dtype, device=voxel.device)[:, None]


def apply_affine(
    affine: Float[Tensor, "4 4"], points: Float[Tensor, "3 n"]
) -> Float[Tensor, "3 n"]:
    """Apply an affine to points, one column each.

    Written out, because the rounding of a matrix product depends on how many columns it has, and
    results must not depend on the size of a batch.
    """
    x, y, z = points
    rows = [row[0] * x + row[1] * y + row[2] * z + row[3] for row in affine[:3]]
    return torch.stack(rows)


def interpolate(
    table: Float[Tensor, "row component"],
    voxel: Float[Tensor, "3 n"],
    grid: Grid,
    row: Int32[Tensor, " voxel"] | None = None,
) -> Float[Tensor, "component n"]:
    """Interpolate voxel values trilinearly; differentiable in values and coordinates.

    Parameters
    ----------
    table
        Values, one row for each voxel, or for those that ``row`` points to.
    voxel
        Voxel coordinates.
    grid
        The image's voxels.
    row
        Which row of the table belongs to each voxel.
    """
    values: Tensor = _Trilinear.apply(table, voxel, grid, row)  # type: ignore[no-untyped-call]
    return values


class _Trilinear(torch.autograd.Function):
    """Trilinear lookup that stores nothing but coordinates for its backward pass."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, voxel: Tensor, grid: Grid, row: Tensor | None) -> Tensor:  # noqa: ANN401 - torch leaves the type of its context open
        ctx.save_for_backward(table, voxel)
        ctx.grid, ctx.row = grid, row
        index, fraction, _ = grid.corners(voxel)
        index = index if row is None else row[index]
        weights = _corner_weights(fraction).to(table.dtype)
        if table.dtype == torch.float32:
            weights = weights * (weights >= _SMALLEST_FLOAT32_WEIGHT)
        values = torch.nn.functional.embedding_bag(
            index, table, per_sample_weights=weights.T.contiguous(), mode="sum"
        )
        return values.T.contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:  # noqa: ANN401 - torch leaves the type of its context open
        table, voxel = ctx.saved_tensors
        index, fraction, varies = ctx.grid.corners(voxel)
        index = index if ctx.row is None else ctx.row[index]
        rows = cotangent.T.contiguous()
        to_table = to_voxel = None
        if ctx.needs_input_grad[0]:
            weights = _corner_weights(fraction).to(table.dtype)
            to_table = torch.zeros_like(table)
            for corner, weight in enumerate(weights):
                to_table.index_add_(0, index[:, corner], rows * weight[:, None])
        if ctx.needs_input_grad[1]:
            slopes = torch.stack([(table[column] * rows).sum(1) for column in index.T])
            to_voxel = (_corner_slopes(fraction) * slopes.to(voxel.dtype)).sum(1) * varies
        return to_table, to_voxel, None, None


def _corner_weights(fraction: Float[Tensor, "3 n"]) -> Float[Tensor, "8 n"]:
    x, y, z = torch.stack([1 - fraction, fraction], dim=1)
    return torch.stack([x[i] * y[j] * z[k] for i, j, k in _CORNERS])


def _corner_slopes(fraction: Float[Tensor, "3 n"]) -> Float[Tensor, "3 8 n"]:
    """Differentiate the corner weights by each coordinate."""
    x, y, z = torch.stack([1 - fraction, fraction], dim=1)
    sign = (-1.0, 1.0)
    by_x = torch.stack([sign[i] * y[j] * z[k] for i, j, k in _CORNERS])
    by_y = torch.stack([sign[j] * x[i] * z[k] for i, j, k in _CORNERS])
    by_z = torch.stack([sign[k] * x[i] * y[j] for i, j, k in _CORNERS])
    return torch.stack([by_x, by_y, by_z])
