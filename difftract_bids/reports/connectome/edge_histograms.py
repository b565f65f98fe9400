"""How the edges of a connectome are distributed: by weight, and by length."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.ticker import LogFormatter, MaxNLocator
from numpy.typing import NDArray

from difftract_bids.reports.drawing.style import CATEGORIES, TEXT_ON_LIGHT

_TITLE: dict[str, Any] = {"fontsize": 10, "color": TEXT_ON_LIGHT, "loc": "left", "pad": 12}


def draw_weights(axes: Axes, edges: Float[np.ndarray, "node node"]) -> None:
    """Draw the distribution of the weights of edges between different nodes, logarithmic."""
    above = edges[np.triu_indices(len(edges), k=1)]
    weights = above[above > 0]
    borders = _weight_bins(weights)
    axes.stairs(
        np.histogram(weights, borders)[0], borders, fill=True, color=CATEGORIES[2], alpha=0.8
    )
    axes.set_xscale("log")
    axes.set_xlim(borders[0], borders[-1])
    share = len(weights) / max(len(above), 1)
    edges_in_words = "1 edge" if len(weights) == 1 else f"{len(weights):,} edges"
    axes.set_title(f"Weights of {edges_in_words} ({share:.0%} of all pairs)", **_TITLE)
    axes.set_xlabel("streamlines of an edge (log scale)", fontsize=9)
    axes.xaxis.set_major_formatter("{x:,g}")
    axes.xaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1.0, 0.4)))  # no powers of ten
    _style_histogram(axes, "edges")
    if len(weights):
        _mark_median(axes, float(np.median(weights)), "{:,.3g}")


def _weight_bins(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Choose bins of about equal width on a logarithmic scale, none of which is always empty."""
    if not len(weights):
        return np.array([1.0, 10.0])
    low, high = float(weights.min()), float(weights.max())
    borders = np.geomspace(low, high * 1.001, max(2, int(np.ceil(8 * np.log10(high / low + 1)))))
    if (weights == np.round(weights)).all():  # between 1 and 2 there is nothing
        borders = np.unique(np.append(np.floor(borders), np.floor(high) + 1))
    return borders if len(borders) > 1 else np.array([low, low * 2])


def draw_lengths(
    axes: Axes,
    edges: Float[np.ndarray, "node node"],
    mean_length_mm: Float[np.ndarray, "node node"],
) -> None:
    """Draw the distribution of the mean lengths of edges, each as often as it has streamlines."""
    above = np.triu_indices(len(edges), k=1)
    weights, lengths_mm = edges[above], mean_length_mm[above]
    there = (weights > 0) & np.isfinite(lengths_mm) & (lengths_mm > 0)
    weights, lengths_mm = weights[there], lengths_mm[there]
    borders = np.linspace(0, max(lengths_mm.max(initial=1.0), 1.0) * 1.001, 41)
    axes.stairs(
        np.histogram(lengths_mm, borders, weights=weights)[0],
        borders, fill=True, color=CATEGORIES[2], alpha=0.8,
    )  # fmt: skip
    axes.set_xlim(0, borders[-1])
    axes.set_title("Mean length of the edges", **_TITLE)
    axes.set_xlabel("mean length of an edge (mm), weighted by its streamlines", fontsize=9)
    _style_histogram(axes, "streamlines")
    if len(weights):
        order = np.argsort(lengths_mm)
        half = np.searchsorted(np.cumsum(weights[order]), weights.sum() / 2)
        _mark_median(axes, float(lengths_mm[order][half]), "{:.0f} mm")


def _style_histogram(axes: Axes, label: str) -> None:
    axes.set_ylabel(label, fontsize=9)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True))
    axes.set_ylim(0, max(1.1 * axes.get_ylim()[1], 1.05))  # room for what is written at the median
    axes.tick_params(which="both", labelsize=8, colors=TEXT_ON_LIGHT)
    axes.spines[["top", "right"]].set_visible(False)


def _mark_median(axes: Axes, median: float, form: str) -> None:
    """Draw a line at the median and tell it, on the side where there is room."""
    across = axes.transAxes.inverted().transform(axes.transData.transform((median, 0)))[0]
    by_left = across > 0.6
    axes.axvline(median, color=TEXT_ON_LIGHT, linewidth=1.4)
    axes.annotate(
        f"median {form.format(median)}",
        (median, 1.0),
        (-4 if by_left else 4, -2),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        ha="right" if by_left else "left",
        va="top",
        fontsize=9,
        color=TEXT_ON_LIGHT,
    )
