"""Seeds at random, each a function of its number alone: no state, no order, no chunks.

Random numbers come from the counter-based generator Philox, so seed ``i`` is the same whichever
others are drawn with it; and only operations that IEEE 754 rounds exactly are used (no sines), so
it is the same on every device too.

References
----------
Salmon et al. 2011, doi:10.1145/2063384.2063405 (Philox4x32-10);
Marsaglia 1972, doi:10.1214/aoms/1177692644 (points on a sphere).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from difftract_bids.core.interpolation import apply_affine
from difftract_bids.errors import SeedError

_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
# The third word of the counter says what a block of random words is for.
_POSITION_BLOCK = 0
_FIRST_DIRECTION_BLOCK = 1


def random_seeds(
    mask: Bool[Tensor, "x y z"],
    vox2ras: Float[Tensor, "4 4"],
    n: int,
    *,
    random_seed: int,
    first: int = 0,
    dtype: torch.dtype = torch.float64,
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    """Draw seeds uniformly in random voxels of a mask, and directions uniformly on the sphere.

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
    if mask.ndim != 3 or mask.dtype != torch.bool or not bool(mask.any()):
        raise SeedError(
            f"The seed mask, {mask.dtype} {tuple(mask.shape)}, has no voxel to put a seed in.",
            where="mask",
            remedy="Give a three-dimensional boolean mask that is not empty.",
        )
    number = torch.arange(first, first + n, dtype=torch.int64, device=mask.device)
    words = _random_words(number, _POSITION_BLOCK, random_seed)
    voxels = torch.nonzero(mask)
    # A word times the count, over 2³²: uneven by no more than the count over 2³².
    chosen = voxels[(words[0] * len(voxels)) >> 32].to(torch.float64)
    within = torch.stack([_uniform(word) for word in words[1:]], dim=1) - 0.5
    affine = vox2ras.to(device=mask.device, dtype=torch.float64)
    seeds_mm = apply_affine(affine, (chosen + within).T).T
    return seeds_mm.to(dtype), _random_directions(number, random_seed).to(dtype)


def _random_directions(number: Int[Tensor, " n"], random_seed: int) -> Float[Tensor, "n 3"]:
    """Map points of the unit disc to the sphere; a point off the disc is drawn again."""
    directions = torch.zeros(len(number), 3, dtype=torch.float64, device=number.device)
    waiting = torch.arange(len(number), device=number.device)
    block = _FIRST_DIRECTION_BLOCK
    while len(waiting):
        words = _random_words(number[waiting], block, random_seed)
        a, b = (2 * _uniform(word) - 1 for word in words[:2])
        square = a * a + b * b
        inside = square < 1
        height = 2 * torch.sqrt(1 - square[inside])
        hits = [a[inside] * height, b[inside] * height, 1 - 2 * square[inside]]
        directions[waiting[inside]] = torch.stack(hits, dim=1)
        waiting = waiting[~inside]
        block += 1
    return directions


def _random_words(number: Int[Tensor, " n"], block: int, random_seed: int) -> list[Tensor]:
    counter = [
        number & _WORD,
        number >> 32,
        torch.full_like(number, block),
        torch.zeros_like(number),
    ]
    return philox(counter, (random_seed & _WORD, (random_seed >> 32) & _WORD))


def philox(counter: list[Int[Tensor, " n"]], key: tuple[int, int]) -> list[Int[Tensor, " n"]]:
    """Turn counters into random words: Philox4x32 with ten rounds.

    Parameters
    ----------
    counter
        Four words of 32 bits, each in an int64 tensor.
    key
        Two words of 32 bits.

    Returns
    -------
    list of Tensor
        Four words of 32 bits, in int64.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        high0, low0 = _multiply(c0, _MULTIPLIERS[0])
        high1, low1 = _multiply(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _KEY_STEPS[0]) & _WORD, (k1 + _KEY_STEPS[1]) & _WORD
    return [c0, c1, c2, c3]


def _multiply(word: Int[Tensor, " n"], factor: int) -> tuple[Tensor, Tensor]:
    """High and low word of a product; its 64 bits survive int64's wrapping around."""
    product = word * factor
    return (product >> 32) & _WORD, product & _WORD


def _uniform(word: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Map a word into (0, 1)."""
    return (word.to(torch.float64) + 0.5) / 2.0**32
