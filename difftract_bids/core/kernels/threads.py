"""Sharing out work to threads, as many as PyTorch uses, in portions of so many things."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import torch

#: A portion: the number of its first thing, and of the first beyond it.
Span = tuple[int, int]


def share(work_on: Callable[[Iterable[Span]], None], shares: list[Iterable[Span]]) -> None:
    """Run one thread for each share of the portions; a single one is this thread."""
    if len(shares) == 1:
        work_on(shares[0])
        return
    with ThreadPoolExecutor(len(shares)) as pool:
        for done in [pool.submit(work_on, spans) for spans in shares]:
            done.result()


def first_come(n: int, portion: int) -> list[Iterable[Span]]:
    """Let each thread take the next portion when it is ready."""
    starts = count(0, portion)

    def spans() -> Iterator[Span]:
        while (at := next(starts)) < n:
            yield at, min(at + portion, n)

    return [spans() for _ in range(_n_threads(n, portion))]


def in_turn(n: int, portion: int) -> list[Iterable[Span]]:
    """Fix who takes which portion, so that sums are always made in the same order."""
    spans = [(at, min(at + portion, n)) for at in range(0, n, portion)]
    n_threads = _n_threads(n, portion)
    return [spans[thread::n_threads] for thread in range(n_threads)]


def n_portions(n: int, portion: int) -> int:
    """Count the portions."""
    return -(-n // portion)


def _n_threads(n: int, portion: int) -> int:
    return max(1, min(torch.get_num_threads(), n_portions(n, portion)))
