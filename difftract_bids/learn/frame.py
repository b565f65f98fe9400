"""The axes that a network works in: those of the voxel grid, put in the order of R, A and S."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from jaxtyping import Float
from nibabel.orientations import io_orientation
from torch import Tensor

from difftract_bids.core.sh import n_coefficients
from difftract_bids.errors import InputError
from difftract_bids.learn.sh_blocks import Matrix, turn_channels


@dataclass(frozen=True)
class VoxelFrame:
    """Voxel axes reordered and reversed to be the closest to right, anterior and superior.

    A convolution moves along voxel axes. The directions that it sees in the SH coefficients must
    be along the same axes, or what it learns of one scan holds for no scan of another obliqueness
    or storage order. So both the grid and the functions are brought into these axes, and fODFs
    back out of them.

    Attributes
    ----------
    order
        For each frame axis, which voxel axis it is.
    reverse
        For each frame axis, whether it runs against that voxel axis.
    axes
        Frame axes in scanner (RAS+) axes, a column each: the nearest orthogonal matrix. It is
        improper for none of the usual grids, and would do no harm: the functions are even.
    voxel_size_mm
        Voxel size along each frame axis, millimetres.

    References
    ----------
    Higham 1986, doi:10.1137/0907079 (the nearest orthogonal matrix is the polar factor).
    """

    order: tuple[int, ...]
    reverse: tuple[bool, ...]
    axes: Matrix
    voxel_size_mm: tuple[float, float, float]

    @classmethod
    def of(cls, vox2ras: Float[Tensor, "4 4"] | Float[np.ndarray, "4 4"]) -> Self:
        """Find the frame of a grid.

        Parameters
        ----------
        vox2ras
            Affine, voxels to RAS+ millimetres.

        Raises
        ------
        InputError
            If the affine maps the grid onto a plane, or is not finite.
        """
        # Through a list: a tensor may be on another device, and arrays are taken too.
        affine = np.array(vox2ras.tolist(), dtype=np.float64)
        linear = affine[:3, :3]
        sizes = np.linalg.norm(linear, axis=0)
        sound = bool(np.isfinite(affine).all() and (sizes > 0).all())
        if not sound or abs(np.linalg.det(linear / sizes)) < 1e-3:
            raise InputError(
                f"The affine cannot be inverted: {np.round(affine[:3], 4).tolist()}.",
                where="vox2ras",
                remedy="Convert the scan again: the header of its image is damaged.",
            )
        # Row v of the orientation says which scanner axis voxel axis v is closest to.
        nearest = io_orientation(affine)
        order = np.argsort(nearest[:, 0])
        signs = nearest[order, 1]
        left, _, right = np.linalg.svd(linear[:, order] / sizes[order] * signs)
        polar = left @ right
        sizes_mm = sizes[order].tolist()
        return cls(
            order=tuple(int(axis) for axis in order),
            reverse=tuple(bool(sign < 0) for sign in signs),
            axes=tuple(tuple(float(x) for x in row) for row in polar),
            voxel_size_mm=(sizes_mm[0], sizes_mm[1], sizes_mm[2]),
        )

    def to_frame(
        self, image: Float[Tensor, "x y z channel"], lmax: int | Sequence[int]
    ) -> Float[Tensor, "channel i j k"]:
        """Bring an image of SH series from its grid and scanner axes into the frame.

        Parameters
        ----------
        image
            One or several series behind one another, MRtrix3's basis; differentiable.
        lmax
            Maximum degree of all series, or that of each.

        Raises
        ------
        InputError
            If the channels are not those of the series.
        """
        grid = image.permute(3, *self.order).flip(self._reversed_axes(first=1))
        to_axes = tuple(zip(*self.axes, strict=True))
        return turn_channels(grid, to_axes, _blocks(lmax, len(grid)))

    def to_scan(
        self, image: Float[Tensor, "channel i j k"], lmax: int | Sequence[int]
    ) -> Float[Tensor, "x y z channel"]:
        """Undo `to_frame`.

        Parameters
        ----------
        image
            Series in the frame; differentiable.
        lmax
            Maximum degree of all series, or that of each.

        Raises
        ------
        InputError
            If the channels are not those of the series.
        """
        turned = turn_channels(image, self.axes, _blocks(lmax, len(image)))
        back = [1 + self.order.index(axis) for axis in range(3)]
        return turned.flip(self._reversed_axes(first=1)).permute(*back, 0)

    def grid_to_frame(self, image: Tensor) -> Tensor:
        """Bring an image of numbers that are no directions, (x, y, z), onto the frame's grid."""
        return image.permute(self.order).flip(self._reversed_axes(first=0))

    def _reversed_axes(self, *, first: int) -> list[int]:
        return [first + axis for axis, reverse in enumerate(self.reverse) if reverse]


def _blocks(lmax: int | Sequence[int], n_channels: int) -> Sequence[int]:
    if not isinstance(lmax, int):
        return lmax
    return (lmax,) * max(n_channels // n_coefficients(lmax), 1)
