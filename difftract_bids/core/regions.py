"""Regions where streamlines may, must and must not go, and a form of them made for kernels.

The rules are those of ``tckgen`` (MRtrix3 3.0.3): several regions to stay in are one, as are
several to keep out of, but each region to visit must be visited. Images count by their nearest
voxel and are false outside; a sphere includes its surface.

References
----------
Tournier et al. 2012, doi:10.1002/ima.22005.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from difftract_bids.core.interpolation import Grid
from difftract_bids.errors import InputError

#: Bits of a position: in the mask, in a region to keep out of, in each region to visit.
IN_MASK = 1
EXCLUDED = 2
_FIRST_INCLUDE = 2  # the place of the bit
#: An int64 has no more bits to spare.
MAX_INCLUDES = 60


@dataclass(frozen=True)
class Sphere:
    """A ball, its surface included.

    Attributes
    ----------
    centre_mm
        Centre, RAS+ millimetres.
    radius_mm
        Radius, 0 or more.
    """

    centre_mm: tuple[float, float, float]
    radius_mm: float


@dataclass(frozen=True, eq=False)
class RegionImage:
    """The voxels of an image where it is true.

    Attributes
    ----------
    inside
        Which voxels.
    vox2ras
        Affine of the image, voxels to RAS+ millimetres; any grid will do.
    """

    inside: Bool[Tensor, "x y z"]
    vox2ras: Float[Tensor, "4 4"]


Region = Sphere | RegionImage


@dataclass(frozen=True)
class Regions:
    """Where streamlines may, must and must not go.

    Attributes
    ----------
    mask
        Union of where streamlines may be; leaving it ends one, and the vertex outside is not
        kept. Everywhere, if there are none.
    include
        Every one must be visited by a vertex of either half, the seed included.
    exclude
        A vertex in any of them, the seed included, rejects the streamline.
    stop_at_includes
        End a half once all of ``include`` are visited, as ``tckgen -stop``.
    """

    mask: tuple[Region, ...] = ()
    include: tuple[Region, ...] = ()
    exclude: tuple[Region, ...] = ()
    stop_at_includes: bool = False


class RegionBits(NamedTuple):
    """Regions as plain tensors on one device: each position has an int64 of bits.

    Bit 0: in the mask. Bit 1: in a region to keep out of. Bit 2 + k: in region k to visit.

    Attributes
    ----------
    ras2vox
        Affine of each grid that images are on, RAS+ millimetres to voxels, without the last row.
    shape
        Voxels of each grid along its axes.
    first
        Where the voxels of each grid start in ``bits``.
    bits
        Bits of all voxels, C order; images of one shape and affine share a grid.
    spheres
        x, y, z and radius, RAS+ millimetres.
    sphere_bits
        Bits inside each sphere.
    needed
        Bits that every kept streamline has visited.
    always
        Bits of every position: that of the mask where there is no mask.
    """

    ras2vox: Float64[Tensor, "grid 3 4"]
    shape: Int64[Tensor, "grid 3"]
    first: Int64[Tensor, " grid"]
    bits: Int64[Tensor, " voxel"]
    spheres: Float64[Tensor, "sphere 4"]
    sphere_bits: Int64[Tensor, " sphere"]
    needed: int
    always: int


def compile_regions(regions: Regions, device: torch.device | str) -> RegionBits:
    """Turn regions into one table of bits per grid, and a list of spheres.

    Parameters
    ----------
    regions
        What is to be looked up.
    device
        Where it is to be looked up.

    Raises
    ------
    InputError
        If there are more than 60 regions to visit, an image is not a three-dimensional mask or
        its affine is not invertible, or a sphere is not finite or of negative radius.
    """
    if len(regions.include) > MAX_INCLUDES:
        raise InputError(
            f"There are {len(regions.include)} regions to visit, {MAX_INCLUDES} are possible.",
            where="include",
            remedy="Track with fewer, and select streamlines by the others afterwards.",
        )
    named = [("mask", IN_MASK, region) for region in regions.mask]
    named += [("exclude", EXCLUDED, region) for region in regions.exclude]
    named += [
        ("include", 1 << (_FIRST_INCLUDE + k), region) for k, region in enumerate(regions.include)
    ]
    grids: list[tuple[Grid, Tensor]] = []
    spheres: list[tuple[float, ...]] = []
    sphere_bits: list[int] = []
    for name, bit, region in named:
        if isinstance(region, Sphere):
            _check_sphere(region, name)
            spheres.append((*region.centre_mm, region.radius_mm))
            sphere_bits.append(bit)
        else:
            _check_image(region, name)
            _add_image(grids, region, bit)
    sizes = [0, *(bits.numel() for _, bits in grids)]
    return RegionBits(
        ras2vox=_stacked([grid.ras2vox[:3] for grid, _ in grids], (0, 3, 4)).to(device),
        shape=torch.tensor([grid.shape for grid, _ in grids]).reshape(-1, 3).long().to(device),
        first=torch.tensor(sizes[:-1], dtype=torch.int64).cumsum(0).to(device),
        bits=torch.cat([torch.zeros(0).long(), *(bits for _, bits in grids)]).to(device),
        spheres=torch.tensor(spheres, dtype=torch.float64).reshape(-1, 4).to(device),
        sphere_bits=torch.tensor(sphere_bits, dtype=torch.int64).to(device),
        needed=sum(1 << (_FIRST_INCLUDE + k) for k in range(len(regions.include))),
        always=0 if regions.mask else IN_MASK,
    )


def bits_at(compiled: RegionBits, position_mm: Float[Tensor, "3 n"]) -> Int64[Tensor, " n"]:
    """Look up the bits of positions.

    Parameters
    ----------
    compiled
        From `compile_regions`, on the device of the positions.
    position_mm
        RAS+ millimetres; computed with in float64.
    """
    position = position_mm.detach().to(torch.float64)
    found = torch.full_like(position[0], compiled.always, dtype=torch.int64)
    grids = zip(compiled.ras2vox, compiled.shape.tolist(), compiled.first.tolist(), strict=True)
    for ras2vox, (x, y, z), first in grids:
        grid = Grid((x, y, z), ras2vox)
        voxel = grid.to_voxel(position).nan_to_num(nan=-1.0)  # nowhere is outside
        here = compiled.bits[first + grid.nearest(voxel)]
        found |= torch.where(grid.contains(voxel), here, 0)
    for sphere, bit in zip(compiled.spheres, compiled.sphere_bits, strict=True):
        dx, dy, dz = position - sphere[:3, None]
        inside = dx * dx + dy * dy + dz * dz <= sphere[3] * sphere[3]
        found |= torch.where(inside, bit, 0)
    return found


def _add_image(grids: list[tuple[Grid, Tensor]], image: RegionImage, bit: int) -> None:
    """Set a bit in the voxels of a grid, an old one where the image lies on it."""
    shape, affine = tuple(image.inside.shape), image.vox2ras
    new = Grid.from_affine(shape, affine, torch.device("cpu"))
    marked = torch.where(image.inside.cpu().reshape(-1), bit, 0)
    for grid, bits in grids:
        if grid.shape == new.shape and torch.equal(grid.ras2vox, new.ras2vox):
            bits.bitwise_or_(marked)
            return
    grids.append((new, marked))


def _check_image(image: RegionImage, name: str) -> None:
    if image.inside.ndim != 3 or image.inside.dtype != torch.bool or not image.inside.numel():
        raise InputError(
            f"A region is {image.inside.dtype} {tuple(image.inside.shape)}.",
            where=name,
            remedy="Give a three-dimensional boolean image: compare it with zero.",
        )


def _check_sphere(sphere: Sphere, name: str) -> None:
    numbers = (*sphere.centre_mm, sphere.radius_mm)
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)) or sphere.radius_mm < 0:
        raise InputError(
            f"There is no sphere of radius {sphere.radius_mm} mm about {sphere.centre_mm}.",
            where=name,
            remedy="Give three finite coordinates and a radius of 0 or more.",
        )


def _stacked(matrices: list[Tensor], empty: tuple[int, ...]) -> Tensor:
    return torch.stack(matrices) if matrices else torch.zeros(empty, dtype=torch.float64)
