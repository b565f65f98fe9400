"""Random numbers without a state: each is a function of a key and a counter.

They come from Philox4x32-10 in whole numbers, and only operations that IEEE 754 rounds exactly
follow (no sines), so that they are the same in whatever order, in whatever chunks and on whatever
device they are drawn.

References
----------
Salmon et al. 2011, doi:10.1145/2063384.2063405 (Philox4x32-10).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


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


def random_words(number: Int[Tensor, " n"], block: int, random_seed: int) -> list[Tensor]:
    """Draw four words of 32 bits for each number.

    Parameters
    ----------
    number
        What is numbered: seeds.
    block
        Which of the 2³² blocks of four words that each number has.
    random_seed
        From 0 to 2⁶⁴ - 1.
    """
    counter = [
        number & _WORD,
        number >> 32,
        torch.full_like(number, block),
        torch.zeros_like(number),
    ]
    return philox(counter, (random_seed & _WORD, (random_seed >> 32) & _WORD))


def uniform(word: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Map a word into (0, 1), float64."""
    return (word.to(torch.float64) + 0.5) / 2.0**32


def uniform_53_bits(high: Int[Tensor, " n"], low: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Map two words into [0, 1), float64, by as many bits as a float64 holds."""
    return ((high << 21) | (low >> 11)).to(torch.float64) / 2.0**53


def in_unit_ball(
    number: Int[Tensor, " n"], dimension: int, first_block: int, random_seed: int
) -> tuple[Float[Tensor, "dimension n"], Float[Tensor, " n"]]:
    """Draw points uniformly in the open unit ball: one off the ball is drawn again.

    Parameters
    ----------
    number
        What is numbered.
    dimension
        Coordinates of a point: up to 4.
    first_block
        Block of the first attempt; later attempts use the blocks that follow.
    random_seed
        From 0 to 2⁶⁴ - 1.

    Returns
    -------
    points, squares
        Coordinates, and their squared distance from the centre.
    """
    result = _attempt(number, dimension, first_block, random_seed)
    waiting = torch.nonzero(result[-1] >= 1).squeeze(1)
    block = first_block + 1
    while len(waiting):
        again = _attempt(number.index_select(0, waiting), dimension, block, random_seed)
        result.index_copy_(1, waiting, again)
        waiting = waiting.index_select(0, torch.nonzero(again[-1] >= 1).squeeze(1))
        block += 1
    return result[:-1], result[-1]


def _attempt(
    number: Int[Tensor, " n"], dimension: int, block: int, random_seed: int
) -> Float[Tensor, "dimension+1 n"]:
    """Draw points in the cube around the unit ball; the last row is their squared distance."""
    words = random_words(number, block, random_seed)
    point = [2 * uniform(word) - 1 for word in words[:dimension]]
    square = point[0] * point[0]
    for coordinate in point[1:]:
        square = square + coordinate * coordinate
    return torch.stack([*point, square])


def _multiply(word: Int[Tensor, " n"], factor: int) -> tuple[Tensor, Tensor]:
    """High and low word of a product; its 64 bits survive int64's wrapping around."""
    product = word * factor
    return (product >> 32) & _WORD, product & _WORD
