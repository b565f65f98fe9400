"""Reading all that a group needs of a participant, while the participant before is worked on."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float

from difftract_bids.bids.records import record_path
from difftract_bids.errors import InputError
from difftract_bids.group.files import Run
from difftract_bids.group.quality import (
    Quality,
    measure_connectome,
    measure_run,
    read_sidecar,
)
from difftract_bids.group.settings_met import settings_of_streamlines
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
    """All that a group needs of a run.

    Attributes
    ----------
    run
        Which.
    connectomes
        By atlas.
    quality
        Measures of it.
    unusable
        Why the matrices of an atlas are not used, by atlas; with the file.
    settings
        What its streamlines were made with, and by which version, as far as that is known.
    """

    run: Run
    connectomes: dict[str, LoadedConnectome]
    quality: Quality
    unusable: dict[str, InputError] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


def load_run(run: Run) -> LoadedRun:
    """Read the matrices of a run, and measure it.

    An atlas is left out, and why is told, where a matrix cannot be read, a node's name stands
    twice, or its matrices have different nodes: one file must not stop a group of thousands.
    """
    quality = measure_run(run)
    connectomes, unusable = {}, {}
    for atlas in run.atlases:
        try:
            loaded = _load_connectome(run, atlas)
        except InputError as error:
            unusable[atlas] = error
            continue
        connectomes[atlas] = loaded
        quality.measures |= measure_connectome(
            atlas,
            len(loaded.names),
            loaded.triangles,
            loaded.sidecars.get("count", {}),
            quality.measures.get("streamlines"),
        )
    return LoadedRun(run, connectomes, quality, unusable, _settings(run, quality))


def _settings(run: Run, quality: Quality) -> dict[str, Any]:
    said: dict[str, Any] = {}
    for path in run.tractogram_sidecars()[:1] if quality.tractogram else ():
        said |= settings_of_streamlines(path.name, quality.tractogram)
    derivatives_dir = run.folder.parents[2 if run.session else 1]
    record = read_sidecar(derivatives_dir / record_path(run.stem))
    return said | ({"Version": record["Version"]} if "Version" in record else {})


def _load_connectome(run: Run, atlas: str) -> LoadedConnectome:
    names: tuple[str, ...] | None = None
    triangles, sidecars = {}, {}
    for (of, measure), path in run.matrices.items():
        if of != atlas:
            continue
        own, triangles[measure] = read_triangle(path)
        if len(set(own)) < len(own):
            twice = sorted(name for name, n in Counter(own).items() if n > 1)
            raise InputError(
                f"{len(twice)} node names stand twice in the matrix, first {twice[0]}: nodes are "
                "told apart by their names.",
                where=path,
                remedy="Give the nodes of the atlas distinct names, and run it again.",
            )
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
