"""Measures of the edges beside their number: small matrices in a row."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.ticker import LogLocator, NullLocator

from difftract_bids.checks.sides import side_of
from difftract_bids.reports.connectome.matrix import group_of, interpolation, node_order, side_runs
from difftract_bids.reports.drawing.style import (
    TEXT_ON_LIGHT,
    new_figure,
    save_svg,
    sequential_map,
)

#: Title, what the colour means, and whether its scale is logarithmic.
_SHOWN = {
    "sift2": ("SIFT2", "sum of weights, log scale", True),
    "meanfa": ("Mean FA", "fractional anisotropy", False),
    "meanlength": ("Mean length", "mm", False),
}
_PANEL_IN, _BAR_IN = 4.6, 0.85


def plot_edges(
    matrices: Mapping[str, Float[np.ndarray, "node node"]],
    names: Sequence[str],
    path: str | os.PathLike[str],
) -> Path:
    """Draw matrices side by side, nodes in the order of the large matrix of counts.

    Parameters
    ----------
    matrices
        By measure: ``sift2``, ``meanfa``, ``meanlength``; 0 where there is no streamline.
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
        If a matrix does not have one row and one column per name.
    """
    n_nodes = len(names)
    for measure, matrix in matrices.items():
        if matrix.shape != (n_nodes, n_nodes):
            message = f"{measure} of shape {matrix.shape} does not fit {n_nodes} node names"
            raise ValueError(message)
    sides = [side_of(name) for name in names]
    order = node_order(sides, [group_of(name) for name in names])
    figure = new_figure(_PANEL_IN * len(matrices), _PANEL_IN * 0.95)
    panels = figure.subplots(1, len(matrices), squeeze=False)[0]
    right = 1 - _BAR_IN / figure.get_figwidth()  # the last colour bar and its label
    figure.subplots_adjust(left=0.02, right=right, bottom=0.04, top=0.86, wspace=0.3)
    for axes, (measure, matrix) in zip(panels, matrices.items(), strict=True):
        _draw(axes, measure, matrix[np.ix_(order, order)])
        mark_sides(axes, [sides[i] for i in order])
    return save_svg(figure, path)


def _draw(axes: Axes, measure: str, matrix: Float[np.ndarray, "node node"]) -> None:
    title, meaning, logarithmic = _SHOWN[measure]
    there = np.isfinite(matrix) & (matrix > 0)
    values = matrix[there]
    low, high = (1.0, 10.0) if not values.size else (values.min(), values.max())
    if values.size and not logarithmic:  # a few stray edges must not take the whole scale
        low, high = np.percentile(values, [2, 98])
    if low == high:
        low, high = low / 2, high * 2
    image = axes.imshow(
        np.ma.masked_where(~there, matrix),
        cmap=sequential_map(),
        norm=LogNorm(low, high) if logarithmic else Normalize(low, high),
        interpolation=interpolation(len(matrix)),
        aspect="equal",
    )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=11, color=TEXT_ON_LIGHT, loc="left", pad=16)
    bar = axes.figure.colorbar(image, cax=axes.inset_axes((1.03, 0.0, 0.03, 0.6)))
    bar.set_label(meaning, fontsize=8)
    if logarithmic:
        bar.ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        bar.ax.yaxis.set_major_formatter("{x:g}")
        bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.ax.tick_params(labelsize=7)


def mark_sides(axes: Axes, sides: Sequence[str]) -> None:
    """Draw a line between hemispheres, and name them, where names of nodes tell them."""
    for side, (first, last) in side_runs(sides):
        if first:
            axes.axhline(first - 0.5, color="white", linewidth=1.2)
            axes.axvline(first - 0.5, color="white", linewidth=1.2)
        middle = ((first + last) / 2) / len(sides)
        axes.text(
            middle, 1.01, side, fontsize=8, ha="center", va="bottom", transform=axes.transAxes
        )
