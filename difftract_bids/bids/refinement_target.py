"""What the fODFs of a run are adjusted to: found and checked before anything starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float

from difftract_bids.bids.nodes import NodeTable
from difftract_bids.errors import AtlasError, DifftractError, InputError
from difftract_bids.io.matrices import read_matrix

_OPTION = "--refine-fodf"


@dataclass(frozen=True)
class RefinementTarget:
    """What fODFs are adjusted to.

    Attributes
    ----------
    path
        The file, absolute.
    kind
        What it holds.
    atlas
        Name of the atlas of a connectome; ``None`` for a tractogram.
    """

    path: Path
    kind: Literal["connectome", "tractogram"]
    atlas: str | None = None


def find_refinement_target(
    path: Path, kind: Literal["connectome", "tractogram"], atlases: Mapping[str, NodeTable]
) -> RefinementTarget:
    """Check the target of a run, and find the atlas that a connectome is of.

    Parameters
    ----------
    path
        The file, absolute.
    kind
        What it should hold.
    atlases
        Nodes of the run's atlases, by their names.

    Raises
    ------
    InputError
        If the file is missing, unreadable or empty.
    AtlasError
        If its nodes are those of no atlas of the run.
    """
    if not path.is_file() and not (path.is_dir() and path.suffix == ".trx"):
        raise InputError(
            f"There is no such file ({_OPTION}).",
            where=path,
            remedy="Give the path of a connectome or tractogram; {subject} and {session} in it "
            "are replaced by a run's labels.",
        )
    try:
        if kind == "tractogram":
            _check_tractogram(path)
            return RefinementTarget(path, kind)
        _, names = read_target_matrix(path)
        return RefinementTarget(path, kind, _atlas_of(names, atlases, path))
    except DifftractError as error:
        raise type(error)(
            f"{error.what} ({_OPTION})", where=error.where, remedy=error.remedy
        ) from error


def read_target_matrix(path: Path) -> tuple[Float[np.ndarray, "node node"], list[str]]:
    """Read a connectome to aim at: symmetric, not negative, with an edge.

    Raises
    ------
    InputError
        If it is not that.
    """
    matrix, names = read_matrix(path)
    wrong = ""
    if len(set(names)) != len(names):
        wrong = "has two nodes of one name"
    elif not np.isfinite(matrix).all() or (matrix < 0).any():
        wrong = "has edges that are negative or not finite"
    elif not np.allclose(matrix, matrix.T, rtol=1e-6):
        wrong = "is not symmetric"
    elif not np.triu(matrix, k=1).any():
        wrong = "has no edge between two nodes"
    if wrong:
        raise InputError(
            f"The connectome {wrong}.",
            where=path,
            remedy="Give a matrix of streamline counts, or of another measure that grows with "
            "them, as this program writes it.",
        )
    return matrix, names


def in_order_of(
    matrix: Float[np.ndarray, "node node"], names: list[str], wanted: tuple[str, ...]
) -> Float[np.ndarray, "node node"]:
    """Put the nodes of a matrix into another order."""
    places = [names.index(name) for name in wanted]
    return matrix[np.ix_(places, places)]


def _check_tractogram(path: Path) -> None:
    from difftract_bids.io.tractogram_reader import count_streamlines

    if not count_streamlines(path):
        raise InputError(
            "The tractogram has no streamline.",
            where=path,
            remedy="Give one that has, in the space of the diffusion data.",
        )


def _atlas_of(names: list[str], atlases: Mapping[str, NodeTable], path: Path) -> str:
    for atlas, nodes in atlases.items():
        if set(nodes.name) == set(names):
            return atlas
    shared = {atlas: len(set(nodes.name) & set(names)) for atlas, nodes in atlases.items()}
    listed = ", ".join(
        f"{atlas} shares {n} of its {len(atlases[atlas])}" for atlas, n in shared.items()
    )
    raise AtlasError(
        f"The {len(names)} nodes of the connectome are those of none of the atlases ({listed}).",
        where=path,
        remedy="Name the atlas that it was made with (--atlases), with all of its nodes in the "
        "header of the matrix.",
    )
