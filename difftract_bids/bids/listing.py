"""What is in a folder, asked for many times while a dataset is planned."""

from __future__ import annotations

import os
import time
from functools import lru_cache
from pathlib import Path

#: A folder changed so lately may change again without its time telling so: clocks tick coarsely.
_SETTLED_NS = 2_000_000_000


def names_in(folder: Path) -> tuple[str, ...]:
    """List the names in a folder, sorted; none if there is no such folder.

    Every diffusion run asks what lies at the top of its dataset, which has a folder for each
    participant: a listing is kept until the folder changes.

    Parameters
    ----------
    folder
        The folder.
    """
    try:
        changed_ns = folder.stat().st_mtime_ns
        if time.time_ns() - changed_ns < _SETTLED_NS:
            return _listed(folder)
        return _kept(folder, changed_ns)
    except (FileNotFoundError, NotADirectoryError):
        return ()


@lru_cache(maxsize=64)
def _kept(folder: Path, _changed_ns: int) -> tuple[str, ...]:
    return _listed(folder)


def _listed(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(os.listdir(folder)))  # noqa: PTH208 - paths of all would take far longer
