"""Where the nodes of a connectome are."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from difftract_bids.errors import InputError

_AXES = ("x_mm", "y_mm", "z_mm")


def read_centroids(
    path: str | os.PathLike[str], names: Sequence[str]
) -> Float[np.ndarray, "node 3"]:
    """Read the centroids of nodes from their table.

    Parameters
    ----------
    path
        TSV with the columns ``name``, ``x_mm``, ``y_mm`` and ``z_mm``; ``n/a`` for a node that
        has no voxel.
    names
        Of the nodes wanted, in any order.

    Returns
    -------
    Float[np.ndarray, "node 3"]
        RAS+ millimetres; NaN for nodes that are nowhere, or not in the table.

    Raises
    ------
    InputError
        If the file cannot be read, or is no such table.
    """
    found: dict[str, list[float]] = {}
    try:
        with Path(path).open(newline="", encoding="utf-8") as stream:
            for row in csv.DictReader(stream, delimiter="\t"):
                place = [row[axis] for axis in _AXES]
                found[row["name"]] = [np.nan if x == "n/a" else float(x) for x in place]
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise InputError(
            f"The nodes cannot be read: {error!r}.",
            where=path,
            remedy=f"Give a TSV with the columns name, {', '.join(_AXES)}.",
        ) from error
    return np.array([found.get(name, [np.nan] * 3) for name in names]).reshape(-1, 3)
