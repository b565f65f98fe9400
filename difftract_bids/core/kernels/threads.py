"""Sharing out work to threads, as many as PyTorch uses, in portions of so many things."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import TypeVar

import torch

#: A portion: the number of its first thing, and of the first beyond it.
Span = tuple[int, int]


T = TypeVar("T")


def share(work_on: Callable[[Iterable[Span]], T], shares: list[Iterable[Span]]) -> list[T]:
    """Run one thread for each share of the portions; a single one is this thread.

    Parameters
    ----------
    work_on
        Called with each share.
    shares
        From `first_come` or `in_turn`.

    Returns
    -------
    list
        What each call gave, in the order of the shares, whichever thread began or ended first:
        sums of them are made in one order.
    """
    if len(shares) == 1:
        return [work_on(shares[0])]
    with ThreadPoolExecutor(len(shares)) as pool:
        return [done.result() for done in [pool.submit(work_on, spans) for spans in shares]]


def first_come(n: int, portion: int) -> list[Iterable[Span]]:
    """Let each thread take the next portion when it is ready."""
    starts = count(0, portion)

    def spans() -> Iterator[Span]:
        while (at := next(starts)) < n:
            yield at, min(at + portion, n)

    return [spans() for _ in range(_n_threads(n, portion))]


def in_turn(n: int, portion: int) -> list[Iterable[Span]]:
    """Fix who takes which portion, so that each share sums up the same, in the same order."""
    spans = [(at, min(at + portion, n)) for at in range(0, n, portion)]
    n_threads = _n_threads(n, portion)
    return [spans[thread::n_threads] for thread in range(n_threads)]


def n_portions(n: int, portion: int) -> int:
    """Count the portions."""
    return -(-n // portion)


def _n_threads(n: int, portion: int) -> int:
    return max(1, min(torch.get_num_threads(), n_portions(n, portion)))
