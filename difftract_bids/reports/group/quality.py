"""How quality measures are spread over the runs of a group, and which stand apart."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from difftract_bids.reports.drawing.style import CATEGORIES, TEXT_ON_LIGHT, new_figure, save_svg

_MAIN, _APART, _BAND = CATEGORIES[0], CATEGORIES[1], "#e9eef3"
_COLUMNS, _PANEL_IN = 3, (3.7, 1.62)
#: So many names fit above the points; the table has all.
_NAMED = 4
#: Of more runs, points are drawn as pixels.
_MANY_RUNS = 400


@dataclass(frozen=True)
class Distribution:
    """One measure of all runs.

    Attributes
    ----------
    title, units
        What it is.
    values
        A number a run; NaN where it is not known.
    low, high
        Limits beyond which a run stands apart; ``None`` on a side without.
    median
        Middle, if it was worked out.
    """

    title: str
    units: str
    values: Float[np.ndarray, " run"]
    low: float | None = None
    high: float | None = None
    median: float | None = None

    def apart(self) -> list[int]:
        """List the runs beyond a limit, the farthest first."""
        excess = np.zeros(len(self.values))
        if self.high is not None:
            excess = np.fmax(excess, self.values - self.high)
        if self.low is not None:
            excess = np.fmax(excess, self.low - self.values)
        return [int(run) for run in np.argsort(-excess, kind="stable") if excess[run] > 0]


def plot_quality(
    distributions: Sequence[Distribution],
    runs: Sequence[str],
    path: str | os.PathLike[str],
    *,
    pages: Sequence[str] | None = None,
) -> Path:
    """Draw a panel a measure: a point a run, the limits as a band, those beyond by name.

    Parameters
    ----------
    distributions
        The measures.
    runs
        Name of each run.
    path
        SVG to write.
    pages
        Address of the report of each run, empty for none: names lead there.

    Returns
    -------
    Path
        The absolute path written.

    Raises
    ------
    ValueError
        If there is no measure, or one has not a value for each run.
    """
    if not distributions:
        raise ValueError("there is no measure to draw")
    for one in distributions:
        if len(one.values) != len(runs):
            raise ValueError(f"{one.title}: {len(one.values)} values for {len(runs)} runs")
    n_rows = math.ceil(len(distributions) / _COLUMNS)
    width, height = _COLUMNS * _PANEL_IN[0], n_rows * _PANEL_IN[1] + 0.2
    figure = new_figure(width, height)
    grid = figure.subplots(n_rows, _COLUMNS, squeeze=False).ravel()
    figure.subplots_adjust(
        left=0.02, right=0.98, bottom=0.42 / height, top=1 - 0.35 / height, hspace=1.0, wspace=0.1
    )
    for axes, one in zip(grid, distributions, strict=False):
        _draw(axes, one, runs, pages or [""] * len(runs))
    for axes in grid[len(distributions) :]:
        axes.set_axis_off()
    return save_svg(figure, path)


def _draw(axes: Axes, one: Distribution, runs: Sequence[str], pages: Sequence[str]) -> None:
    apart = one.apart()
    known = np.isfinite(one.values)
    inside = known.copy()
    inside[apart] = False
    low, high = _limits(one)
    axes.set_xlim(low, high)
    axes.set_ylim(-0.55, 2.6)
    # Beyond its one limit, a one-sided measure is fine as far as it goes.
    band = (low if one.low is None else one.low, high if one.high is None else one.high)
    if one.low is not None or one.high is not None:
        axes.axvspan(*band, ymax=0.4, color=_BAND, linewidth=0, zorder=0)
    if one.median is not None:
        axes.plot([one.median] * 2, [-0.5, 0.6], color=TEXT_ON_LIGHT, linewidth=1.2, zorder=4)
    height = _spread(one.values)
    many = len(runs) > _MANY_RUNS
    axes.scatter(
        one.values[inside],
        height[inside],
        s=5 if many else 16,
        color=_MAIN,
        alpha=0.35 if many else 0.7,
        linewidths=0,
        rasterized=many,
    )
    axes.scatter(
        one.values[apart], height[apart], color=_APART, s=26, marker="D", linewidths=0, zorder=5
    )
    _name(axes, one, apart, height, runs, pages)
    axes.set_title(one.title, fontsize=9.5, color=TEXT_ON_LIGHT, loc="left", pad=3)
    axes.set_yticks([])
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.tick_params(labelsize=7.5, pad=1)
    axes.set_xlabel(one.units, fontsize=8, labelpad=1)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.ticklabel_format(axis="x", style="plain", useOffset=False)
    if known.any() and np.ptp(one.values[known]) == 0:
        axes.text(one.values[known][0], 0.75, "the same in all runs", fontsize=7.5, ha="center")
        value = float(one.values[known][0])
        axes.set_xticks([value], [f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"])


def _limits(one: Distribution) -> tuple[float, float]:
    """Show all values, and as much around them as it takes to see that they agree."""
    known = one.values[np.isfinite(one.values)]
    if not known.size:
        return 0.0, 1.0
    ends = [float(known.min()), float(known.max())]
    reach = ends[1] - ends[0]
    ends += [
        end for end in (one.low, one.high) if end is not None and abs(end - known.mean()) < reach
    ]
    if min(ends) == max(ends):
        return ends[0] - 1.0, ends[0] + 1.0
    margin = 0.06 * (max(ends) - min(ends))
    return min(ends) - margin, max(ends) + margin


def _spread(values: Float[np.ndarray, " run"]) -> Float[np.ndarray, " run"]:
    """Move points up and down, so that each is seen, and the same in every drawing."""
    return 0.42 * (2 * ((np.arange(len(values)) * 0.618034) % 1.0) - 1)


def _name(
    axes: Axes,
    one: Distribution,
    apart: list[int],
    height: Float[np.ndarray, " run"],
    runs: Sequence[str],
    pages: Sequence[str],
) -> None:
    """Name the farthest runs, one above the other, each with a line from its point.

    The farthest is on top, so that no line crosses the name of another.
    """
    left, right = axes.get_xlim()
    for rank, run in enumerate(reversed(apart[:_NAMED])):
        x, y = one.values[run], 0.85 + 0.42 * rank
        to_right = x < (left + right) / 2
        axes.plot([x, x], [height[run], y + 0.1], color=_APART, linewidth=0.5, zorder=3)
        text = axes.text(
            x,
            y,
            f" {runs[run]} ",
            fontsize=7.5,
            color=_APART,
            ha="left" if to_right else "right",
            va="bottom",
        )
        if pages[run]:
            text.set_url(pages[run])
    more = len(apart) - _NAMED
    if more > 0:
        axes.text(
            1.0, 1.02, f"and {more} more", transform=axes.transAxes, fontsize=7.5, color=_APART,
            ha="right", va="bottom",
        )  # fmt: skip
