"""Boxes of voxels: that of a mask, and the tiles that a large one is worked through in."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

from jaxtyping import Bool
from torch import Tensor

Box = tuple[slice, slice, slice]


class Tile(NamedTuple):
    """A part of a box: what is read, and which of it is kept.

    ``read`` and ``kept`` are voxels of the whole, ``within`` those of ``kept`` in ``read``.
    """

    read: Box
    kept: Box
    within: Box


def box_of(mask: Bool[Tensor, "x y z"], margin: int = 0) -> Box | None:
    """Give the box about a mask, ``margin`` voxels wider each way; none if it is empty."""
    if not mask.any():
        return None
    sides = []
    for axis, size in enumerate(mask.shape):
        others = tuple(other for other in range(3) if other != axis)
        found = mask.any(dim=others).nonzero()
        first, last = int(found[0]), int(found[-1])
        sides.append(slice(max(first - margin, 0), min(last + 1 + margin, size)))
    return sides[0], sides[1], sides[2]


def tiles_of(shape: tuple[int, int, int], longest: int, overlap: int) -> Iterator[Tile]:
    """Divide a grid into tiles of about the same size.

    Parameters
    ----------
    shape
        Number of voxels along each axis.
    longest
        How long the kept part of a tile may be, voxels.
    overlap
        By how many voxels what is read reaches beyond what is kept, as far as the grid does.
    """
    for kept in itertools.product(*(_pieces(size, longest) for size in shape)):
        read = tuple(
            slice(max(part.start - overlap, 0), min(part.stop + overlap, size))
            for part, size in zip(kept, shape, strict=True)
        )
        within = tuple(
            slice(part.start - around.start, part.stop - around.start)
            for part, around in zip(kept, read, strict=True)
        )
        yield Tile(read, kept, within)  # type: ignore[arg-type]


def _pieces(size: int, longest: int) -> list[slice]:
    count = math.ceil(size / longest)
    ends = [round(size * i / count) for i in range(count + 1)]
    return [slice(a, b) for a, b in itertools.pairwise(ends)]
