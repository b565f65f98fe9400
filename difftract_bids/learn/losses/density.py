"""Density of streamlines: how many millimetres of them pass each voxel, and its derivative."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from difftract_bids.core.interpolation import Grid, interpolate
from difftract_bids.core.streamlines import Streamlines
from difftract_bids.errors import InputError
from difftract_bids.learn.losses.matrix import relative_square

#: Segments whose eight corners are in memory together.
_SEGMENTS_AT_ONCE = 1 << 18


def tract_density(
    streamlines: Streamlines, shape: tuple[int, ...], vox2ras: Float[Tensor, "4 4"]
) -> Float[Tensor, "x y z"]:
    """Add up the length of streamlines in the voxels of a grid, spread trilinearly.

    Each segment gives its length to the eight voxels around its middle, in the weights that a
    lookup there would give them: a smooth form of track density imaging, whose derivative by the
    vertices is that lookup's. Differentiable in the streamlines' points.

    Parameters
    ----------
    streamlines
        With segments no longer than about a voxel, else their middles leave holes.
    shape, vox2ras
        The grid: voxels along each axis, and its affine to RAS+ millimetres.

    Returns
    -------
    Tensor
        Millimetres of streamline in each voxel; their sum is the length of all segments whose
        middle lies in the image.

    Raises
    ------
    InputError
        If the affine cannot be inverted.

    References
    ----------
    Calamante et al. 2010, doi:10.1016/j.neuroimage.2010.07.024.
    """
    points = streamlines.points
    grid = Grid.from_affine(shape, vox2ras, points.device)
    joins = torch.zeros(max(len(points) - 1, 0), dtype=torch.bool, device=points.device)
    joins[streamlines.offsets[1:-1] - 1] = True
    own = torch.nonzero(~joins).squeeze(1)
    first, second = points[own], points[own + 1]
    length = torch.linalg.vector_norm(second - first, dim=1)
    voxel = grid.to_voxel((first + second).T / 2)
    inside = grid.contains(voxel.detach())
    result: Tensor = _Splat.apply(length[inside], voxel[:, inside], grid)  # type: ignore[no-untyped-call]
    return result.reshape(grid.shape)


def density_loss(
    found: Float[Tensor, "x y z"], target: Float[Tensor, "x y z"]
) -> Float[Tensor, ""]:
    """Compare densities: Σ (found − target)² / Σ target².

    0 for equal ones, 1 for a found one of zeros. Where the target is zero throughout, the squares
    are not divided.

    Raises
    ------
    InputError
        If they are not of one grid.
    """
    if found.shape != target.shape:
        raise InputError(
            f"The density is {tuple(found.shape)}, the one wanted {tuple(target.shape)}.",
            where="density",
            remedy="Give two images of the same grid.",
        )
    return relative_square(found, target)


class _Splat(torch.autograd.Function):
    """The transpose of the trilinear lookup: values into the voxels around positions."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, voxel: Tensor, grid: Grid) -> Tensor:  # noqa: ANN401 - torch leaves the type of its context open
        ctx.save_for_backward(values, voxel)
        ctx.grid = grid
        n_voxels = grid.shape[0] * grid.shape[1] * grid.shape[2]
        image = values.new_zeros(n_voxels)
        table = torch.zeros_like(image)[:, None].requires_grad_()
        for some in _chunks(values):
            with torch.enable_grad():
                looked_up = interpolate(table, voxel[:, some], grid)
            # The lookup is linear in the table: its derivative by that is the transpose.
            (spread,) = torch.autograd.grad(looked_up, table, values[None, some])
            image += spread[:, 0]
        return image

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, Tensor, None]:  # noqa: ANN401 - torch leaves the type of its context open
        values, voxel = ctx.saved_tensors
        table = cotangent.contiguous()[:, None]
        to_values, to_voxel = torch.empty_like(values), torch.empty_like(voxel)
        for some in _chunks(values):
            here = voxel[:, some].detach().requires_grad_()
            with torch.enable_grad():
                looked_up = interpolate(table, here, ctx.grid)
            (to_voxel[:, some],) = torch.autograd.grad(looked_up, here, values[None, some])
            to_values[some] = looked_up[0].detach()
        return to_values, to_voxel, None


def _chunks(values: Float[Tensor, " n"]) -> tuple[Int[Tensor, " m"], ...]:
    return torch.split(torch.arange(len(values), device=values.device), _SEGMENTS_AT_ONCE)
