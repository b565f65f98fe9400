"""Where streamlines start: each seed is a function of its number alone.

No state, no order, no chunks: seed ``i`` of a source is the same whichever others are drawn with
it, and on whatever device (see `difftract_bids.core.philox`). The sources are those of MRtrix's
``tckgen`` (3.0.3), with their places; random ones have random numbers of their own.

References
----------
Marsaglia 1972, doi:10.1214/aoms/1177692644 (points on a sphere).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from difftract_bids.core.philox import in_unit_ball, random_words, uniform_53_bits
from difftract_bids.core.seed_source import (
    CHOICE_BLOCK,
    FIRST_BALL_BLOCK,
    POSITION_BLOCK,
    Drawn,
    InEachVoxel,
    InMask,
    SeedSource,
    Source,
    Vector,
    check_affine,
    check_count,
    check_rows,
    check_weights,
    to_mm,
    unit_vectors,
    within_voxel,
)
from difftract_bids.errors import SeedError

__all__ = [
    "GivenSeeds",
    "RandomSeeds",
    "SeedGrid",
    "SeedSource",
    "SeedsPerVoxel",
    "SphereSeeds",
    "WeightedSeeds",
    "random_seeds",
]


@dataclass(frozen=True, eq=False)
class RandomSeeds(InMask):
    """Seeds uniformly in random voxels of a mask, as ``tckgen -seed_image``.

    Attributes
    ----------
    mask
        Where seeds may be; seeds are on its device.
    vox2ras
        Affine of the mask, voxels to RAS+ millimetres.
    random_seed
        Any number from 0 to 2⁶⁴ - 1; another one gives unrelated seeds.
    direction
        Direction of all seeds, scanner axes; uniform on the sphere if left out.

    Raises
    ------
    SeedError
        If the mask is not a three-dimensional mask or empty, or something else is out of range.
    """

    random_seed: int
    direction: Vector | None = None

    @cached_property
    def _voxels(self) -> Int[Tensor, "voxel 3"]:
        return torch.nonzero(self.mask)

    def _positions_mm(self, number: Int[Tensor, " n"]) -> Float[Tensor, "n 3"]:
        words = random_words(number, POSITION_BLOCK, self.random_seed)
        # A word times the count, over 2³²: uneven by no more than the count over 2³².
        chosen = (words[0] * len(self._voxels)) >> 32
        return to_mm(self.vox2ras, self._voxels, chosen, within_voxel(words))


@dataclass(frozen=True, eq=False)
class WeightedSeeds(Source):
    """Seeds in voxels by their weight, uniformly within: the distribution of -seed_rejection.

    Drawn by inverting the cumulative sum, where ``tckgen`` rejects: no loop, same distribution.

    Attributes
    ----------
    weights
        Image of values of 0 or more, finite; the chance of a voxel is proportional to its value.
    vox2ras
        Affine of the image, voxels to RAS+ millimetres.
    random_seed, direction
        See `RandomSeeds`.

    Raises
    ------
    SeedError
        If the image is not three-dimensional, has values that are negative or not finite, or none
        above zero, or something else is out of range.
    """

    weights: Float[Tensor, "x y z"]
    vox2ras: Float[Tensor, "4 4"]
    random_seed: int
    direction: Vector | None = None

    def __post_init__(self) -> None:
        """Check everything before the first seed is drawn."""
        check_weights(self.weights)
        check_affine(self.weights, self.vox2ras)
        self.check_choices()

    @property
    def _device(self) -> torch.device:
        return self.weights.device

    @cached_property
    def _voxels(self) -> Int[Tensor, "voxel 3"]:
        return torch.nonzero(self.weights)

    @cached_property
    def _cumulative(self) -> Float[Tensor, " voxel"]:
        # The largest weight becomes 1: no sum overflows. One after the other, on the CPU: another
        # device would add in another order.
        weights = self.weights.detach().double()
        chances = (weights / weights.max())[weights != 0]
        return chances.cpu().cumsum(0).to(self._device)

    def _positions_mm(self, number: Int[Tensor, " n"]) -> Float[Tensor, "n 3"]:
        return self.places_mm(number, CHOICE_BLOCK, POSITION_BLOCK)

    def places_mm(
        self, number: Int[Tensor, " n"], choice_block: int, position_block: int
    ) -> Float[Tensor, "n 3"]:
        """Draw places, RAS+ millimetres, by other blocks of random words than the seeds'."""
        high, low, *_ = random_words(number, choice_block, self.random_seed)
        # Less than the total even after rounding, as a random number is at most 1 - 2⁻⁵³.
        target = uniform_53_bits(high, low) * self._cumulative[-1]
        chosen = torch.searchsorted(self._cumulative, target, right=True)
        words = random_words(number, position_block, self.random_seed)
        return to_mm(self.vox2ras, self._voxels, chosen, within_voxel(words))


