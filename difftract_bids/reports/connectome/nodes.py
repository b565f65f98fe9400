"""The nodes of a connectome: how many streamlines and neighbours each has, left beside right."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from difftract_bids.checks.sides import side_of
from difftract_bids.reports.connectome.edge_histograms import draw_lengths, draw_weights
from difftract_bids.reports.connectome.glass_brain import draw_glass_brain
from difftract_bids.reports.connectome.matrix import runs_of
from difftract_bids.reports.connectome.node_pairs import Row, regions
from difftract_bids.reports.drawing.projections import (
    add_projections,
    brain_points_mm,
    field_of_view,
    height_in,
)
from difftract_bids.reports.drawing.style import (
    CATEGORIES,
    DARK,
    TEXT_ON_DARK,
    TEXT_ON_LIGHT,
    new_figure,
    save_svg,
)

_SIDE_COLORS = {"left": CATEGORIES[0], "right": CATEGORIES[1], "midline": "#8c8c8c"}
_WIDTH_IN, _HEAD_IN, _FOOT_IN, _CAPTION_IN = 14.0, 0.75, 0.6, 0.3
_ROW_IN, _LEAST_IN, _MOST_IN, _NAMELESS_IN = 0.15, 4.0, 11.5, 7.5
#: Of more rows, names cannot be read.
_MANY_ROWS = int(_MOST_IN / 0.1)


def plot_nodes(
    counts: Float[np.ndarray, "node node"],
    names: Sequence[str],
    mean_length_mm: Float[np.ndarray, "node node"] | None,
    path: str | os.PathLike[str],
    *,
    centroids_mm: Float[np.ndarray, "node 3"] | None = None,
    groups: Sequence[str] | None = None,
    mask: Bool[np.ndarray, "x y z"] | None = None,
    vox2ras: Float[np.ndarray, "4 4"] | None = None,
) -> Path:
    """Draw strength and degree of all nodes, the distribution of edges, and where they are.

    A region has a row, with a dot for the node of either side: where dots are apart, the
    connectome is not symmetric. Rows stand in the order of the matrix: by group, then as in the
    atlas. Streamlines within one node count for no node.

    Parameters
    ----------
    counts
        Streamlines of every edge, symmetric, not negative.
    names
        Node names, in the matrix's order.
    mean_length_mm
        Mean length of the streamlines of every edge, millimetres.
    path
        SVG to write.
    centroids_mm
        Of the nodes, RAS+ millimetres; NaN for one that is nowhere. With them, nodes and the
        strongest edges are drawn in three projections of the brain.
    groups
        Group (network, lobe) of each node; from the names if not given (Schaefer's networks).
    mask, vox2ras
        Brain to outline there, and its voxels to RAS+ millimetres.

    Returns
    -------
    Path
        The absolute path written.

    Raises
    ------
    ValueError
        If an array does not have one row per name.
    """
    n_nodes = len(names)
    for what, array, shape in (
        ("counts", counts, (n_nodes, n_nodes)),
        ("mean lengths", mean_length_mm, (n_nodes, n_nodes)),
        ("centroids", centroids_mm, (n_nodes, 3)),
    ):
        if array is not None and array.shape != shape:
            message = f"{what} of shape {array.shape} do not fit {n_nodes} node names"
            raise ValueError(message)
    edges = np.where(np.eye(n_nodes, dtype=bool), 0, counts).astype(np.float64)
    rows = regions(names, groups)
    rows_in = float(np.clip(_ROW_IN * len(rows), _LEAST_IN, _MOST_IN))
    if len(rows) > _MANY_ROWS:
        rows_in = _NAMELESS_IN
    chart_in = _HEAD_IN + rows_in + _FOOT_IN
    places = _Places.of(centroids_mm, mask, vox2ras)
    figure = new_figure(_WIDTH_IN, chart_in + (places.height_in if places else 0.0))
    if places:
        _draw_brain(figure, places, edges, names, bottom_in=chart_in)
    panels = _panels(figure, rows_in, lengths=mean_length_mm is not None)
    _draw_rows(panels["strength"], rows, edges.sum(axis=1), "streamlines to other nodes")
    _draw_rows(panels["degree"], rows, (edges > 0).sum(axis=1) * 1.0, "nodes connected to")
    _name_rows(panels["strength"], rows)
    panels["strength"].set_title("Strength", **_TITLE)
    panels["degree"].set_title("Degree", **_TITLE)
    panels["degree"].tick_params(labelleft=False)
    _legend(figure, rows, panels["strength"])
    draw_weights(panels["weights"], edges)
    if mean_length_mm is not None:
        draw_lengths(panels["lengths"], edges, mean_length_mm)
    return save_svg(figure, path)


class _Places(NamedTuple):
    """Where the nodes are, and what is seen around them."""

    centroids_mm: Float[np.ndarray, "node 3"]
    brain_mm: Float[np.ndarray, "n 3"]
    low_mm: Float[np.ndarray, " 3"]
    high_mm: Float[np.ndarray, " 3"]

    @classmethod
    def of(
        cls,
        centroids_mm: Float[np.ndarray, "node 3"] | None,
        mask: Bool[np.ndarray, "x y z"] | None,
        vox2ras: Float[np.ndarray, "4 4"] | None,
    ) -> _Places | None:
        if centroids_mm is None or not np.isfinite(centroids_mm).all(axis=1).any():
            return None
        known = centroids_mm[np.isfinite(centroids_mm).all(axis=1)]
        brain_mm = np.zeros((0, 3))
        if mask is not None and vox2ras is not None:
            brain_mm = brain_points_mm(mask, vox2ras)
        return cls(centroids_mm, brain_mm, *field_of_view(brain_mm, known))

    @property
    def height_in(self) -> float:
        return height_in(self.high_mm - self.low_mm, _WIDTH_IN) + _CAPTION_IN


def _draw_brain(
    figure: Figure,
    places: _Places,
    edges: Float[np.ndarray, "node node"],
    names: Sequence[str],
    *,
    bottom_in: float,
) -> None:
    share = bottom_in / figure.get_figheight()
    figure.add_artist(
        Rectangle((0, share), 1, 1 - share, transform=figure.transFigure, color=DARK, zorder=-2)
    )
    panels = add_projections(
        figure, places.low_mm, places.high_mm, bottom_in=bottom_in + _CAPTION_IN
    )
    colors = [_SIDE_COLORS[side_of(name)] for name in names]
    strength = edges.sum(axis=1)
    drawn = draw_glass_brain(panels, edges, strength, places.centroids_mm, colors, places.brain_mm)
    strongest = "strongest edge" if drawn == 1 else f"{drawn:,} strongest edges"
    figure.text(
        0.995,
        share + 0.06 / figure.get_figheight(),
        f"discs: strength of the nodes; lines: the {strongest}",
        color=TEXT_ON_DARK,
        fontsize=9,
        ha="right",
        va="bottom",
    )


def _panels(figure: Figure, rows_in: float, *, lengths: bool) -> dict[str, Axes]:
    total = figure.get_figheight()
    bottom, height = _FOOT_IN / total, rows_in / total
    panels = {
        "strength": figure.add_axes((0.15, bottom, 0.26, height)),
        "degree": figure.add_axes((0.435, bottom, 0.17, height)),
    }
    # Histograms of one height, whatever the number of rows.
    each_in = min((rows_in - 0.9) / 2, 2.8) if lengths else min(rows_in, 2.8)
    top_in = _FOOT_IN + rows_in
    for number, name in enumerate(["weights", "lengths"] if lengths else ["weights"]):
        low_in = top_in - (number + 1) * each_in - number * 0.9
        panels[name] = figure.add_axes((0.68, low_in / total, 0.30, each_in / total))
    return panels


_TITLE: dict[str, Any] = {"fontsize": 10, "color": TEXT_ON_LIGHT, "loc": "left", "pad": 12}


def _draw_rows(
    axes: Axes, rows: Sequence[Row], values: Float[np.ndarray, " node"], label: str
) -> None:
    """Draw a dot per node, and a line between the two of a row."""
    many = len(rows) > _MANY_ROWS
    for side, color in _SIDE_COLORS.items():
        here = [(values[row.nodes[side]], y) for y, row in enumerate(rows) if side in row.nodes]
        if here:
            x, y = np.array(here).T
            axes.plot(
                x,
                y,
                linestyle="",
                marker="o" if side != "midline" else "D",
                markersize=1.8 if many else 5.0,
                color=color,
                rasterized=many,
            )
            # A node without streamlines must not hide among the weak ones.
            axes.plot(
                x[x == 0],
                y[x == 0],
                "x",
                color="black",
                markersize=7,
                markeredgewidth=1.6,
                zorder=4,
            )
    pairs = [
        (y, *(values[row.nodes[side]] for side in ("left", "right")))
        for y, row in enumerate(rows)
        if {"left", "right"} <= row.nodes.keys()
    ]
    if pairs:
        y, left, right = np.array(pairs).T
        axes.hlines(
            y, left, right, colors="#bbbbbb", linewidth=0.6 if many else 1.6, zorder=1,
            rasterized=many,
        )  # fmt: skip
    axes.set_ylim(len(rows) - 0.4, -0.6)
    high = max(float(values.max(initial=1.0)), 1.0)
    axes.set_xlim(-0.02 * high, 1.05 * high)
    axes.set_xlabel(label, fontsize=9, color=TEXT_ON_LIGHT)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10], integer=True))
    axes.set_yticks([])
    axes.tick_params(labelsize=8, colors=TEXT_ON_LIGHT)
    axes.grid(visible=True, axis="x", color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    if not many:
        for y in range(4, len(rows), 5):
            axes.axhline(y + 0.5, color="#eeeeee", linewidth=0.7, zorder=0)


def _name_rows(axes: Axes, rows: Sequence[Row]) -> None:
    """Name the rows, or their groups where rows are too many; a bar shows the groups."""
    known = list(dict.fromkeys(row.group for row in rows if row.group))
    left = -0.02 if known else 0.0
    for group, (first, last) in runs_of([row.group for row in rows]):
        if not group:
            continue
        color = CATEGORIES[known.index(group) % len(CATEGORIES)]
        axes.add_patch(
            Rectangle(
                (left, first - 0.5), 0.012, last - first,
                transform=axes.get_yaxis_transform(), color=color, clip_on=False, linewidth=0,
            )
        )  # fmt: skip
        if len(rows) > _MANY_ROWS:
            axes.text(
                left - 0.02, (first + last - 1) / 2, group,
                transform=axes.get_yaxis_transform(), color=color, fontsize=9,
                ha="right", va="center",
            )  # fmt: skip
    if len(rows) <= _MANY_ROWS:
        height_pt = axes.get_window_extent().height * 72 / axes.figure.dpi
        font = float(np.clip(0.8 * height_pt / max(len(rows), 1), 4.5, 9.0))
        longest = max([len(row.name) for row in rows], default=1)
        font = min(font, 215.0 / longest)
        axes.set_yticks(range(len(rows)), [row.name for row in rows], fontsize=font)
        axes.tick_params(axis="y", length=0, pad=9 if known else 3)


def _legend(figure: Figure, rows: Sequence[Row], axes: Axes) -> None:
    present = [side for side in _SIDE_COLORS if any(side in row.nodes for row in rows)]
    if present == ["midline"]:  # names do not tell sides: there is one colour
        return
    handles = [
        Line2D(
            [], [], color=_SIDE_COLORS[side], marker="o" if side != "midline" else "D",
            linestyle="", markersize=5, label=side,
        )
        for side in present
    ]  # fmt: skip
    place = axes.get_position()
    figure.legend(
        handles=handles,
        loc="lower right",
        bbox_to_anchor=(place.x1, place.y1 + 0.02 / figure.get_figheight()),
        ncols=len(handles),
        frameon=False,
        fontsize=9,
        handletextpad=0.1,
        columnspacing=1.0,
    )
