"""Where an image of the brain would fit best: how far from where it is, and which way up."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from difftract_bids.checks.likeness import Likeness, Pose, shrunken
from difftract_bids.io.images import Volume

_COARSE = {"sigma_mm": 4.0, "spacing_mm": 6.0}
_FINE = {"sigma_mm": 1.5, "spacing_mm": 4.0}
_START_SHIFTS_MM = (-20.0, -10.0, 10.0, 20.0)
_START_TURNS_DEG = (-15.0, 15.0)
#: How many of these starts are followed, besides the place where the image is.
_FOLLOWED = 2
#: Somewhere else is better only if it leaves less unexplained by this factor: with one image to
#: compare with, there are places that are as good by chance.
_CLEARLY = 1.07
Flip = tuple[int, int, int]
_UPRIGHT: Flip = (1, 1, 1)
#: Fewest mirrors first: in a symmetric head, several of them are as good.
_FLIPS: tuple[Flip, ...] = tuple(
    sorted(
        ((x, y, z) for x, y, z in itertools.product((1, -1), repeat=3) if (x, y, z) != _UPRIGHT),
        key=lambda flip: flip.count(-1),
    )
)
_MIRRORED: Flip = (-1, 1, 1)


@dataclass(frozen=True)
class Placement:
    """What was found about where an image is.

    Attributes
    ----------
    explained_here
        Share of its variance inside the brain that the other images explain, 0 to 1.
    explained
        The same where it fits best.
    distance_mm
        How far that is, on average over the brain, millimetres.
    mirrored
        The same as ``explained`` for its mirror image, left for right; ``None`` if not tried.
    flip
        The axes that are reversed (-1) in the version that fits clearly better; ones for none.
    flipped
        What is explained of that version.
    """

    explained_here: float
    explained: float
    distance_mm: float
    mirrored: float | None = None
    flip: Flip = _UPRIGHT
    flipped: float = 0.0


def place(
    fixed: Sequence[Float[np.ndarray, "x y z"]],
    mask: Volume,
    moving: Volume,
    *,
    with_flips: bool = True,
) -> Placement:
    """Find where, and optionally which way round, an image fits others best.

    Parameters
    ----------
    fixed
        Images on the grid of the mask.
    mask
        Brain mask; only what is inside counts.
    moving
        The image in question, in the same space, on any grid, with or without skull.
    with_flips
        Try the image mirrored along its axes, too.

    Raises
    ------
    ValueError
        If the mask is empty.
    """
    image = shrunken(moving)
    coarse = Likeness.of(fixed, mask, image, **_COARSE)
    fine = Likeness.of(fixed, mask, image, **_FINE)
    here = np.zeros(6)
    best, explained = _best(coarse, fine)
    found = Placement(fine.explained(here), explained, fine.displacement_mm(best))
    if not with_flips:
        return found
    climbed = {flip: coarse.climb(np.zeros(6), flip, tolerance=0.5) for flip in _FLIPS}
    mirror = fine.climb(climbed[_MIRRORED][0], _MIRRORED)[1]
    found = replace(found, mirrored=mirror)
    flip = _best_flip(climbed)
    flipped = mirror if flip == _MIRRORED else fine.climb(climbed[flip][0], flip)[1]
    return (
        replace(found, flip=flip, flipped=flipped) if clearly_better(flipped, explained) else found
    )


def clearly_better(explained: float, than: float, factor: float = _CLEARLY) -> bool:
    """Say whether so much less is left unexplained that chance does not do it."""
    return (1.0 - explained) * factor < 1.0 - than


def _best(coarse: Likeness, fine: Likeness) -> tuple[Pose, float]:
    """Follow the image from where it is, and from further starts; the first wins a draw."""
    near, near_explained = fine.climb(np.zeros(6))
    starts = sorted(_starts(), key=coarse.explained, reverse=True)[:_FOLLOWED]
    followed = [coarse.climb(start, tolerance=0.5) for start in starts]
    far, far_explained = fine.climb(max(followed, key=lambda found: found[1])[0])
    if clearly_better(far_explained, near_explained):
        return far, far_explained
    return near, near_explained


def _best_flip(climbed: Mapping[Flip, tuple[Pose, float]]) -> Flip:
    """Find the flip that fits best at the coarse scale; a later one must be clearly better."""
    best, *others = climbed
    for flip in others:
        if clearly_better(climbed[flip][1], climbed[best][1]):
            best = flip
    return best


def _starts() -> list[Pose]:
    axes = np.eye(6)
    shifts = [size * axes[axis] for axis in range(3) for size in _START_SHIFTS_MM]
    return shifts + [size * axes[axis] for axis in range(3, 6) for size in _START_TURNS_DEG]
