"""Reading all that a group needs of a participant, while the participant before is worked on."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float

from difftract_bids.errors import InputError
from difftract_bids.group.files import Run
from difftract_bids.group.quality import (
    Quality,
    measure_connectome,
    measure_run,
    read_sidecar,
)
from difftract_bids.group.triangles import read_triangle

T = TypeVar("T")
R = TypeVar("R")
#: More threads than this wait for each other, or for the disk.
_MOST_THREADS = 4


@dataclass(frozen=True)
class LoadedConnectome:
    """Matrices of one run and atlas.

    Attributes
    ----------
    names
        Nodes.
    triangles
        Upper triangle with the diagonal, row after row, by measure.
    sidecars
        Their JSON files; empty where there is none.
    """

    names: tuple[str, ...]
    triangles: dict[str, Float[np.ndarray, " edge"]]
    sidecars: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class LoadedRun:
    """All that a group needs of a run."""

    run: Run
    connectomes: dict[str, LoadedConnectome]
    quality: Quality


def load_run(run: Run) -> LoadedRun:
    """Read the matrices of a run, and measure it.

    Raises
    ------
    InputError
        If a matrix cannot be read, or those of one atlas have different nodes.
    """
    quality = measure_run(run)
    connectomes = {}
    for atlas in run.atlases:
        loaded = _load_connectome(run, atlas)
        connectomes[atlas] = loaded
        quality.measures |= measure_connectome(
            atlas,
            len(loaded.names),
            loaded.triangles,
            loaded.sidecars.get("count", {}),
            quality.measures.get("streamlines"),
        )
    return LoadedRun(run, connectomes, quality)


def _load_connectome(run: Run, atlas: str) -> LoadedConnectome:
    names: tuple[str, ...] | None = None
    triangles, sidecars = {}, {}
    for (of, measure), path in run.matrices.items():
        if of != atlas:
            continue
        own, triangles[measure] = read_triangle(path)
        if names is not None and own != names:
            raise InputError(
                "The matrices of one run and atlas have different nodes, or another order.",
                where=path,
                remedy="Run this participant again.",
            )
        names = own
        sidecars[measure] = read_sidecar(path.with_name(path.name.replace(".dense.tsv", ".json")))
    return LoadedConnectome(names or (), triangles, sidecars)


def in_order(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Apply a function in some threads, and give its results in the order of the items.

    Few results wait at any time, however many items there are.
    """
    n_threads = min(_MOST_THREADS, len(os.sched_getaffinity(0)))
    rest = iter(items)
    with ThreadPoolExecutor(n_threads) as pool:
        waiting: deque[Future[R]] = deque(
            pool.submit(function, item) for item in islice(rest, 2 * n_threads)
        )
        try:
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(pool.submit(function, item) for item in islice(rest, 1))
                yield result
        finally:
            for future in waiting:
                future.cancel()
