"""Where streamlines start, and how many."""

from __future__ import annotations

from dataclasses import dataclass

from difftract_bids.errors import ConfigError
from difftract_bids.validation import Validated, parse_numbers, setting

#: Streamlines to find where seeds have no end, and no number is given.
DEFAULT_STREAMLINES = 1_000_000


@dataclass(frozen=True)
class SeedingConfig(Validated):
    """Where streamlines start, and how many; texts are as on the command line."""

    n_streamlines: int | None = setting(
        None,
        "Streamlines to find, from as many seeds as that takes; default 1,000,000, or all that "
        "the seeds give where their number is given or finite.",
    )
    n_seeds: int | None = setting(None, "Seeds to try at most.")
    random_seed: int = setting(
        0, "Seed of every random choice; the same seed gives the same result."
    )
    seed_image: str | None = setting(
        None, "Mask to seed in, instead of the brain mask.", unit="image"
    )
    seed_random_per_voxel: int | None = setting(
        None, "Seeds at random places in each voxel of the seed image or the brain mask."
    )
    seed_grid_per_voxel: int | None = setting(
        None, "Seeds on a grid in each such voxel: this many along each axis."
    )
    seed_rejection: str | None = setting(
        None, "Image of weights: a voxel's seeds are in proportion to its value.", unit="image"
    )
    seed_gmwmi: bool = setting(
        default=False,
        desc="Seed on the interface of grey and white matter; needs anatomical constraints.",
    )
    seed_sphere: str | None = setting(
        None, "Seed at random in a sphere, scanner millimetres.", unit="x,y,z,radius"
    )
    seed_coordinates: str | None = setting(
        None, "Table of seeds: x y z in scanner millimetres in each row.", unit="file"
    )
    seed_direction: str | None = setting(
        None, "Direction in which every seed starts, scanner axes; default random.", unit="x,y,z"
    )

    def __post_init__(self) -> None:
        """Check the ranges, and that seeds come from one place."""
        super().__post_init__()
        counts = ("n_streamlines", "n_seeds", "seed_random_per_voxel", "seed_grid_per_voxel")
        for name in counts:
            value = getattr(self, name)
            self._require(name, ok=value is None or value >= 1, rule="1 or more")
        in_range = 0 <= self.random_seed < 2**63
        self._require("random_seed", ok=in_range, rule="0 or more, and below 2**63")
        sphere, direction = self.seed_sphere, self.seed_direction
        if sphere is not None:
            numbers = parse_numbers(sphere, 4)
            ok = numbers is not None and numbers[3] > 0
            self._require("seed_sphere", ok=ok, rule="x,y,z,radius with a radius above 0")
        if direction is not None:
            ok = any(parse_numbers(direction, 3) or ())
            self._require("seed_direction", ok=ok, rule="x,y,z, not all of them zero")
        self._refuse_two_kinds()

    def _refuse_two_kinds(self) -> None:
        kinds = [name for name in _SEEDINGS if self._asks_for(name)]
        if self.seed_image is not None and not {*kinds} & _IN_IMAGE:
            kinds.insert(0, "seed_image")
        if len(kinds) > 1:
            raise ConfigError(
                f"Seeds can come from one place only, not from {' and '.join(kinds)}.",
                where="SeedingConfig",
                remedy="Leave one of them out; seed_image goes with seed_random_per_voxel or "
                "seed_grid_per_voxel.",
            )

    @property
    def kind(self) -> str:
        """Which setting says where seeds are; ``seed_image`` also for the brain mask."""
        return next(filter(self._asks_for, _SEEDINGS), "seed_image")

    def _asks_for(self, name: str) -> bool:
        return getattr(self, name) not in (None, False)

    @property
    def wanted_streamlines(self) -> int | None:
        """Streamlines to find; ``None``: all that the seeds give."""
        if self.n_streamlines is not None:
            return self.n_streamlines
        finite = self.n_seeds is not None or self.kind in _FINITE
        return None if finite else DEFAULT_STREAMLINES


#: Kinds of seeding, of which there can be one; those within an image; those with an end.
_SEEDINGS = (
    "seed_random_per_voxel",
    "seed_grid_per_voxel",
    "seed_rejection",
    "seed_gmwmi",
    "seed_sphere",
    "seed_coordinates",
)
_IN_IMAGE = {"seed_random_per_voxel", "seed_grid_per_voxel"}
_FINITE = _IN_IMAGE | {"seed_coordinates"}
