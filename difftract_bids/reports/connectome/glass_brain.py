"""A connectome in the brain: nodes and the strongest edges in three projections."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from numpy.typing import NDArray

from difftract_bids.reports.drawing.mosaic import PLANES, annotate
from difftract_bids.reports.drawing.projections import outline
from difftract_bids.reports.drawing.style import TEXT_ON_DARK

#: Of more edges, none can be told from another.
MAX_EDGES = 150
_WIDEST, _THINNEST = 3.2, 0.4
#: Area of the largest disc in points², where there are so few nodes that it covers no other.
_LARGEST_DISC, _ROOMY = 170.0, 60


def strongest_edges(
    counts: Float[np.ndarray, "node node"], n_edges: int = MAX_EDGES
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Find the edges between different nodes that have most streamlines.

    Returns
    -------
    rows, columns
        The nodes of each, the strongest last; edges without a streamline are none.
    """
    rows, columns = np.triu_indices(len(counts), k=1)
    weights = counts[rows, columns]
    order = np.argsort(weights, kind="stable")[-n_edges:]
    order = order[weights[order] > 0]
    return rows[order], columns[order]


def draw_glass_brain(
    panels: Mapping[str, Axes],
    counts: Float[np.ndarray, "node node"],
    strength: Float[np.ndarray, " node"],
    centroids_mm: Float[np.ndarray, "node 3"],
    colors: list[str],
    brain_mm: Float[np.ndarray, "n 3"],
) -> int:
    """Draw nodes as discs whose area is their strength, and the strongest edges as lines.

    Parameters
    ----------
    panels
        Axes by plane, on black, see
        :func:`difftract_bids.reports.drawing.projections.add_projections`.
    counts
        Streamlines, symmetric.
    strength
        Of each node.
    centroids_mm
        RAS+ millimetres; NaN for a node that is nowhere, which is left out with its edges.
    colors
        Of each node.
    brain_mm
        Points of the brain that is outlined; may be empty.

    Returns
    -------
    int
        Edges drawn.
    """
    somewhere = np.isfinite(centroids_mm).all(axis=1)
    rows, columns = strongest_edges(counts * np.outer(somewhere, somewhere))
    weights = counts[rows, columns]
    share = np.sqrt(weights / weights.max(initial=1e-12))
    largest = _LARGEST_DISC * min(1.0, _ROOMY / max(len(strength), 1))
    areas = largest * strength / max(float(strength.max(initial=0.0)), 1e-12)
    drawn = np.flatnonzero(somewhere)
    drawn = drawn[np.argsort(-areas[drawn], kind="stable")]  # small discs above large ones
    for plane, axes in panels.items():
        _, *plane_axes = PLANES[plane]
        places = centroids_mm[:, plane_axes]
        outline(axes, plane, brain_mm)
        lines = LineCollection(
            list(np.stack([places[rows], places[columns]], axis=1)),
            linewidths=list(_THINNEST + (_WIDEST - _THINNEST) * share**2),
            colors=[(0.93, 0.93, 0.93, float(0.2 + 0.65 * part)) for part in share],
            capstyle="round",
            zorder=2,
        )
        axes.add_collection(lines, autolim=False)
        axes.scatter(
            places[drawn, 0],
            places[drawn, 1],
            s=np.maximum(areas[drawn], 3.0),
            c=[colors[node] for node in drawn],
            edgecolors=TEXT_ON_DARK,
            linewidths=0.5 if len(drawn) <= _ROOMY * 5 else 0.0,
            zorder=3,
            rasterized=len(drawn) > _ROOMY * 10,
        )
        annotate(axes, plane, "")
    return len(rows)
