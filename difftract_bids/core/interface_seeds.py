"""Seeds on the interface of grey and white matter, as ``tckgen -seed_gmwmi``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from difftract_bids.core.anatomy import Anatomy
from difftract_bids.core.philox import random_words, uniform
from difftract_bids.core.seed_source import Source, Vector
from difftract_bids.core.seeding import WeightedSeeds
from difftract_bids.core.tissue_interface import onto_interface, slope_at
from difftract_bids.errors import SeedError

#: Blocks of random words of the attempts: three each, apart from all other draws.
_FIRST_BLOCK = 3 << 29
#: Attempts after which there is no interface to be found.
_ATTEMPTS = 1000
#: By how many voxels a seed is moved within the interface, in all: it evens out the density.
_SPREAD_VOXELS = 4.0


@dataclass(frozen=True, eq=False)
class InterfaceSeeds(Source):
    """Seeds where grey and white matter are equal; about as many on each mm² of the interface.

    A random place in a voxel, by how much both fractions change there, is moved onto the
    interface, along it at random, and onto it once more; what does not end there is drawn again.
    Grey matter is no less than white in a seed, and no more than 0.01 above it: within the grey
    matter's border a streamline starts one way, towards white matter.

    Attributes
    ----------
    anatomy
        The tissue; seeds are on its device.
    random_seed, direction
        See `difftract_bids.core.seeding.RandomSeeds`. Of a direction only the line counts.

    Raises
    ------
    SeedError
        If nowhere in the image grey and white matter meet, or something else is out of range;
        and on drawing, if a seed is not found in 1000 attempts.

    References
    ----------
    Smith et al. 2012, doi:10.1016/j.neuroimage.2012.06.005.
    """

    anatomy: Anatomy
    random_seed: int
    direction: Vector | None = None

    def __post_init__(self) -> None:
        """Check everything before the first seed is drawn."""
        self.check_choices()
        _ = self._candidates

    @property
    def _device(self) -> torch.device:
        return self.anatomy.tissues.device

    @cached_property
    def _candidates(self) -> WeightedSeeds:
        weights = interface_weights(self.anatomy)
        if not bool((weights > 0).any()):
            raise _no_interface()
        return WeightedSeeds(weights, self.anatomy.vox2ras, self.random_seed)

    def _positions_mm(self, number: Int[Tensor, " n"]) -> Float[Tensor, "n 3"]:
        result = torch.zeros(len(number), 3, dtype=torch.float64, device=number.device)
        waiting = torch.arange(len(number), device=number.device)
        for attempt in range(_ATTEMPTS):
            place, found = self._attempt(number[waiting], _FIRST_BLOCK + 3 * attempt)
            result[waiting[found]] = place[:, found].T
            waiting = waiting[~found]
            if not len(waiting):
                return result
        raise _no_interface()

    def _attempt(self, number: Int[Tensor, " n"], block: int) -> tuple[Tensor, Tensor]:
        """Try once for each: where that led to, and whether it is a seed."""
        table = self.anatomy.table
        start = self._candidates.places_mm(number, block, block + 1)
        place, found = onto_interface(table, start.T)
        slope, inside = slope_at(table, place)
        size = torch.linalg.vector_norm(slope, dim=0)
        normal = slope / torch.where(size > 0, size, 1)
        one = torch.stack([normal[1], -normal[0], torch.zeros_like(normal[0])])
        along_z = (one * one).sum(0) < 1e-12
        x_axis = torch.tensor([[1.0], [0.0], [0.0]], dtype=one.dtype, device=one.device)
        one = torch.where(along_z, x_axis, one)
        one = one / torch.linalg.vector_norm(one, dim=0)
        other = torch.linalg.cross(normal, one, dim=0)
        words = random_words(number, block + 2, self.random_seed)
        reach = _SPREAD_VOXELS * table.grid.voxel_size_mm
        a, b = (reach * (uniform(word) - 0.5) for word in words[:2])
        place, again = onto_interface(table, place + a * one + b * other)
        return place, found & inside & (size > 0) & again


def interface_weights(anatomy: Anatomy) -> Float[Tensor, "x y z"]:
    """Measure in each voxel how much grey matter changes into white, per millimetre.

    The lesser of the two fractions' slopes along each axis, between a voxel's neighbours: the
    integral over the image is the interface's area.
    """
    values = anatomy.tissues.detach().float().nan_to_num(0, 0, 0).clamp(0, 1)
    grey, white = values[..., 0] + values[..., 1], values[..., 2]
    sizes_mm = torch.linalg.vector_norm(anatomy.vox2ras.double()[:3, :3], dim=0).tolist()
    square = torch.zeros_like(white)
    for axis, size_mm in enumerate(sizes_mm):
        if white.shape[axis] > 1:
            slopes = (torch.gradient(x, spacing=size_mm, dim=axis)[0] for x in (grey, white))
            by_grey, by_white = slopes
            square += torch.minimum(by_grey.abs(), by_white.abs()) ** 2
    return torch.sqrt(square)


def _no_interface() -> SeedError:
    return SeedError(
        "Grey and white matter meet nowhere in the tissue image.",
        where="seed_gmwmi",
        remedy="Look at the image: volume 1 is cortical grey matter, 2 deep grey matter and 3 "
        "white matter; or place seeds elsewhere.",
    )
