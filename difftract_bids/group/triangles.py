"""Symmetric matrices as the list of their upper triangle, and reading it from text fast."""

from __future__ import annotations

import csv
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float, Int

from difftract_bids.errors import InputError


@lru_cache(maxsize=8)
def triangle(n_nodes: int) -> tuple[Int[np.ndarray, " edge"], Int[np.ndarray, " edge"]]:
    """Rows and columns of the upper triangle with the diagonal, row after row."""
    first, second = np.triu_indices(n_nodes)
    return first, second


def packed(
    first: Int[np.ndarray, " edge"], second: Int[np.ndarray, " edge"]
) -> Int[np.ndarray, " edge"]:
    """Places of edges in the triangle column after column: new nodes only add to its end."""
    high, low = np.maximum(first, second), np.minimum(first, second)
    return high * (high + 1) // 2 + low


def n_packed(n_nodes: int) -> int:
    """Edges of so many nodes, each with itself included."""
    return n_nodes * (n_nodes + 1) // 2


def unpacked(values: Float[np.ndarray, " edge"], n_nodes: int) -> Float[np.ndarray, "node node"]:
    """Lay edges out as a symmetric matrix."""
    first, second = triangle(n_nodes)
    square = np.empty((n_nodes, n_nodes))
    square[first, second] = square[second, first] = values[packed(first, second)]
    return square


def read_triangle(path: Path) -> tuple[tuple[str, ...], Float[np.ndarray, " edge"]]:
    """Read the upper triangle, with the diagonal and row after row, of a matrix of ours.

    Only it is read: a matrix may hold zeros below the diagonal. Parsing is Arrow's, several times
    faster than a general reader of tables: a group has thousands of matrices.

    Returns
    -------
    names, values
        Names of the nodes, and the values in float64.

    Raises
    ------
    InputError
        If it cannot be read, or is not square with one name a column.
    """
    try:
        header, _, body = path.read_bytes().partition(b"\n")
        names = _names(header)
        cells = _cells(body)
        n_nodes = len(names)
        n_rows = body.rstrip(b"\n").count(b"\n") + 1
        whole = n_rows == n_nodes and len(cells) == n_nodes**2
        upper = cells.take(_upper(n_nodes)) if whole else cells.slice(0, 0)
        if b"n/a" in body:
            upper = pc.replace_substring(upper, "n/a", "nan")
        values = upper.cast(pa.float64())
    except (OSError, ValueError, csv.Error, StopIteration) as error:  # Arrow's are ValueErrors
        raise _unusable(path, f"cannot be read: {error}") from error
    if not whole:
        raise _unusable(path, f"has {len(cells)} cells in {n_rows} rows, and {n_nodes} node names")
    return names, values.to_numpy(zero_copy_only=False)


def _unusable(path: Path, why: str) -> InputError:
    return InputError(
        f"The matrix {why}.",
        where=path,
        remedy="Run its participant again, or leave it out (--participant-label).",
    )


@lru_cache(maxsize=8)
def _upper(n_nodes: int) -> pa.Array:
    first, second = triangle(n_nodes)
    return pa.array(first * n_nodes + second)


@lru_cache(maxsize=8)
def _names(header: bytes) -> tuple[str, ...]:
    return tuple(next(csv.reader([header.decode("utf-8").rstrip("\r")], delimiter="\t")))


def _cells(body: bytes) -> pa.Array:
    text = pa.array([body.strip()], type=pa.binary()).cast(pa.string())
    return pc.ascii_split_whitespace(text).flatten()