@dataclass(frozen=True, eq=False)
class SeedsPerVoxel(InEachVoxel):
    """The same number of seeds in each voxel, at random, as -seed_random_per_voxel.

    Voxels come in ``tckgen``'s order, that of the image turned to RAS+ axes, the last axis
    fastest. (3.0.3 leaves out the first voxel of the image, if that is in the mask; we do not.)

    Attributes
    ----------
    mask, vox2ras
        See `RandomSeeds`.
    per_voxel
        How many seeds in each voxel, 1 or more.
    random_seed, direction
        See `RandomSeeds`.

    Raises
    ------
    SeedError
        As `RandomSeeds`, and if ``per_voxel`` is less than 1.
    """

    per_voxel: int
    random_seed: int
    direction: Vector | None = None

    def __post_init__(self) -> None:
        """Check everything before the first seed is drawn."""
        super().__post_init__()
        check_count(self.per_voxel, "per_voxel")

    @property
    def _seeds_in_a_voxel(self) -> int:
        return self.per_voxel

    def _positions_mm(self, number: Int[Tensor, " n"]) -> Float[Tensor, "n 3"]:
        voxels, affine = self._voxels
        words = random_words(number, POSITION_BLOCK, self.random_seed)
        return to_mm(affine, voxels, number // self.per_voxel, within_voxel(words))


@dataclass(frozen=True, eq=False)
class SeedGrid(InEachVoxel):
    """A regular grid of seeds in each voxel, as -seed_grid_per_voxel.

    Along each axis seeds are at the centres of ``per_axis`` equal parts of the voxel. Voxels, and
    seeds within a voxel, come in ``tckgen``'s order, see `SeedsPerVoxel`.

    Attributes
    ----------
    mask, vox2ras
        See `RandomSeeds`.
    per_axis
        How many seeds along each axis of a voxel, 1 or more; its cube in each voxel.
    random_seed
        See `RandomSeeds`; here only directions depend on it.
    direction
        See `RandomSeeds`.

    Raises
    ------
    SeedError
        As `RandomSeeds`, and if ``per_axis`` is less than 1.
    """

    per_axis: int
    random_seed: int
    direction: Vector | None = None

    def __post_init__(self) -> None:
        """Check everything before the first seed is drawn."""
        super().__post_init__()
        check_count(self.per_axis, "per_axis")

    @property
    def _seeds_in_a_voxel(self) -> int:
        return self.per_axis**3

    def _positions_mm(self, number: Int[Tensor, " n"]) -> Float[Tensor, "n 3"]:
        voxels, affine = self._voxels
        k = self.per_axis
        parts = (number // k**2 % k, number // k % k, number % k)
        within = [(part.double() + 0.5) / k - 0.5 for part in parts]
        return to_mm(affine, voxels, number // k**3, within)


@dataclass(frozen=True, eq=False)
class SphereSeeds(Source):
    """Seeds uniformly in a ball, as ``tckgen -seed_sphere``.

    Attributes
    ----------
    centre_mm
        Centre, RAS+ millimetres.
    radius_mm
        Radius, above 0.
    random_seed, direction
        See `RandomSeeds`.
    device
        Where seeds are made.

    Raises
    ------
    SeedError
        If the centre or the radius, or something else, is out of range.
    """

    centre_mm: Vector
    radius_mm: float
    random_seed: int
    direction: Vector | None = None
    device: torch.device | str = "cpu"

    def __post_init__(self) -> None:
        """Check everything before the first seed is drawn."""
        centre_ok = len(self.centre_mm) == 3 and all(map(math.isfinite, self.centre_mm))
        if not centre_ok or not (math.isfinite(self.radius_mm) and self.radius_mm > 0):
            raise SeedError(
                f"There is no sphere of radius {self.radius_mm} mm about {self.centre_mm}.",
                where="centre_mm, radius_mm",
                remedy="Give three finite coordinates and a radius above 0.",
            )
        self.check_choices()

    @property
    def _device(self) -> torch.device:
        return torch.device(self.device)

    def _positions_mm(self, number: Int[Tensor, " n"]) -> Float[Tensor, "n 3"]:
        point, _ = in_unit_ball(number, 3, FIRST_BALL_BLOCK, self.random_seed)
        centre = torch.tensor(self.centre_mm, dtype=torch.float64, device=number.device)
        return point.T * self.radius_mm + centre


@dataclass(frozen=True, eq=False)
class GivenSeeds(Source):
    """Seeds at given coordinates, in their order.

    Attributes
    ----------
    seeds_mm
        Positions, RAS+ millimetres; seeds are on their device.
    directions
        Direction of each seed, scanner axes, of any length above 0.
    random_seed
        See `RandomSeeds`; matters only where there are no directions.
    direction
        Direction of all seeds, instead of ``directions``; uniform on the sphere without both.

    Raises
    ------
    SeedError
        If shapes differ, a number is not finite, a direction is zero, or both ``direction`` and
        ``directions`` are given; the message counts.
    """

    seeds_mm: Float[Tensor, "n 3"]
    directions: Float[Tensor, "n 3"] | None = None
    random_seed: int = 0
    direction: Vector | None = None

    def __post_init__(self) -> None:
        """Check everything before the first seed is drawn."""
        check_rows(self.seeds_mm, "seeds_mm")
        self.check_choices()
        given = self._units
        if given is not None and (len(given) != self.total or self.direction is not None):
            raise SeedError(
                f"There are {len(given)} directions for {self.total} seeds"
                + ("." if self.direction is None else ", and one direction for all of them."),
                where="directions",
                remedy="Give as many directions as seeds, or one direction, or none.",
            )

    @property
    def total(self) -> int:
        """How many seeds there are."""
        return len(self.seeds_mm)

    @property
    def _device(self) -> torch.device:
        return self.seeds_mm.device

    @cached_property
    def _units(self) -> Float[Tensor, "n 3"] | None:
        if self.directions is None:
            return None
        return unit_vectors(self.directions, "directions").to(self._device)

    def _positions_mm(self, number: Int[Tensor, " n"]) -> Float[Tensor, "n 3"]:
        return self.seeds_mm.detach()[number].double()

    def _directions(self, number: Int[Tensor, " n"]) -> Float[Tensor, "n 3"]:
        return super()._directions(number) if self._units is None else self._units[number]


def random_seeds(
    mask: Bool[Tensor, "x y z"],
    vox2ras: Float[Tensor, "4 4"],
    n: int,
    *,
    random_seed: int,
    first: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Drawn:
    """Draw seeds uniformly in random voxels of a mask, and directions uniformly on the sphere.

    `RandomSeeds` in one call; who draws more than once saves time by keeping one.

    Parameters
    ----------
    mask
        Where seeds may be.
    vox2ras
        Affine of the mask, voxels to RAS+ millimetres.
    n
        How many.
    random_seed
        Any number from 0 to 2⁶⁴ - 1; another one gives unrelated seeds.
    first
        Number of the first seed: drawing 0..9 equals drawing 0..4 and, from ``first=5``, 5..9.
    dtype
        Of the result; the computation is in float64.

    Returns
    -------
    seeds_mm, directions
        Positions, RAS+ millimetres, and unit vectors.

    Raises
    ------
    SeedError
        If the mask is not a three-dimensional mask, or is empty.
    """
    seeds_mm, directions = RandomSeeds(mask, vox2ras, random_seed).draw(first, n)
    return seeds_mm.to(dtype), directions.to(dtype)
