"""Turns that bring a voxel grid onto itself, for augmentation: exact, without interpolation."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from difftract_bids.learn.network import FODFNetwork
from difftract_bids.learn.sh_blocks import Matrix, turn_channels

#: Voxel sizes within this share of each other count as equal: scanners round.
_SAME_SIZE = 0.01


@dataclass(frozen=True)
class GridRotation:
    """A signed permutation of the axes, of the grid and of the functions in it.

    Half of these are reflections, which even functions take as well as rotations; a mirrored
    brain is nearly a brain.

    Attributes
    ----------
    order
        For each axis afterwards, which axis it was.
    reverse
        For each axis afterwards, whether it was reversed.
    """

    order: tuple[int, ...]
    reverse: tuple[bool, ...]

    @property
    def matrix(self) -> Matrix:
        """The turn of directions: what pointed along ``d`` points along ``matrix @ d``."""
        rows = zip(self.order, self.reverse, strict=True)
        return tuple(
            tuple((-1.0 if reverse else 1.0) * (axis == other) for other in range(3))
            for axis, reverse in rows
        )

    @property
    def inverse(self) -> GridRotation:
        """What undoes it."""
        order = tuple(self.order.index(axis) for axis in range(3))
        return GridRotation(order, tuple(self.reverse[axis] for axis in order))

    def apply(
        self, image: Float[Tensor, "channel i j k"], lmax_per_block: Sequence[int]
    ) -> Float[Tensor, "channel p q r"]:
        """Turn an image of SH series.

        Parameters
        ----------
        image
            Series of SH coefficients behind one another, axes those of the grid; differentiable.
        lmax_per_block
            Maximum degree of each series.

        Raises
        ------
        InputError
            If the channels are not those of the series.
        """
        return turn_channels(self.apply_to_grid(image), self.matrix, lmax_per_block)

    def undo(
        self, image: Float[Tensor, "channel p q r"], lmax_per_block: Sequence[int]
    ) -> Float[Tensor, "channel i j k"]:
        """Turn it back; see `apply`."""
        return self.inverse.apply(image, lmax_per_block)

    def apply_to_grid(self, image: Float[Tensor, "*any i j k"]) -> Float[Tensor, "*any p q r"]:
        """Turn an image of numbers that are no directions, such as a mask: its last three axes."""
        others = range(image.ndim - 3)
        moved = image.permute(*others, *(len(others) + axis for axis in self.order))
        return moved.flip([len(others) + axis for axis in range(3) if self.reverse[axis]])


def rotations_of(voxel_size_mm: Sequence[float]) -> list[GridRotation]:
    """List the turns that leave the voxel size along each axis what it is, the identity first.

    Parameters
    ----------
    voxel_size_mm
        Along the axes that are turned, millimetres: for a network's input those of `VoxelFrame`.

    Returns
    -------
    list of GridRotation
        48 for cubic voxels (the octahedral group), 16 if two sizes are equal, otherwise 8.
    """
    sizes = list(voxel_size_mm)
    orders = [
        order
        for order in itertools.permutations(range(3))
        if all(
            abs(sizes[old] - sizes[new]) <= _SAME_SIZE * sizes[new]
            for new, old in enumerate(order)
        )
    ]
    reversals = list(itertools.product((False, True), repeat=3))
    return [GridRotation(order, signs) for order in orders for signs in reversals]


def predict_rotated(
    network: FODFNetwork, encoded: Float[Tensor, "channel i j k"], rotation: GridRotation
) -> Float[Tensor, "coeff i j k"]:
    """Let a network see a turned image, and turn what it predicts back.

    So the prediction is that of the image as it was, for any loss to compare, and a network that
    knows how to turn gives the same whatever the rotation.

    Parameters
    ----------
    network
        From signal to fODF.
    encoded
        What `FODFNetwork.encode` gives, or a patch of it.
    rotation
        One of `rotations_of`.
    """
    turned = rotation.apply(encoded, network.settings.input_lmaxes)
    return rotation.undo(network(turned[None])[0], network.settings.output_lmaxes)
