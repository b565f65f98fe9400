"""Connectome matrices of all atlases in one HDF5 file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Float

from difftract_bids.errors import InputError

#: Group of the node table's columns, beside the matrices.
NODES = "nodes"
_TEXTS = ("name", "hemisphere")


def write_hdf5(
    matrices: Mapping[str, Float[np.ndarray, "n n"]],
    sidecars: Mapping[str, Mapping[str, Any]],
    nodes: Mapping[str, list[Any]],
    path: str | os.PathLike[str],
) -> Path:
    """Write the matrices of one atlas, a dataset each, and its nodes' columns in ``nodes``.

    Parameters
    ----------
    matrices
        By measure; float64, compressed.
    sidecars
        Content of their JSON sidecars: attributes of the datasets.
    nodes
        Columns of the node table, rows in the matrices' order.
    path
        File to write.

    Returns
    -------
    Path
        The absolute path written.
    """
    target = Path(path).absolute()
    # Without times of creation, the same matrices give the same file.
    with h5py.File(target, "w", track_order=True) as store:
        for measure, matrix in matrices.items():
            dataset = store.create_dataset(
                measure, data=np.asarray(matrix, np.float64), compression="gzip", shuffle=True
            )
            for name, value in sidecars.get(measure, {}).items():
                plain = isinstance(value, str | bool | int | float)
                dataset.attrs[name] = value if plain else json.dumps(value)
        group = store.create_group(NODES, track_order=True)
        for name, column in nodes.items():
            if name in _TEXTS:
                group.create_dataset(name, data=list(column), dtype=h5py.string_dtype())
                continue
            numbers = [np.nan if value == "n/a" else value for value in column]
            group.create_dataset(name, data=np.asarray(numbers))
    return target


def merge_hdf5(
    atlases: Mapping[str, str | os.PathLike[str]], path: str | os.PathLike[str]
) -> Path:
    """Put the files of several atlases into one, a group each.

    Parameters
    ----------
    atlases
        What :func:`write_hdf5` wrote, by the names of the atlases.
    path
        File to write.

    Returns
    -------
    Path
        The absolute path written.

    Raises
    ------
    InputError
        If one of them cannot be read.
    """
    target = Path(path).absolute()
    with h5py.File(target, "w", track_order=True) as store:
        for atlas, file in atlases.items():
            group = store.create_group(atlas, track_order=True)
            with _open(file) as source:
                for name in source:
                    source.copy(name, group)
    return target


def read_hdf5(path: str | os.PathLike[str]) -> dict[str, dict[str, Float[np.ndarray, "n n"]]]:
    """Read the matrices of :func:`merge_hdf5`, by atlas and measure.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    with _open(path) as store:
        return {
            atlas: {
                name: item[()] for name, item in group.items() if isinstance(item, h5py.Dataset)
            }
            for atlas, group in store.items()
        }


@contextmanager
def _open(path: str | os.PathLike[str]) -> Iterator[h5py.File]:
    try:
        with h5py.File(path, "r") as store:
            yield store
    except OSError as error:
        raise InputError(
            f"The HDF5 file of matrices cannot be read: {error}.",
            where=path,
            remedy="Build the connectomes again.",
        ) from error
