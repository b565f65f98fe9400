"""Connectome matrices as dense tables with node names."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from difftract_bids.errors import InputError


def write_matrix(
    matrix: Float[np.ndarray, "n n"], names: list[str], path: str | os.PathLike[str]
) -> Path:
    """Write a square matrix as TSV: a header of node names, one row a node in the same order.

    Whole numbers are written without a decimal point, others with 9 significant digits.

    Returns
    -------
    Path
        The absolute path written.
    """
    target = Path(path).absolute()
    with target.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerow(names)
        for row in matrix:
            cells = ["0"] * len(row)  # most are, in a large matrix
            for place in np.flatnonzero(row):
                cells[place] = f"{row[place]:.9g}"
            writer.writerow(cells)
    return target


def read_matrix(path: str | os.PathLike[str]) -> tuple[Float[np.ndarray, "n n"], list[str]]:
    """Read what :func:`write_matrix` wrote.

    Returns
    -------
    matrix, names
        The square matrix and its node names.

    Raises
    ------
    InputError
        If it cannot be read, or is not square with one name a column.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8") as stream:
            names, *rows = list(csv.reader(stream, delimiter="\t"))
        matrix = np.array(rows, dtype=np.float64).reshape(len(rows), -1)
    except (OSError, ValueError) as error:
        raise InputError(
            f"The matrix cannot be read: {error}.",
            where=path,
            remedy="Give a dense TSV with a header of node names.",
        ) from error
    if matrix.shape != (len(names), len(names)):
        raise InputError(
            f"The matrix has {matrix.shape[0]} rows and {len(names)} node names.",
            where=path,
            remedy="Rows and columns must be the same nodes, in the same order.",
        )
    return matrix, names


def write_table(columns: dict[str, list[Any]], path: str | os.PathLike[str]) -> Path:
    """Write columns of equal length as TSV with a header.

    Returns
    -------
    Path
        The absolute path written.
    """
    target = Path(path).absolute()
    with target.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return target
