"""Places that settings name: seeds and regions, in images, tables or as numbers."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray

from difftract_bids.config import RegionsConfig, SeedingConfig
from difftract_bids.core.anatomy import Anatomy
from difftract_bids.core.interface_seeds import InterfaceSeeds
from difftract_bids.core.regions import Region, RegionImage, Regions, Sphere
from difftract_bids.core.seeding import (
    GivenSeeds,
    RandomSeeds,
    SeedGrid,
    SeedSource,
    SeedsPerVoxel,
    SphereSeeds,
    WeightedSeeds,
)
from difftract_bids.errors import InputError, UsageError
from difftract_bids.io.images import Volume, load_volume
from difftract_bids.validation import parse_numbers


def load_regions(config: RegionsConfig, brain_mask: Volume) -> Regions:
    """Load regions, on any grid.

    Parameters
    ----------
    config
        Images (voxels above zero) and spheres.
    brain_mask
        Where streamlines may go if no mask is given.

    Raises
    ------
    InputError
        If an image cannot be read, is not three-dimensional, or is empty.
    """
    inside = RegionImage(torch.from_numpy(brain_mask.data > 0), _affine(brain_mask))
    return Regions(
        mask=_load_each(config.mask) or (inside,),
        include=_load_each(config.include),
        exclude=_load_each(config.exclude),
        stop_at_includes=config.stop,
    )


def load_seed_source(
    config: SeedingConfig,
    brain_mask: Volume,
    device: torch.device | str = "cpu",
    anatomy: Anatomy | None = None,
) -> SeedSource:
    """Make the source of seeds that settings ask for.

    Parameters
    ----------
    config
        Which seeds.
    brain_mask
        Where seeds are if the settings do not say.
    device
        Where seeds are made.
    anatomy
        Tissue, on that device, on whose interface seeds can be.

    Raises
    ------
    InputError
        If a file cannot be read, or does not hold what it should.
    SeedError
        If there is no seed in it.
    UsageError
        If seeds are to be on an interface of tissue, and there is no tissue.
    """
    seed, direction = config.random_seed, None
    if config.seed_direction is not None:
        x, y, z = _numbers(config.seed_direction, 3)
        direction = (x, y, z)
    if config.seed_gmwmi:
        return InterfaceSeeds(_needed(anatomy), seed, direction)
    if config.seed_sphere is not None:
        x, y, z, radius_mm = _numbers(config.seed_sphere, 4)
        return SphereSeeds((x, y, z), radius_mm, seed, direction, device)
    if config.seed_coordinates is not None:
        rows = torch.from_numpy(read_coordinates(config.seed_coordinates)).to(device)
        return GivenSeeds(rows, None, seed, direction)
    if config.seed_rejection is not None:
        image = load_weights(config.seed_rejection)
        weights = torch.from_numpy(image.data).to(device)
        return WeightedSeeds(weights, _affine(image), seed, direction)
    return _in_voxels(config, brain_mask, direction, device)


def _needed(anatomy: Anatomy | None) -> Anatomy:
    if anatomy is None:
        raise UsageError(
            "Seeds are to be on the interface of grey and white matter, but there is no tissue "
            "image.",
            where="--seed-gmwmi",
            remedy="Ask for anatomical constraints (--act on), or seed elsewhere.",
        )
    return anatomy


def _in_voxels(
    config: SeedingConfig,
    brain_mask: Volume,
    direction: tuple[float, float, float] | None,
    device: torch.device | str,
) -> SeedSource:
    """Make a source of seeds in the voxels of a mask."""
    image = brain_mask if config.seed_image is None else load_mask(config.seed_image)
    mask, affine = torch.from_numpy(image.data > 0).to(device), _affine(image)
    seed = config.random_seed
    if config.seed_random_per_voxel is not None:
        return SeedsPerVoxel(mask, affine, config.seed_random_per_voxel, seed, direction)
    if config.seed_grid_per_voxel is not None:
        return SeedGrid(mask, affine, config.seed_grid_per_voxel, seed, direction)
    return RandomSeeds(mask, affine, seed, direction)


def load_mask(path: str | Path) -> Volume:
    """Load a three-dimensional image that has at least one voxel above zero.

    Raises
    ------
    InputError
        If it is none.
    """
    image = load_volume(path, ndim=3)
    if not (image.data > 0).any():
        raise InputError(
            "The image is empty: no voxel is above zero.",
            where=path,
            remedy="Give a mask with voxels in it, or leave this setting out.",
        )
    return image


def load_weights(path: str | Path) -> Volume:
    """Load a three-dimensional image of weights: finite, none below zero, some above.

    Raises
    ------
    InputError
        If it is none.
    """
    image = load_mask(path)
    bad = int((~np.isfinite(image.data) | (image.data < 0)).sum())
    if bad:
        raise InputError(
            f"{bad} of {image.data.size} weights are negative or not finite.",
            where=path,
            remedy="Set these voxels to zero.",
        )
    return image


def read_coordinates(path: str | Path) -> Float[np.ndarray, "n 3"]:
    """Read a table of points: three numbers in a row, separated by spaces, tabs or commas.

    The first row may be a header; empty rows and those that begin with ``#`` are left out.

    Returns
    -------
    numpy.ndarray
        RAS+ millimetres, float64.

    Raises
    ------
    InputError
        If the file cannot be read, has no row, or one that is not three finite numbers.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"The table of seeds cannot be read: {error}.",
            where=path,
            remedy="Give a text file with x y z in each row.",
        ) from error
    rows: list[NDArray[np.float64]] = []
    header_may_come = True
    for number, line in enumerate(lines, start=1):
        words = [word for word in re.split(r"[\s,;]+", line.strip()) if word]
        if not words or words[0].startswith("#"):
            continue
        numbers = parse_numbers(",".join(words), 3)
        if numbers is not None:
            rows.append(np.array(numbers))
        elif not (header_may_come and all(_is_name(word) for word in words)):
            raise InputError(
                f"Row {number} is {line.strip()!r}; three finite numbers are needed.",
                where=path,
                remedy="Give x y z in scanner millimetres in each row, and nothing else.",
            )
        header_may_come = False
    if not rows:
        raise InputError(
            "The table of seeds has no row.",
            where=path,
            remedy="Give x y z in scanner millimetres in each row.",
        )
    return np.stack(rows)


def _is_name(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return True
    return False


def _load_each(entries: tuple[str, ...]) -> tuple[Region, ...]:
    return tuple(_load_region(entry) for entry in entries)


def _load_region(entry: str) -> Region:
    sphere = parse_numbers(entry, 4)
    if sphere is not None:
        x, y, z, radius_mm = sphere
        return Sphere((x, y, z), radius_mm)
    image = load_mask(entry)
    return RegionImage(torch.from_numpy(image.data > 0), _affine(image))


def _numbers(text: str, n: int) -> tuple[float, ...]:
    """Read numbers that the settings have checked already."""
    return parse_numbers(text, n) or ()


def _affine(image: Volume) -> Float[torch.Tensor, "4 4"]:
    return torch.from_numpy(image.vox2ras)
