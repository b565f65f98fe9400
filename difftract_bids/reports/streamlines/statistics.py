"""How long streamlines are, why they ended, and what became of the seeds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from difftract_bids.reports.drawing.style import CATEGORIES, TEXT_ON_LIGHT, new_figure, save_svg

_N_BINS = 60
_OTHER = "#8c8c8c"
_TITLE: dict[str, Any] = {"fontsize": 10, "color": TEXT_ON_LIGHT, "loc": "left"}
#: What the counts of a tractogram are called in a picture, where a name of a few words is not
#: what it says.
_STOP_WORDS = {
    "none": "started there, one way",
    "no_peak": "no peak to follow",
    "below_cutoff": "fODF below the cutoff",
    "high_curvature": "turned too sharply",
    "left_mask": "left the brain mask",
    "outside_image": "left the image",
    "max_length": "reached the largest length",
    "all_included": "visited all it had to",
    "left_tissue": "left the tissue image",
    "entered_exclude": "entered an excluded region",
}
_SEED_WORDS = {
    "kept": "gave a streamline",
    "no_peak": "no peak at the seed",
    "below_cutoff": "fODF below the cutoff",
    "single_vertex": "not one step possible",
    "too_short": "streamline too short",
    "too_long": "streamline too long",
    "excluded": "in an excluded region",
    "missed_include": "missed a region to visit",
}


def plot_streamline_statistics(
    lengths_mm: Float[np.ndarray, " streamline"],
    stop_reasons: Mapping[str, int],
    seed_fates: Mapping[str, int],
    path: str | os.PathLike[str],
    *,
    limits_mm: tuple[float | None, float | None] = (None, None),
) -> Path:
    """Draw the lengths of streamlines, why they ended, and what became of the seeds.

    Parameters
    ----------
    lengths_mm
        Of the kept streamlines, millimetres.
    stop_reasons
        Ends of streamlines by reason, two a streamline; names as in the tractogram's sidecar.
    seed_fates
        Seeds by what became of them; ``kept`` stands out.
    path
        SVG to write.
    limits_mm
        Smallest and largest length of a streamline that is kept, millimetres; ``None`` if there
        is none.

    Returns
    -------
    Path
        The absolute path written.
    """
    figure = new_figure(14, 4.4)
    _draw_lengths(figure.add_axes((0.05, 0.14, 0.31, 0.72)), lengths_mm, limits_mm)
    for left, title, tally, words in (
        (0.515, "Why streamlines ended (share of the ends)", stop_reasons, _STOP_WORDS),
        (0.8, "What became of seeds", seed_fates, _SEED_WORDS),
    ):
        axes = figure.add_axes((left, 0.14, 0.11, 0.72))
        _draw_bars(axes, title, named(tally, words))
    return save_svg(figure, path)


def named(tally: Mapping[str, int], words: Mapping[str, str]) -> dict[str, int]:
    """Give counts their names in a picture, the largest first; what did not happen is left out."""
    happened = [(name, number) for name, number in tally.items() if number > 0]
    happened.sort(key=lambda item: (-item[1], item[0]))
    return {words.get(name, name.replace("_", " ")): number for name, number in happened}


def _draw_lengths(
    axes: Axes,
    lengths_mm: Float[np.ndarray, " streamline"],
    limits_mm: tuple[float | None, float | None],
) -> None:
    finite = lengths_mm[np.isfinite(lengths_mm)]
    high = float(finite.max()) if finite.size else (limits_mm[1] or 100.0)
    edges = np.linspace(0.0, max(high, 1e-3) * 1.0001, _N_BINS + 1)
    axes.stairs(np.histogram(finite, edges)[0], edges, fill=True, color=CATEGORIES[0], alpha=0.75)
    axes.set_xlim(0, 1.04 * edges[-1])
    axes.set_ylim(bottom=0)
    axes.set_title(f"Lengths of {lengths_mm.size:,} streamlines", **_TITLE)
    axes.set_xlabel("length (mm)", fontsize=9)
    axes.set_ylabel(f"streamlines per {edges[1]:.2g} mm", fontsize=9)
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.tick_params(labelsize=8, colors=TEXT_ON_LIGHT)
    axes.spines[["top", "right"]].set_visible(False)
    lines = []
    if finite.size:
        median = float(np.median(finite))
        axes.axvline(median, color=CATEGORIES[1], linewidth=1.6)
        low, top = np.percentile(finite, [5, 95])
        lines += [f"median: {median:.0f} mm", f"nine in ten: {low:.0f} to {top:.0f} mm"]
    for limit, text in zip(limits_mm, ("shortest", "longest"), strict=True):
        if limit is not None:
            lines.append(f"{text} that is kept: {limit:.0f} mm (dotted)")
            if limit <= axes.get_xlim()[1]:
                axes.axvline(limit, color=TEXT_ON_LIGHT, linestyle=":", linewidth=1.2)
    # Long streamlines are few: the upper right is free.
    for number, line in enumerate(lines):
        axes.text(
            0.93,
            0.97 - 0.075 * number,
            line,
            transform=axes.transAxes,
            ha="right",
            va="top",
            fontsize=9,
            color=CATEGORIES[1] if line.startswith("median") else TEXT_ON_LIGHT,
        )


def _draw_bars(axes: Axes, title: str, tally: Mapping[str, int]) -> None:
    """Draw a bar per name, with its share and number beside it."""
    total = max(sum(tally.values()), 1)
    shares = [100 * number / total for number in tally.values()]
    kept = _SEED_WORDS["kept"]
    colors = [CATEGORIES[0] if name == kept else _OTHER for name in tally]
    axes.barh(range(len(tally)), shares, color=colors, height=0.62)
    for row, (share, number) in enumerate(zip(shares, tally.values(), strict=True)):
        text = f"{share:.1f}%  {number:,}" if share >= 0.05 else f"<0.1%  {number:,}"
        axes.annotate(
            text,
            (share, row),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            color=TEXT_ON_LIGHT,
            annotation_clip=False,
        )
    axes.set_yticks(range(len(tally)), list(tally), fontsize=9, color=TEXT_ON_LIGHT)
    # As if there were five bars at least: two would be beams.
    axes.set_ylim(max(len(tally), 5) - 0.4, -0.6)
    axes.set_xlim(0, 1.05 * max(shares, default=1.0))
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.set_title(title, **_TITLE)
    if not tally:
        axes.text(0.5, 0.5, "not counted", transform=axes.transAxes, ha="center", fontsize=9)
