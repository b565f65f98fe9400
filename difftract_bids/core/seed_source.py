"""What all sources of seeds share: their protocol, their checks, their geometry."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from difftract_bids.core.interpolation import Grid, apply_affine
from difftract_bids.core.philox import in_unit_ball, uniform
from difftract_bids.errors import InputError, SeedError

# What the blocks of random words of a seed are for. Draws that may have to be repeated go on with
# the blocks that follow.
POSITION_BLOCK = 0
_FIRST_DIRECTION_BLOCK = 1
CHOICE_BLOCK = 1 << 30
FIRST_BALL_BLOCK = 1 << 31

Vector = tuple[float, float, float]
Drawn = tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]


class SeedSource(Protocol):
    """Numbered seeds."""

    @property
    def total(self) -> int | None:
        """How many seeds there are; ``None``: as many as are asked for."""

    def draw(self, first: int, n: int) -> Drawn:
        """Make the seeds ``first`` to ``first + n - 1``.

        Returns
        -------
        seeds_mm, directions
            Positions, RAS+ millimetres, and unit vectors, scanner axes; float64.

        Raises
        ------
        SeedError
            If there are not so many.
        """

    def at(self, number: Int[Tensor, " n"]) -> Drawn:
        """Make the seeds of these numbers, in this order; as `draw` does.

        Raises
        ------
        SeedError
            If there is no seed of such a number.
        """


class Source:
    """What all sources share: numbers in, positions and directions out."""

    random_seed: int
    direction: Vector | None

    @property
    def total(self) -> int | None:
        """How many seeds there are; ``None``: as many as are asked for."""
        return None

    def draw(self, first: int, n: int) -> Drawn:
        """Make the seeds ``first`` to ``first + n - 1``, see `SeedSource`."""
        total = self.total
        if first < 0 or n < 0 or (total is not None and first + n > total):
            has = "seeds are numbered from 0" if total is None else f"there are {total} seeds"
            raise SeedError(
                f"Seeds {first} to {first + n - 1} were asked for, but {has}.",
                where=type(self).__name__,
                remedy="Ask for fewer seeds, or for more of them in each voxel.",
            )
        return self.at(torch.arange(first, first + n, dtype=torch.int64))

    def at(self, number: Int[Tensor, " n"]) -> Drawn:
        """Make the seeds of these numbers, see `SeedSource`."""
        total = self.total
        beyond = torch.zeros_like(number, dtype=torch.bool) if total is None else number >= total
        if bad := int(((number < 0) | beyond).sum()):
            raise SeedError(
                f"{bad} of {len(number)} numbers are of no seed.",
                where=type(self).__name__,
                remedy="Give numbers from 0 on" + (f", below {total}." if total else "."),
            )
        given = number.to(self._device)
        return self._positions_mm(given), self._directions(given)

    @property
    def _device(self) -> torch.device:
        raise NotImplementedError

    def _positions_mm(self, number: Int[Tensor, " n"]) -> Float[Tensor, "n 3"]:
        raise NotImplementedError

    def _directions(self, number: Int[Tensor, " n"]) -> Float[Tensor, "n 3"]:
        if self._fixed_direction is None:
            return random_directions(number, self.random_seed)
        return self._fixed_direction.to(number.device).expand(len(number), 3).clone()

    @cached_property
    def _fixed_direction(self) -> Float[Tensor, "1 3"] | None:
        if self.direction is None:
            return None
        return unit_vectors(torch.tensor([self.direction], dtype=torch.float64), "direction")

    def check_choices(self) -> None:
        """Refuse a random seed or a direction that cannot be used."""
        if not 0 <= self.random_seed < 2**64:
            raise SeedError(
                f"The random seed is {self.random_seed}.",
                where="random_seed",
                remedy="Give a number from 0 to 2**64 - 1.",
            )
        _ = self._fixed_direction


@dataclass(frozen=True, eq=False)
class InMask(Source):
    """Seeds in the voxels of a mask.

    Attributes
    ----------
    mask
        Where seeds may be; seeds are on its device.
    vox2ras
        Affine of the mask, voxels to RAS+ millimetres.
    """

    mask: Bool[Tensor, "x y z"]
    vox2ras: Float[Tensor, "4 4"]

    def __post_init__(self) -> None:
        """Check everything before the first seed is drawn."""
        check_mask(self.mask)
        check_affine(self.mask, self.vox2ras)
        self.check_choices()

    @property
    def _device(self) -> torch.device:
        return self.mask.device


class InEachVoxel(InMask):
    """The same number of seeds in each voxel of a mask."""

    @property
    def total(self) -> int:
        """How many seeds there are."""
        return len(self._voxels[0]) * self._seeds_in_a_voxel

    @property
    def _seeds_in_a_voxel(self) -> int:
        raise NotImplementedError

    @cached_property
    def _voxels(self) -> tuple[Int[Tensor, "voxel 3"], Float[Tensor, "4 4"]]:
        return voxels_in_ras_order(self.mask, self.vox2ras)


def random_directions(number: Int[Tensor, " n"], random_seed: int) -> Float[Tensor, "n 3"]:
    """Map points of the unit disc to the unit sphere, uniformly (Marsaglia 1972)."""
    (a, b), square = in_unit_ball(number, 2, _FIRST_DIRECTION_BLOCK, random_seed)
    height = 2 * torch.sqrt(1 - square)
    return torch.stack([a * height, b * height, 1 - 2 * square], dim=1)


def unit_vectors(vectors: Float[Tensor, "n 3"], name: str) -> Float[Tensor, "n 3"]:
    """Give each row unit length, in float64.

    Raises
    ------
    SeedError
        If there are rows that are not finite or zero; it counts them.
    """
    check_rows(vectors, name)
    rows = vectors.detach().double()
    largest = rows.abs().amax(1, keepdim=True)
    if zero := int((largest == 0).sum()):
        raise SeedError(
            f"{zero} of {len(rows)} rows of {name} are zero.",
            where=name,
            remedy="A peak search needs somewhere to start: give any vector that is not zero.",
        )
    # Scaled first, so that no square overflows; written out, so that rounding knows no batches.
    x, y, z = (rows / largest).T
    return torch.stack([x, y, z], dim=1) / torch.sqrt(x * x + y * y + z * z)[:, None]


def within_voxel(words: list[Tensor]) -> list[Float[Tensor, " n"]]:
    """Map the last three of four words to a place in a voxel, from its centre."""
    return [uniform(word) - 0.5 for word in words[1:]]


def to_mm(
    vox2ras: Float[Tensor, "4 4"],
    voxels: Int[Tensor, "voxel 3"],
    chosen: Int[Tensor, " n"],
    within: list[Float[Tensor, " n"]],
) -> Float[Tensor, "n 3"]:
    """Convert places in chosen voxels to RAS+ millimetres."""
    affine = vox2ras.detach().to(device=voxels.device, dtype=torch.float64)
    # Column by column: torch shares indexing by rows out among threads, whose meeting takes
    # longer than the work where there are more of them than idle cores.
    columns = [column.index_select(0, chosen).double() for column in voxels.T]
    places = [column + place for column, place in zip(columns, within, strict=True)]
    return apply_affine(affine, torch.stack(places)).T


def voxels_in_ras_order(
    mask: Bool[Tensor, "x y z"], vox2ras: Float[Tensor, "4 4"]
) -> tuple[Int[Tensor, "voxel 3"], Float[Tensor, "4 4"]]:
    """List a mask's voxels as if the image were stored along RAS+ axes, and give its affine then.

    The order, last axis fastest, does not depend on how the image is stored.
    """
    affine = vox2ras.detach().to(device="cpu", dtype=torch.float64).clone()
    cosines = affine[:3, :3] / torch.linalg.vector_norm(affine[:3, :3], dim=0)
    order = max(
        permutations(range(3)), key=lambda p: sum(float(cosines[i, p[i]].abs()) for i in range(3))
    )
    affine[:, :3] = affine[:, list(order)]
    turned = mask.permute(order)
    for axis in range(3):
        if affine[axis, axis] < 0:
            turned = turned.flip(axis)
            affine[:, 3] += affine[:, axis] * (turned.shape[axis] - 1)
            affine[:, axis] *= -1
    return torch.nonzero(turned), affine


def check_rows(rows: Tensor, name: str) -> None:
    """Refuse what is not n finite rows of three numbers."""
    if rows.ndim != 2 or rows.shape[1] != 3 or not rows.is_floating_point():
        raise SeedError(
            f"{name} is {rows.dtype} {tuple(rows.shape)}; rows of three numbers are needed.",
            where=name,
            remedy="Give a floating-point tensor of n rows (x, y, z).",
        )
    if bad := int((~torch.isfinite(rows.detach())).any(1).sum()):
        raise SeedError(
            f"{bad} of {len(rows)} rows of {name} are not finite.",
            where=name,
            remedy="Leave them out.",
        )


def check_mask(mask: Tensor) -> None:
    """Refuse what is not a three-dimensional mask with a voxel in it."""
    if mask.ndim != 3 or mask.dtype != torch.bool or not bool(mask.any()):
        raise SeedError(
            f"The seed mask, {mask.dtype} {tuple(mask.shape)}, has no voxel to put a seed in.",
            where="mask",
            remedy="Give a three-dimensional boolean mask that is not empty.",
        )


def check_weights(weights: Tensor) -> None:
    """Refuse what is not a three-dimensional image of weights."""
    if weights.ndim != 3 or not weights.is_floating_point():
        raise SeedError(
            f"The seed weights are {weights.dtype} {tuple(weights.shape)}.",
            where="weights",
            remedy="Give a three-dimensional image of floating-point numbers.",
        )
    bad = int((~torch.isfinite(weights) | (weights < 0)).sum())
    if bad or not bool((weights > 0).any()):
        raise SeedError(
            f"{bad} of {weights.numel()} seed weights are negative or not finite."
            if bad
            else "All seed weights are zero.",
            where="weights",
            remedy="Give an image of finite values, none below zero and some above.",
        )


def check_affine(image: Tensor, vox2ras: Tensor) -> None:
    """Refuse an affine that is not invertible."""
    try:
        Grid.from_affine(tuple(image.shape), vox2ras, torch.device("cpu"))
    except InputError as error:
        raise SeedError(error.what, where=error.where, remedy=error.remedy) from error


def check_count(count: int, name: str) -> None:
    """Refuse fewer than one."""
    if count < 1:
        raise SeedError(
            f"{name} is {count}.", where=name, remedy="Give a whole number of 1 or more."
        )
