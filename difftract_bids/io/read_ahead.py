"""Reading the next part of a file while the last one is worked on."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def read_ahead(parts: Generator[T, None, None]) -> Iterator[T]:
    """Let a thread make the next part; two are in memory at most.

    What it raises is raised here, in place of the part.
    """
    with ThreadPoolExecutor(max_workers=1) as reader:
        try:
            waiting = reader.submit(next, parts, None)
            while (part := waiting.result()) is not None:
                waiting = reader.submit(next, parts, None)
                yield part
        finally:
            waiting.exception()  # nobody may be at work on what is closed
            parts.close()
