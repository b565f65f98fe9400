"""What every deconvolution asks of its input, with errors that say what is wrong."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from difftract_bids.core.sh import MAX_LMAX, n_coefficients
from difftract_bids.errors import ConfigError, GradientError, InputError

#: A b-vector's length may be this far from 1.
_UNIT_TOLERANCE = 0.01


def check_lmax(lmax: int, smallest: int) -> None:
    """Check a maximum degree: even, and not out of range.

    Raises
    ------
    ConfigError
        If it is not.
    """
    if lmax % 2 or not smallest <= lmax <= MAX_LMAX:
        raise ConfigError(
            f"lmax is {lmax}, but it must be an even number from {smallest} to {MAX_LMAX}.",
            where="lmax",
            remedy="Leave it out for the default, 8.",
        )


def check_bvecs(bvecs: Float[Tensor, "volume 3"], weighted: Bool[Tensor, " volume"]) -> None:
    """Check directions: three numbers each, finite, of unit length where they are weighted.

    Raises
    ------
    GradientError
        If they are not; it says how many.
    """
    if bvecs.ndim != 2 or bvecs.shape[1] != 3:
        raise GradientError(
            f"The b-vectors have the shape {tuple(bvecs.shape)}.",
            where="bvecs",
            remedy="Give one row of three numbers for each volume.",
        )
    length = bvecs.detach()[weighted].norm(dim=1)
    wrong = int((~((length - 1).abs() <= _UNIT_TOLERANCE)).sum())
    if wrong:
        raise GradientError(
            f"{wrong} of {len(length)} diffusion-weighted b-vectors are not of unit length.",
            where="bvecs",
            remedy="Give unit vectors in scanner axes.",
        )


def check_response(response: Float[Tensor, "*shell order"], name: str) -> None:
    """Check zonal coefficients: finite, with a positive mean signal.

    Raises
    ------
    InputError
        If they are not.
    """
    values = response.detach()
    if not values.isfinite().all() or not (values[..., 0] > 0).all():
        raise InputError(
            f"The response has {int((~values.isfinite()).sum())} coefficients that are not "
            f"finite, and mean signals down to {float(values[..., 0].min()):g}.",
            where=name,
            remedy="Estimate it from voxels that have signal; the first coefficient of every "
            "shell is positive.",
        )


def warn_if_super_resolved(n_directions: int, lmax: int) -> None:
    """Warn if there are fewer directions than coefficients.

    Warns
    -----
    UserWarning
        If there are.
    """
    if n_directions < n_coefficients(lmax):
        warnings.warn(
            f"{n_directions} directions for {n_coefficients(lmax)} coefficients (lmax {lmax}): "
            "the fODF is super-resolved, its sharpness owed to the non-negativity constraint.",
            stacklevel=4,
        )


class Flat(NamedTuple):
    """A series with one row for each voxel, in the order in which they lie in memory.

    Attributes
    ----------
    dwi
        The series; no copy, whether the image has its first or its last axis fastest.
    mask
        The mask in the same order.
    order
        Axes of the grid, slowest first.
    shape
        The grid.
    """

    dwi: Float[Tensor, "image volume"]
    mask: Bool[Tensor, " image"] | None
    order: list[int]
    shape: torch.Size

    def restored(self, rows: Float[Tensor, "image coeff"]) -> Float[Tensor, "*grid coeff"]:
        """Put rows back on the grid."""
        sizes = [self.shape[axis] for axis in self.order]
        back = sorted(range(len(sizes)), key=self.order.__getitem__)
        return rows.reshape(*sizes, rows.shape[1]).permute(*back, len(sizes))


def flat_volumes(
    dwi: Float[Tensor, "*grid volume"],
    n_volumes: int,
    mask: Bool[Tensor, "*grid"] | None,
) -> Flat:
    """Check a series against the gradient table and the mask, and make rows of its voxels.

    Raises
    ------
    InputError
        If shapes differ or the series does not hold real numbers.
    """
    if not dwi.is_floating_point() or dwi.ndim < 1 or dwi.shape[-1] != n_volumes:
        raise InputError(
            f"The series has the shape {tuple(dwi.shape)} and the type {dwi.dtype}; the gradient "
            f"table has {n_volumes} volumes.",
            where="dwi",
            remedy="Give floating-point numbers, volumes last, as many as b-vectors.",
        )
    grid = dwi.shape[:-1]
    if mask is not None and (mask.dtype != torch.bool or mask.shape != grid):
        raise InputError(
            f"The mask has the shape {tuple(mask.shape)} and the type {mask.dtype}; the series' "
            f"grid is {tuple(grid)}.",
            where="mask",
            remedy="Give a boolean mask on the same grid.",
        )
    strides = dwi.stride()
    order = sorted(range(len(grid)), key=lambda axis: -strides[axis])
    rows = dwi.permute(*order, len(grid)).reshape(-1, n_volumes)
    inside = None if mask is None else mask.to(dwi.device).permute(*order).reshape(-1)
    return Flat(rows, inside, order, grid)


def indices(chosen: Bool[Tensor, " volume"]) -> Int[Tensor, " some"]:
    """List where a mask is true."""
    return torch.nonzero(chosen).squeeze(1)
