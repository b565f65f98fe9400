"""The connectome of a group: matrices side by side, and how many edges a threshold keeps."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator, PercentFormatter

from difftract_bids.checks.sides import side_of
from difftract_bids.reports.connectome.edges import mark_sides
from difftract_bids.reports.connectome.matrix import group_of, interpolation, node_order
from difftract_bids.reports.drawing.style import (
    CATEGORIES,
    TEXT_ON_LIGHT,
    new_figure,
    save_svg,
    sequential_map,
)

_PANEL_IN, _MOST_IN_A_ROW = 4.6, 3
#: Ends of the scale of coefficients of variation, one for all groups so that they compare.
_VARIATION = (0.1, 3.0)
#: Shares of participants between which de Reus and van den Heuvel 2013 recommend a threshold.
_RECOMMENDED = (0.3, 0.9)
_BAND = "#e9eef3"


@dataclass(frozen=True)
class MatrixPanel:
    """One matrix.

    Attributes
    ----------
    title, meaning
        What stands above it, and beside the bar of colours.
    matrix
        Symmetric; blank where it is 0 or not a number.
    scale
        ``amount`` is logarithmic, ``share`` from 0 to 1, ``variation`` logarithmic between fixed
        ends, ``property`` linear.
    limits
        Ends of the scale of an amount or a property; from the matrix itself if not given.
    """

    title: str
    meaning: str
    matrix: Float[np.ndarray, "node node"]
    scale: Literal["amount", "share", "variation", "property"]
    limits: tuple[float, float] | None = None


def plot_group_matrices(
    panels: Sequence[MatrixPanel], names: Sequence[str], path: str | os.PathLike[str]
) -> Path:
    """Draw matrices in rows, nodes in the order of the large matrix of counts.

    Parameters
    ----------
    panels
        The matrices.
    names
        Node names, in their order.
    path
        SVG to write.

    Returns
    -------
    Path
        The absolute path written.

    Raises
    ------
    ValueError
        If there is none, or one has not one row and one column per name.
    """
    n_nodes = len(names)
    if not panels:
        raise ValueError("there is no matrix to draw")
    for panel in panels:
        if panel.matrix.shape != (n_nodes, n_nodes):
            message = f"{panel.title} of shape {panel.matrix.shape} does not fit {n_nodes} names"
            raise ValueError(message)
    sides = [side_of(name) for name in names]
    order = node_order(sides, [group_of(name) for name in names])
    n_columns = min(len(panels), _MOST_IN_A_ROW)
    n_rows = -(-len(panels) // n_columns)
    figure = new_figure(_PANEL_IN * n_columns, _PANEL_IN * 0.95 * n_rows)
    grid = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    figure.subplots_adjust(
        left=0.02, right=0.92, bottom=0.04 / n_rows, top=1 - 0.14 / n_rows, wspace=0.3, hspace=0.22
    )
    for axes, panel in zip(grid, panels, strict=False):
        _draw(axes, panel, order)
        mark_sides(axes, [sides[i] for i in order])
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    return save_svg(figure, path)


def plot_consistency(
    consistency: Float[np.ndarray, "node node"],
    mean: Float[np.ndarray, "node node"],
    path: str | os.PathLike[str],
    *,
    threshold: float | None = None,
    n_chosen: int | None = None,
    meaning: str = "mean number of streamlines",
) -> Path:
    """Draw how many edges a threshold of consistency keeps, and which: left and right.

    Parameters
    ----------
    consistency
        Share of participants with each edge, symmetric; a node with itself is left out.
    mean
        Mean of each edge, on whose logarithm the right picture is.
    path
        SVG to write.
    threshold
        The one that was chosen, to be marked.
    n_chosen
        Edges that it kept; shares in files are rounded. Counted if not given.
    meaning
        What the mean is.

    Returns
    -------
    Path
        The absolute path written.
    """
    pairs = np.triu_indices(len(consistency), k=1)
    share = np.nan_to_num(consistency[pairs])
    figure = new_figure(12.0, 4.0)
    kept, which = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.07, right=0.97, bottom=0.15, top=0.9, wspace=0.25)
    if threshold is not None and n_chosen is None:
        n_chosen = int((share >= threshold).sum())
    _draw_kept(kept, share, threshold, n_chosen or 0)
    _draw_which(which, share, mean[pairs], meaning)
    for axes in (kept, which):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.set_xlim(0, 1.02)
    return save_svg(figure, path)


def _draw(axes: Axes, panel: MatrixPanel, order: Sequence[int]) -> None:
    matrix = panel.matrix[np.ix_(order, order)]
    there = np.isfinite(matrix) & (matrix > 0)
    image = axes.imshow(
        np.ma.masked_where(~there, matrix),
        cmap=sequential_map("cividis" if panel.scale in ("share", "variation") else "viridis"),
        norm=_norm(panel, matrix[there]),
        interpolation=interpolation(len(matrix)),
        aspect="equal",
    )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_title(panel.title, fontsize=11, color=TEXT_ON_LIGHT, loc="left", pad=16)
    extend = {"variation": "both", "property": "both"}.get(panel.scale, "neither")
    bar = axes.figure.colorbar(image, cax=axes.inset_axes((1.03, 0.0, 0.03, 0.6)), extend=extend)
    bar.set_label(panel.meaning, fontsize=8)
    if panel.scale == "share":
        bar.ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    elif panel.scale in ("amount", "variation"):
        _few_ticks(bar.ax)
    bar.ax.tick_params(labelsize=7)


def _few_ticks(axes: Axes) -> None:
    """Label 1 and 3 of each decade, as plain numbers."""
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())


def _norm(panel: MatrixPanel, values: Float[np.ndarray, " n"]) -> Normalize:
    if panel.scale == "share":
        return Normalize(0, 1)
    if panel.scale == "variation":
        return LogNorm(*_VARIATION)
    low, high = (1.0, 10.0) if not values.size else (float(values.min()), float(values.max()))
    if values.size and panel.scale == "property":  # stray edges must not take the whole scale
        low, high = (float(end) for end in np.percentile(values, [2, 98]))
    low, high = panel.limits or (low, high)
    if low == high:
        low, high = low / 2, high * 2
    return LogNorm(low, high) if panel.scale == "amount" else Normalize(low, high)


def _draw_kept(
    axes: Axes, share: Float[np.ndarray, " pair"], threshold: float | None, n_chosen: int
) -> None:
    levels, n_edges = np.unique(share[share > 0], return_counts=True)
    n_kept = n_edges[::-1].cumsum()[::-1]
    axes.axvspan(*_RECOMMENDED, color=_BAND, linewidth=0, zorder=0)
    if levels.size:
        # Up to a level, all edges at it and above are kept.
        axes.step([0, *levels], [n_kept[0], *n_kept], where="pre", color=CATEGORIES[0])
        axes.set_ylim(0, 1.08 * n_kept[0])
    if threshold is not None:
        axes.plot([threshold], [n_chosen], "D", color=CATEGORIES[1], markersize=6)
        axes.annotate(
            f"{n_chosen:,} edges at {threshold:.0%}",
            (threshold, n_chosen),
            xytext=(6, 6),
            textcoords="offset points",
            fontsize=8.5,
            color=CATEGORIES[1],
        )
    axes.set_xlabel("threshold: share of participants that must have the edge", fontsize=9)
    axes.set_ylabel("edges kept", fontsize=9)
    axes.set_title("How many edges a threshold keeps", fontsize=10, loc="left")


def _draw_which(
    axes: Axes,
    share: Float[np.ndarray, " pair"],
    mean: Float[np.ndarray, " pair"],
    meaning: str,
) -> None:
    there = (share > 0) & np.isfinite(mean) & (mean > 0)
    axes.scatter(
        share[there],
        mean[there],
        s=7,
        color=CATEGORIES[0],
        alpha=0.25,
        linewidths=0,
        rasterized=True,
    )
    if there.any():
        axes.set_yscale("log")
        _few_ticks(axes)
    axes.set_xlabel("share of participants that have the edge", fontsize=9)
    axes.set_ylabel(meaning, fontsize=9)
    axes.set_title("Which edges participants share", fontsize=10, loc="left")
