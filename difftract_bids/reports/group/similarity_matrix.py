"""How much runs are like each other: a matrix of them, in an order that shows families."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.image import AxesImage

from difftract_bids.reports.drawing.style import (
    CATEGORIES,
    TEXT_ON_LIGHT,
    new_figure,
    save_svg,
    sequential_map,
)

#: Of more runs, the optimal order of leaves takes longer than all else.
OPTIMAL_ORDER_RUNS = 300
#: Of more runs, only those that stand apart, or are grey, are named; and so many of them.
_ALL_NAMED, _NAMED = 40, 24
#: Of fewer, there is nothing to order.
LEAST_RUNS = 3
_WIDTH_IN, _NAMES_IN, _TOP_IN, _BOTTOM_IN = 12.5, 2.3, 0.2, 0.45
_UNKNOWN, _ITSELF = "#b4b4b4", "#ffffff"
#: Length of the arrow below the scale, of the scale's.
_ARROW = 0.04
_MAIN, _APART = CATEGORIES[:2]
#: Of more runs, a cell is the mean of some: a screen shows no more of them, and a picture that is
#: this small is stored without loss.
MOST_CELLS = 440
#: Of more runs, the diagonal is thinner than what a screen shows.
WHITE_RUNS = 300


@dataclass(frozen=True)
class SimilarRuns:
    """What is drawn.

    Attributes
    ----------
    matrix
        Correlations, symmetric; NaN where there is none.
    runs, participants
        Name of each run, and whose it is.
    apart
        Which stand apart from the others.
    pages
        Address of the report of each run; empty for none.
    """

    matrix: Float[np.ndarray, "run run"]
    runs: Sequence[str]
    participants: Sequence[str]
    apart: Sequence[bool]
    pages: Sequence[str]

    def pairs(self) -> tuple[Float[np.ndarray, " same"], Float[np.ndarray, " different"]]:
        """Give the correlations of two runs of one person, and of different people."""
        whose = np.unique(list(self.participants), return_inverse=True)[1]
        same: list[Float[np.ndarray, " n"]] = []
        different: list[Float[np.ndarray, " n"]] = []
        for i, row in enumerate(self.matrix):
            later, own = row[i + 1 :], whose[i + 1 :] == whose[i]
            there = np.isfinite(later)
            same.append(later[there & own])
            different.append(later[there & ~own])
        return np.concatenate(same), np.concatenate(different)


def family_order(matrix: Float[np.ndarray, "run run"]) -> list[int]:
    """Order runs so that like ones are neighbours.

    Average linkage of 1 - correlation; of up to :data:`OPTIMAL_ORDER_RUNS` runs, the leaves are
    ordered so that neighbours are as alike as the tree allows. Of the last two clusters the
    smaller is last, as a single run that is unlike all others, and after it those without a
    correlation.

    Parameters
    ----------
    matrix
        Correlations, symmetric; NaN where there is none.

    References
    ----------
    Bar-Joseph et al. 2001, doi:10.1093/bioinformatics/17.suppl_1.S22 (the order of leaves).
    """
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    known = np.flatnonzero(np.isfinite(matrix.diagonal()))
    unknown = np.flatnonzero(~np.isfinite(matrix.diagonal()))
    if len(known) < LEAST_RUNS:
        return [*known.tolist(), *unknown.tolist()]
    likeness = np.nan_to_num(matrix[np.ix_(known, known)])  # nothing in common: not alike
    distance = squareform(np.clip(1 - likeness, 0, 2), checks=False)
    optimal = len(known) <= OPTIMAL_ORDER_RUNS
    tree = linkage(distance, "average", optimal_ordering=optimal)
    by_size = _larger_first(tree)
    leaves = by_size
    if optimal:
        leaves = leaves_list(tree).tolist()
        # The last two clusters lie side by side: turned so that the larger is first here too.
        if leaves.index(by_size[0]) > leaves.index(by_size[-1]):
            leaves.reverse()
    return [*known[leaves].tolist(), *unknown.tolist()]


def _larger_first(tree: Float[np.ndarray, "merge 4"]) -> list[int]:
    """List the leaves of a tree, of any two clusters that are merged the larger one first."""
    clusters = {i: [i] for i in range(len(tree) + 1)}
    for new, (one, other) in enumerate(tree[:, :2].astype(int), start=len(tree) + 1):
        parts = clusters.pop(one), clusters.pop(other)
        larger, smaller = sorted(parts, key=len, reverse=True)
        clusters[new] = larger + smaller
    (leaves,) = clusters.values()
    return leaves


def plot_similarity(shown: SimilarRuns, path: str | os.PathLike[str]) -> Path:
    """Draw the matrix, and beside its scale how the correlations are spread.

    Parameters
    ----------
    shown
        The runs; two of them can be compared at least.
    path
        SVG to write. Names lead to the reports.

    Returns
    -------
    Path
        The absolute path written.
    """
    order = family_order(shown.matrix)
    side_in = float(np.clip(0.3 * len(order) + 1.5, 4.5, 8.2))
    height_in = side_in + _TOP_IN + _BOTTOM_IN
    figure = new_figure(_WIDTH_IN, height_in)

    def axes_at(
        left_in: float, width_in: float, share: float = 1.0, above_in: float = 0.0
    ) -> Axes:
        at = (left_in / _WIDTH_IN, (_BOTTOM_IN + above_in) / height_in)
        return figure.add_axes((*at, width_in / _WIDTH_IN, share * side_in / height_in))

    same, different = shown.pairs()
    norm, clipped = _scale(np.concatenate([same, different]))
    cells = axes_at(_NAMES_IN, side_in)
    image = _draw_cells(cells, shown.matrix[np.ix_(order, order)], norm)
    _name(cells, shown, order, side_in)
    bar_in = (_NAMES_IN + side_in + 0.25, 0.2)
    share = 0.7
    # The arrow below the scale is part of the bar's axes; the counts stand beside the rest.
    arrow = _ARROW / (1 + _ARROW) if clipped else 0.0
    bar = figure.colorbar(
        image,
        cax=axes_at(*bar_in, share),
        extend="min" if clipped else "neither",
        extendfrac=_ARROW,
    )
    bar.ax.set_title("correlation", fontsize=8.5, loc="left", pad=9, color=TEXT_ON_LIGHT)
    bar.ax.tick_params(labelsize=8)
    counts = axes_at(bar_in[0] + 0.75, 0.9, share * (1 - arrow), above_in=share * arrow * side_in)
    _draw_spread(counts, same, different, norm)
    return save_svg(figure, path)


def _scale(values: Float[np.ndarray, " pair"]) -> tuple[Normalize, bool]:
    """Span the correlations, but for a few that are far below: they must not take the scale."""
    if not values.size:
        return Normalize(0.0, 1.0), False
    lowest, highest = float(values.min()), float(values.max())
    quarter, three_quarters = np.percentile(values, [25, 75])
    low = max(lowest, float(quarter - 3 * (three_quarters - quarter)))
    if highest - low < 1e-3:  # all the same, but for rounding
        low = highest - 1e-3
    return Normalize(low, highest), lowest < low


def _draw_cells(axes: Axes, matrix: Float[np.ndarray, "run run"], norm: Normalize) -> AxesImage:
    n_runs = len(matrix)
    known = np.isfinite(matrix.diagonal())
    drawn, step = binned(matrix)
    end = len(drawn) * step - 0.5
    image = axes.imshow(
        np.ma.masked_invalid(drawn),
        cmap=sequential_map(blank=_UNKNOWN),
        norm=norm,
        interpolation="none",
        aspect="equal",
        extent=(-0.5, end, end, -0.5),
    )
    if n_runs <= WHITE_RUNS:
        itself = np.ma.masked_where(~np.diag(known), np.ones_like(matrix))
        axes.imshow(itself, cmap=ListedColormap([_ITSELF]), interpolation="none", aspect="equal")
    axes.set_xlim(-0.5, n_runs - 0.5)
    axes.set_ylim(n_runs - 0.5, -0.5)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    return image


def binned(matrix: Float[np.ndarray, "run run"]) -> tuple[Float[np.ndarray, "cell cell"], int]:
    """Average neighbouring runs where there are more than :data:`MOST_CELLS`.

    Returns
    -------
    cells
        Means of those that are known, a run with itself left out; the matrix itself if it is
        small.
    step
        Runs a cell has on either side.
    """
    step = -(-len(matrix) // MOST_CELLS)
    if step == 1:
        return matrix, 1
    n_cells = -(-len(matrix) // step)
    wide = np.full((n_cells * step,) * 2, np.nan, np.float32)
    wide[: len(matrix), : len(matrix)] = matrix
    np.fill_diagonal(wide, np.nan)
    blocks = wide.reshape(n_cells, step, n_cells, step)
    n_known = np.isfinite(blocks).sum(axis=(1, 3))
    with np.errstate(invalid="ignore"):
        return np.nansum(blocks, axis=(1, 3)) / n_known, step


def _name(axes: Axes, shown: SimilarRuns, order: Sequence[int], side_in: float) -> None:
    """Name runs beside their rows, moved apart where they are close, each with a line to it."""
    n_runs = len(order)
    noted = [
        row for row, i in enumerate(order) if shown.apart[i] or not np.isfinite(shown.matrix[i, i])
    ]
    rows = list(range(n_runs)) if n_runs <= _ALL_NAMED else noted[-_NAMED:]
    if not rows:
        return
    names = [shown.runs[order[row]] for row in rows]
    longest = max(map(len, names))
    per_in = n_runs / side_in
    # Points: so that rows do not touch, and the longest name fits its margin.
    size = min(8.5, 62 * side_in / len(rows), 72 * (_NAMES_IN - 0.3) / (0.62 * longest))
    heights = _apart(rows, max(1.0, 1.25 * size / 72 * per_in), n_runs)
    edge, text_edge = -0.5, -0.5 - 0.2 * per_in
    for row, height, name in zip(rows, heights, names, strict=True):
        color = _APART if row in noted else TEXT_ON_LIGHT
        if abs(height - row) > 0.3 * per_in * size / 72 or n_runs > _ALL_NAMED:
            line = axes.plot([edge, text_edge], [row, height], color=color, linewidth=0.5)
            line[0].set_clip_on(False)
        text = axes.text(
            text_edge if n_runs > _ALL_NAMED else edge,
            height,
            f"{name} ",
            fontsize=size,
            color=color,
            ha="right",
            va="center_baseline",
        )
        if page := shown.pages[order[row]]:
            text.set_url(page)
    if n_runs > _ALL_NAMED and len(noted) > len(rows):
        said = f"and {len(noted) - len(rows)} more "
        above = heights[0] - 1.4 * size / 72 * per_in
        axes.text(
            text_edge, above, said, fontsize=size, color=_APART, ha="right", va="center_baseline"
        )


def _apart(rows: Sequence[int], least: float, n_runs: int) -> list[float]:
    """Move heights apart, downwards first, then up from the lower end."""
    heights: list[float] = []
    for row in rows:
        heights.append(max(float(row), heights[-1] + least) if heights else float(row))
    below = n_runs - 1.0
    for i in reversed(range(len(heights))):
        heights[i] = min(heights[i], below)
        below = heights[i] - least
    return heights


def _draw_spread(
    axes: Axes,
    same: Float[np.ndarray, " pair"],
    different: Float[np.ndarray, " pair"],
    norm: Normalize,
) -> None:
    """Draw how many pairs have each correlation, along the scale of the colours."""
    low, high = float(norm.vmin or 0.0), float(norm.vmax or 1.0)
    bins = np.linspace(low, high, 31)
    kinds = (("different people", different, _MAIN), ("same person", same, _APART))
    for rank, (label, values, color) in enumerate(kinds):
        if not values.size:
            continue
        height, _ = np.histogram(np.clip(values, low, high), bins)
        axes.stairs(
            height / height.max(), bins, orientation="horizontal", color=color, fill=rank == 0,
            alpha=0.55 if rank == 0 else 1.0, linewidth=1.2,
        )  # fmt: skip
        axes.text(
            0.0, 1.02 + 0.045 * (1 - rank), label, transform=axes.transAxes, fontsize=8.5,
            color=color,
        )  # fmt: skip
    axes.set_ylim(low, high)
    axes.set_xlim(0, 1.05)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.set_xlabel("pairs of runs", fontsize=8)
