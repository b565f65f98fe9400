"""What a step learns from: drawn from the seed and the number of the step alone.

Nothing is remembered between steps, so a training that goes on draws what it would have drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from difftract_bids.config import OptimisationConfig


class Purpose(IntEnum):
    """What is drawn: each has numbers of its own, whatever the others draw."""

    WEIGHTS = 0
    PATCHES = 1
    PROPAGATION = 2
    VALIDATION = 3


@dataclass(frozen=True)
class Patch:
    """A box of a scan's grid, and how it is rotated.

    Attributes
    ----------
    scan
        Which scan, counted from 0.
    box
        Its voxels along each axis of the network's frame.
    rotation
        Which of the scan's rotations, counted from 0, which is none.
    """

    scan: int
    box: tuple[slice, slice, slice]
    rotation: int

    def of(self, image: Tensor) -> Tensor:
        """Cut it from an image whose last three axes are the grid's."""
        return image[(..., *self.box)]


@dataclass(frozen=True)
class Pass:
    """A pass of a whole scan through the network and the propagator.

    Attributes
    ----------
    scan, rotation
        See `Patch`.
    random_seed
        Seed of its streamlines' seeds.
    """

    scan: int
    rotation: int
    random_seed: int


class Batches:
    """Draw what each step learns from.

    Parameters
    ----------
    masks
        Where patches may have their centres, of each scan.
    n_rotations
        How many rotations each scan has.
    config
        Size and number of patches, and the seed.
    """

    def __init__(
        self,
        masks: Sequence[Bool[Tensor, "x y z"]],
        n_rotations: Sequence[int],
        config: OptimisationConfig,
    ) -> None:
        self._shapes = [tuple(mask.shape) for mask in masks]
        self._voxels = [torch.nonzero(mask).numpy(force=True) for mask in masks]
        self._n_rotations = n_rotations
        self._config = config

    def patches(self, step: int) -> list[Patch]:
        """Draw the patches of a step, as many as configured, each about a voxel of its mask."""
        draw = generator(self._config.random_seed, Purpose.PATCHES, step)
        return [self._patch(draw) for _ in range(self._config.patches_per_step)]

    def _patch(self, draw: np.random.Generator) -> Patch:
        scan = int(draw.integers(len(self._voxels)))
        voxels = self._voxels[scan]
        centre = voxels[draw.integers(len(voxels))]
        size = self._config.patch_size
        box = []
        for at, length in zip(centre.tolist(), self._shapes[scan], strict=True):
            first = max(0, min(at - size // 2, length - size))
            box.append(slice(first, min(first + size, length)))
        return Patch(scan, (box[0], box[1], box[2]), self._rotation(draw, scan))

    def whole(self, step: int) -> Pass:
        """Draw the scan that is propagated in a step, its rotation, and the seed of its seeds."""
        draw = generator(self._config.random_seed, Purpose.PROPAGATION, step)
        scan = int(draw.integers(len(self._voxels)))
        return Pass(scan, self._rotation(draw, scan), int(draw.integers(2**63)))

    def _rotation(self, draw: np.random.Generator, scan: int) -> int:
        return int(draw.integers(self._n_rotations[scan])) if self._config.rotations else 0


def generator(random_seed: int, purpose: Purpose, number: int = 0) -> np.random.Generator:
    """Make the generator of one thing that is drawn.

    Parameters
    ----------
    random_seed
        Seed of the training.
    purpose
        What is drawn.
    number
        Which of them: the step, or the scan.
    """
    return np.random.default_rng([random_seed, int(purpose), number])


def learning_rate(step: int, config: OptimisationConfig) -> float:
    """Give the learning rate of a step: half a cosine, from the configured one to 0.

    References
    ----------
    Loshchilov & Hutter 2017, arXiv:1608.03983, equation 5, without restarts.
    """
    return 0.5 * config.learning_rate * (1.0 + float(np.cos(np.pi * step / config.n_steps)))


def inside(
    image: Float[Tensor, "coeff x y z"], mask: Bool[Tensor, "x y z"]
) -> Float[Tensor, "voxel coeff"]:
    """Give the coefficients of the voxels of a mask."""
    return image.movedim(0, -1)[mask]
