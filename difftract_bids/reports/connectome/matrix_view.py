"""The connectome as a matrix that tells each edge's values, in a browser."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from difftract_bids.checks.sides import side_of
from difftract_bids.reports.connectome.matrix import (
    group_of,
    node_order,
    runs_of,
    short_name,
    side_runs,
)
from difftract_bids.reports.drawing.style import CATEGORIES, sequential_map
from difftract_bids.reports.drawing.typed_arrays import coded
from difftract_bids.reports.templates import render, save_text

#: The darkest of the map cannot be told from a dark page.
_SCALE = np.linspace(0.1, 1.0, 19)


class EdgeMeasure(NamedTuple):
    """What is known of every edge.

    Attributes
    ----------
    title
        In words, as a heading.
    matrix
        Not negative; 0 or NaN where there is no value. One triangle is enough.
    unit
        Written behind a value.
    logarithmic
        Whether colours are.
    """

    title: str
    matrix: Float[np.ndarray, "node node"]
    unit: str = ""
    logarithmic: bool = False


def write_matrix_view(
    counts: Float[np.ndarray, "node node"],
    names: Sequence[str],
    path: str | os.PathLike[str],
    *,
    measures: Mapping[str, EdgeMeasure] | None = None,
    atlas: str = "",
    unit: str = "streamlines",
    groups: Sequence[str] | None = None,
) -> Path:
    """Write a connectome whose edges tell names and values, and whose nodes their partners.

    Nodes stand in the order of :func:`difftract_bids.reports.connectome.matrix.plot_connectome`.
    The page that shows it needs :func:`difftract_bids.reports.page.scripts.page_scripts`. Counts
    are kept as they are, if whole; all else is rounded to one part in 5,000 or better.

    Parameters
    ----------
    counts
        Streamlines (or the sum of their weights) between nodes; one triangle is enough.
    names
        Node names, in the matrices' order.
    path
        HTML fragment to write.
    measures
        By a short key, what else is known of the edges.
    atlas
        Name of the atlas.
    unit
        What is counted: a noun in the plural.
    groups
        Group of each node; from the names if not given.

    Returns
    -------
    Path
        The absolute path written.

    Raises
    ------
    ValueError
        If a matrix does not have one row and one column per name.
    """
    n_nodes = len(names)
    shown = {"count": EdgeMeasure(unit.capitalize(), counts, logarithmic=True), **(measures or {})}
    for key, measure in shown.items():
        if measure.matrix.shape != (n_nodes, n_nodes):
            shape = measure.matrix.shape
            message = f"{key} of shape {shape} does not fit {n_nodes} node names"
            raise ValueError(message)
    sides = [side_of(name) for name in names]
    groups = list(groups) if groups is not None else [group_of(name) for name in names]
    order = node_order(sides, groups)
    halves = {key: _upper_half(measure.matrix, order) for key, measure in shown.items()}
    places = np.flatnonzero(np.any([half > 0 for half in halves.values()], axis=0))
    payload = {
        "names": [short_name(names[i]) for i in order],
        "sides": _side_stretches([sides[i] for i in order]),
        "groups": _group_stretches([sides[i] for i in order], [groups[i] for i in order]),
        "unit": unit,
        "gaps": coded(_smallest(np.diff(places, prepend=0))),
        "measures": [
            {
                "key": key,
                "title": measure.title,
                "unit": measure.unit,
                "logarithmic": measure.logarithmic,
                **_coded_values(halves[key].ravel()[places]),
            }
            for key, measure in shown.items()
        ],
        "colors": ["#" + _hex(color) for color in sequential_map()(_SCALE)],
    }
    return save_text(
        render(
            "matrix.html.jinja",
            payload=payload,
            n_edges=int(np.count_nonzero(np.triu(halves["count"], 1))),
            atlas=atlas,
        ),
        path,
    )


def _upper_half(
    matrix: Float[np.ndarray, "node node"], order: Sequence[int]
) -> Float[np.ndarray, "node node"]:
    """Order the nodes, and keep what is positive, once."""
    known = np.nan_to_num(np.asarray(matrix, dtype=np.float64), posinf=0.0)
    return np.triu(np.maximum(known, known.T)[np.ix_(order, order)]).clip(min=0.0)


def _smallest(numbers: NDArray[Any]) -> NDArray[Any]:
    """Choose the smallest of the types that whole numbers fit into."""
    largest = int(numbers.max(initial=0))
    kinds = (np.uint8, np.uint16, np.uint32)
    return numbers.astype(next(kind for kind in kinds if largest <= np.iinfo(kind).max))


def _coded_values(values: Float[np.ndarray, " edge"]) -> dict[str, Any]:
    """Code whole numbers as they are, others as 16 bits of their logarithm; 0 is none."""
    if np.array_equal(values, np.round(values)) and values.max(initial=0) < 2**32:
        return {"values": coded(_smallest(values)), "least": None, "ratio": None}
    positive = np.log(values[values > 0])
    least, span = float(positive.min()), float(np.ptp(positive))
    codes = np.zeros(len(values), dtype=np.uint16)
    codes[values > 0] = 1 + np.round((positive - least) / (span or 1.0) * 65_534)
    return {"values": coded(codes), "least": float(np.exp(least)), "ratio": span / 65_534}


def _side_stretches(sides: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {"name": name, "first": first, "last": last - 1}
        for name, (first, last) in side_runs(sides)
    ]


def _group_stretches(sides: Sequence[str], groups: Sequence[str]) -> list[dict[str, Any]]:
    known = list(dict.fromkeys(group for group in groups if group))
    return [
        {
            "name": group,
            "first": first,
            "last": last - 1,
            "color": CATEGORIES[known.index(group) % len(CATEGORIES)],
        }
        for (_, group), (first, last) in runs_of(list(zip(sides, groups, strict=True)))
        if group
    ]


def _hex(color: Sequence[float]) -> str:
    return "".join(f"{round(255 * part):02x}" for part in color[:3])
