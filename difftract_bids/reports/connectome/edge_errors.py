"""How certain each edge of the connectome is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator, PercentFormatter

from difftract_bids.checks.sides import side_of
from difftract_bids.reports.connectome.edges import mark_sides
from difftract_bids.reports.connectome.matrix import (
    group_of,
    interpolation,
    node_order,
    short_name,
)
from difftract_bids.reports.drawing.style import (
    CATEGORIES,
    TEXT_ON_LIGHT,
    new_figure,
    save_svg,
    sequential_map,
)

#: Ends of the scale of coefficients of variation, one for all data so that they compare.
_VARIATION = (0.01, 1.0)


def plot_edge_errors(
    count: Float[np.ndarray, "node node"],
    sd: Float[np.ndarray, "node node"],
    names: Sequence[str],
    path: str | os.PathLike[str],
) -> Path:
    """Draw how uncertain each edge is: its standard deviation by its count, and relative to it.

    Left, all edges (a node's connection to itself included) on logarithmic axes, with the line
    of a Poisson count, whose standard deviation is its square root, and the least certain of the
    strong edges named. Right, the coefficient of variation, nodes in the order of the large
    matrix of counts.

    Parameters
    ----------
    count
        Streamlines of every edge, symmetric, not negative.
    sd
        Standard deviation of each, in streamlines.
    names
        Node names, in the matrices' order.
    path
        SVG to write.

    Returns
    -------
    Path
        The absolute path written.

    Raises
    ------
    ValueError
        If a matrix does not have one row and one column per name, or has an entry that is
        negative or not finite.
    """
    n_nodes = len(names)
    for what, values in (("count", count), ("standard deviation", sd)):
        if values.shape != (n_nodes, n_nodes):
            message = f"{what} of shape {values.shape} does not fit {n_nodes} node names"
            raise ValueError(message)
        if n_wrong := int((~(np.isfinite(values) & (values >= 0))).sum()):
            message = f"{n_wrong} entries of the {what} are negative or not finite"
            raise ValueError(message)
    sides = [side_of(name) for name in names]
    order = node_order(sides, [group_of(name) for name in names])
    figure = new_figure(14.0, 6.8)
    scatter = figure.add_axes((0.055, 0.25, 0.4, 0.66))
    matrix = figure.add_axes((0.52, 0.03, 0.41, 0.88), anchor="NW")
    _draw_errors(scatter, count, sd)
    _draw_variation(matrix, count, sd, order, sides)
    _name_uncertain(scatter, matrix, count, sd, names, order)
    return save_svg(figure, path)


def uncertain_strong_edges(
    count: Float[np.ndarray, "node node"], sd: Float[np.ndarray, "node node"], n_edges: int = 4
) -> list[tuple[int, int]]:
    """Find the edges with the largest coefficient of variation among the strongest.

    Strongest are the fewest edges that hold half of all streamlines.

    Returns
    -------
    list of (int, int)
        Nodes of each edge, the lower first; the least certain edge first.
    """
    rows, columns = np.triu_indices(len(count))
    edges = count[rows, columns]
    by_count = np.argsort(-edges, kind="stable")
    n_strong = 1 + int(np.searchsorted(np.cumsum(edges[by_count]), edges.sum() / 2))
    strong = by_count[:n_strong]
    strong = strong[(edges[strong] > 0) & (sd[rows, columns][strong] > 0)]
    variation = sd[rows, columns][strong] / edges[strong]
    chosen = strong[np.argsort(-variation, kind="stable")[:n_edges]]
    return [(int(rows[i]), int(columns[i])) for i in chosen]


def _draw_errors(
    axes: Axes,
    count: Float[np.ndarray, "node node"],
    sd: Float[np.ndarray, "node node"],
) -> None:
    upper = np.triu_indices(len(count))
    shown = (count[upper] > 0) & (sd[upper] > 0)
    x, y = count[upper][shown], sd[upper][shown]
    low, high = (x.min() / 1.6, x.max() * 1.6) if x.size else (0.5, 500.0)
    floor, roof = (y.min() / 2, y.max() * 2) if y.size else (0.5, 50.0)
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(floor, roof))
    _draw_power(axes, 1.0, 0.5, "\u221acount", color=TEXT_ON_LIGHT, linewidth=1.2)
    for share in (1.0, 0.1):
        _draw_power(
            axes, share, 1.0, f"{share:.0%}", color="#777777", linewidth=0.9, linestyle=":"
        )
    axes.scatter(x, y, s=16, color=CATEGORIES[0], alpha=0.5, linewidths=0, rasterized=True)
    axes.set_xlabel("number of streamlines", fontsize=9)
    axes.set_ylabel("standard deviation, streamlines", fontsize=9)
    axes.tick_params(which="both", labelsize=8, colors=TEXT_ON_LIGHT)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    axes.spines[["top", "right"]].set_visible(False)
    title = f"{x.size:,} edges"
    if n_certain := int((count[upper] > 0).sum()) - x.size:
        title += f", {n_certain:,} more with a standard deviation of 0"
    axes.set_title(title, fontsize=11, color=TEXT_ON_LIGHT, loc="left", pad=16)


def _draw_power(
    axes: Axes,
    factor: float,
    power: float,
    text: str,
    **style: Any,  # noqa: ANN401 - colour and width of any type
) -> None:
    """Draw ``factor * x ** power``, and its meaning where it leaves the frame."""
    (low, high), (floor, roof) = axes.get_xlim(), axes.get_ylim()
    ends = np.array([low, min(high, (roof / factor) ** (1 / power))])
    heights = factor * ends**power
    if ends[1] <= low or heights[1] <= floor:
        return
    axes.plot(ends, heights, zorder=1, **style)
    by_right = ends[1] == high
    axes.annotate(
        text,
        (ends[1], heights[1]),
        (3, 0) if by_right else (0, 3),
        textcoords="offset points",
        fontsize=8,
        color=style["color"],
        ha="left" if by_right else "center",
        va="center" if by_right else "bottom",
        annotation_clip=False,
    )


def _draw_variation(
    axes: Axes,
    count: Float[np.ndarray, "node node"],
    sd: Float[np.ndarray, "node node"],
    order: Sequence[int],
    sides: Sequence[str],
) -> None:
    there = count > 0
    # An edge without any error is at the lower end, not blank: that is for no edge.
    variation = np.maximum(np.divide(sd, count, out=np.zeros(sd.shape), where=there), 1e-9)
    image = axes.imshow(
        np.ma.masked_where(~there, variation)[np.ix_(order, order)],
        cmap=sequential_map(),
        norm=LogNorm(*_VARIATION, clip=True),
        interpolation=interpolation(len(count)),
        aspect="equal",
    )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_title(
        "Coefficient of variation", fontsize=11, color=TEXT_ON_LIGHT, loc="left", pad=16
    )
    bar = axes.figure.colorbar(image, cax=axes.inset_axes((1.03, 0.0, 0.03, 0.6)), extend="both")
    bar.set_label("standard deviation / streamlines (log scale; grey: no edge)", fontsize=8)
    bar.ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.ax.tick_params(labelsize=7)
    mark_sides(axes, [sides[i] for i in order])


def _name_uncertain(
    scatter: Axes,
    matrix: Axes,
    count: Float[np.ndarray, "node node"],
    sd: Float[np.ndarray, "node node"],
    names: Sequence[str],
    order: Sequence[int],
) -> None:
    """Mark the least certain strong edges in both panels, and list them below the first."""
    lines = ["Least certain of the edges that hold half of all streamlines:"]
    for number, (i, j) in enumerate(uncertain_strong_edges(count, sd), start=1):
        row, column = sorted(order.index(node) for node in (i, j))
        for axes, place, size in (
            (scatter, (count[i, j], sd[i, j]), 6),
            (matrix, (column, row), 5),
        ):
            axes.plot(*place, "o", ms=size, mfc="none", mec=CATEGORIES[1], mew=1.2)
            axes.annotate(
                str(number),
                place,
                (3.5, 3.5),
                textcoords="offset points",
                fontsize=9,
                fontweight="bold",
                color=CATEGORIES[1],
                path_effects=[withStroke(linewidth=2, foreground="white")],
            )
        ends = short_name(names[i]), "itself" if i == j else short_name(names[j])
        figures = f"{count[i, j]:.4g} \u00b1 {sd[i, j]:.2g} ({sd[i, j] / count[i, j]:.0%})"
        lines.append(f"{number}  {ends[0]} \u2013 {ends[1]}: {figures}")
    scatter.figure.text(
        scatter.get_position().x0,
        0.16,
        "\n".join(lines) if len(lines) > 1 else "",
        fontsize=8.5,
        color=TEXT_ON_LIGHT,
        va="top",
        linespacing=1.4,
    )
