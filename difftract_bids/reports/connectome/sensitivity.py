"""What in the image an edge of the connectome depends on."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, NullLocator
from numpy.typing import NDArray

from difftract_bids.reports.connectome.matrix import short_name
from difftract_bids.reports.drawing.mosaic import (
    PLANES,
    Canonical,
    Panel,
    annotate,
    bounding_box,
    grey_window,
    grown,
)
from difftract_bids.reports.drawing.style import (
    OUTLINE,
    TEXT_ON_DARK,
    new_figure,
    save_svg,
)

#: Outlines of two nodes: cold and light, where the map of sensitivity is warm.
NODE_COLORS = ("#4cc3ff", "#5dff9b")
#: The scale ends at this percentile of all voxels above zero, and begins at this share of its end.
_PERCENTILE, _SHARE = 99.5, 0.01
#: Slices stand where this much of the sensitivity lies to their one side, this far apart at least.
_QUANTILES, _APART_MM = (0.1, 0.3, 0.5, 0.7, 0.9), 4.0
_WIDTH_IN, _HEAD_IN, _FOOT_IN, _GAP_IN = 14.0, 0.5, 0.72, 0.04


@dataclass(frozen=True)
class _View:
    """A panel, and whether it shows one slice or the maximum of all."""

    panel: Panel
    projected: bool

    def take(self, volume: NDArray[np.generic]) -> NDArray[np.generic]:
        if self.projected:
            axis, *_ = PLANES[self.panel.plane]
            volume = np.broadcast_to(volume.max(axis=axis, keepdims=True), volume.shape)
        return self.panel.take(volume)


def plot_sensitivity(
    magnitude: Float[np.ndarray, "x y z"],
    background: Float[np.ndarray, "x y z"],
    vox2ras: Float[np.ndarray, "4 4"],
    parcellation: Int[np.ndarray, "x y z"],
    nodes: Mapping[int, str],
    path: str | os.PathLike[str],
    *,
    what: str,
    units: str,
    mask: Bool[np.ndarray, "x y z"] | None = None,
) -> Path:
    """Draw how much an edge changes with the signal of each voxel, over anatomy.

    A row per plane. Its first panel is the maximum along the axis that is not seen, over the slice
    through the middle (the weighted median) of the sensitivity; the others are slices near
    which 10, 30, 50, 70 and 90 percent of the sensitivity lie to one side, so that they stand
    where there is something to see. Colours are logarithmic over two decades, because
    sensitivities span several, and vanish towards the lower end. Left is on the left.

    Parameters
    ----------
    magnitude
        Sensitivity, not negative, in ``units``.
    background
        FA or a b=0 image on the same grid.
    vox2ras
        Voxels to RAS+ millimetres.
    parcellation
        Labels on the same grid.
    nodes
        Label and name of the edge's two nodes, which are outlined; of one, for a node's strength;
        none, for all edges.
    path
        SVG to write.
    what
        What the sensitivity is of, for the title: ``LH-Precentral x Brainstem``.
    units
        What the colour means, with its unit.
    mask
        Brain, which sets the field of view; where the background is positive, if not given.

    Returns
    -------
    Path
        The absolute path written.

    Raises
    ------
    ValueError
        If the images are not on one grid, if a sensitivity is negative or not finite, or if there
        are more than two nodes.
    """
    _check(magnitude, {"background": background, "parcellation": parcellation}, nodes)
    grid = Canonical(vox2ras, magnitude.shape)
    brain = np.nan_to_num(background) > 0 if mask is None else mask.astype(bool)
    sensitivity = grid.turn(magnitude).astype(np.float64)
    grey, labels = np.nan_to_num(grid.turn(background)), grid.turn(parcellation)
    inside = grid.turn(brain).astype(bool)
    # Where nothing is sensitive, the edge's nodes are what there is to see, or else the brain.
    whereabouts = [sensitivity, np.isin(labels, list(nodes)) * 1.0, inside * 1.0]
    weight = next((one for one in whereabouts if one.any()), np.ones(inside.shape))
    figure, views = _layout(grid, inside | (weight > 0), weight)
    window = grey_window(background, brain)
    window["vmax"] *= 1.3  # a little dark, for the colours to stand out
    scale = _Scale.of(sensitivity) if sensitivity.any() else None
    for view in views:
        view.panel.show(view.panel.take(grey), **window)
        if scale is not None:
            view.panel.show(scale.colors(view.take(sensitivity)))
        for label, color in zip(nodes, NODE_COLORS, strict=False):
            _outline(view.panel, view.take(labels == label), color)
    _head(figure, what, nodes)
    if scale is None:
        _say_nothing(figure, what)
    else:
        _foot(figure, scale, units, _concentration(sensitivity, grid))
    return save_svg(figure, path)


def _check(
    magnitude: Float[np.ndarray, "x y z"],
    others: Mapping[str, NDArray[np.generic]],
    nodes: Mapping[int, str],
) -> None:
    for name, other in others.items():
        if other.shape != magnitude.shape:
            message = f"the {name} of shape {other.shape} is not on the grid {magnitude.shape}"
            raise ValueError(message)
    # Not a comparison alone: NaN is neither above nor below zero.
    if n_wrong := int((~(np.isfinite(magnitude) & (magnitude >= 0))).sum()):
        message = f"{n_wrong} voxels have a sensitivity that is negative or not finite"
        raise ValueError(message)
    if len(nodes) > len(NODE_COLORS):
        message = f"an edge has at most two nodes, not {len(nodes)}"
        raise ValueError(message)


@dataclass(frozen=True)
class _Scale:
    """Sensitivity to colour, and how much of the background is seen through it."""

    norm: LogNorm
    cmap: Colormap

    @classmethod
    def of(cls, sensitivity: Float[np.ndarray, "x y z"]) -> _Scale:
        high = float(np.percentile(sensitivity[sensitivity > 0], _PERCENTILE))
        # The darkest part of the map would look like a shadow in the background.
        table = mpl.colormaps["inferno"](np.linspace(0.3, 1.0, 256))
        table[:, 3] = np.clip(np.linspace(0, 3, 256), 0, 1)
        return cls(LogNorm(_SHARE * high, high, clip=True), ListedColormap(table))

    def colors(self, sensitivity: NDArray[np.generic]) -> NDArray[np.float64]:
        positive = np.maximum(sensitivity, np.finfo(np.float64).tiny)
        return self.cmap(np.ma.getdata(self.norm(positive)))


def _layout(
    grid: Canonical, shown: Bool[np.ndarray, "x y z"], weight: Float[np.ndarray, "x y z"]
) -> tuple[Figure, list[_View]]:
    """Lay out a row per plane: a projection, a gap, and slices."""
    box = grown(bounding_box(shown), shown.shape, grid.voxel_sizes_mm)
    chosen = [
        slices_of(
            weight.sum(axis=tuple({0, 1, 2} - {axis})),
            apart=max(1, int(np.ceil(_APART_MM / grid.voxel_sizes_mm[axis]))),
        )
        for axis in range(3)
    ]
    n_panels = 1 + len(_QUANTILES)
    size_mm = np.array([last - first for first, last in box]) * grid.voxel_sizes_mm
    cell = (_WIDTH_IN - _GAP_IN * (n_panels + 3)) / n_panels
    heights = [cell * size_mm[up] / size_mm[across] for _, across, up in PLANES.values()]
    total = sum(heights) + _GAP_IN * (len(heights) - 1) + _HEAD_IN + _FOOT_IN
    figure = new_figure(_WIDTH_IN, total, dark=True)
    views = []
    top = total - _HEAD_IN
    for (plane, (axis, *_)), height in zip(PLANES.items(), heights, strict=True):
        top -= height
        indices = [chosen[axis][len(_QUANTILES) // 2], *chosen[axis]]
        for number, index in enumerate(indices):
            left = _GAP_IN + number * (cell + _GAP_IN) + (2 * _GAP_IN if number else 0.0)
            frame = (left / _WIDTH_IN, top / total, cell / _WIDTH_IN, height / total)
            panel = Panel(figure.add_axes(frame), plane, index, box, grid.voxel_sizes_mm)
            position = f"{'xyz'[axis]} = {round(grid.slice_mm(axis, index, box))} mm"
            text = position if number else f"maximum along {'xyz'[axis]}"
            annotate(panel.axes, plane, text, sides=number < 2)
            views.append(_View(panel, projected=number == 0))
        top -= _GAP_IN
    return figure, views


def slices_of(weight: Float[np.ndarray, " n"], *, apart: int = 1) -> list[int]:
    """Choose slices where a weight is: at fixed quantiles of it, and some voxels apart.

    Parameters
    ----------
    weight
        Of every slice, not negative, not all zero.
    apart
        Least distance between two slices, voxels. The slice at the median stays, the others give
        way, unless they would leave the image.

    Returns
    -------
    list of int
        One slice per quantile, ascending.
    """
    reached = np.cumsum(weight) / weight.sum()
    found = [int(np.searchsorted(reached, quantile)) for quantile in _QUANTILES]
    middle = len(found) // 2
    for i in range(middle + 1, len(found)):
        found[i] = max(found[i], found[i - 1] + apart)
    for i in reversed(range(middle)):
        found[i] = min(found[i], found[i + 1] - apart)
    return [min(max(index, 0), len(weight) - 1) for index in found]


def _outline(panel: Panel, inside: Bool[np.ndarray, "v h"], color: str) -> None:
    """Draw the border along the faces of voxels: it hides nothing, and one voxel is a square."""
    if not inside.any():
        return
    padded = np.pad(inside, 1)
    ends = np.array([-0.5, 0.5, np.nan])  # of a face, and a break in the line
    rows, columns = np.nonzero(padded[1:] != padded[:-1])
    level = [np.add.outer(columns, ends), np.repeat(rows[:, None] + 0.5, 3, axis=1)]
    rows, columns = np.nonzero(padded[:, 1:] != padded[:, :-1])
    upright = [np.repeat(columns[:, None] + 0.5, 3, axis=1), np.add.outer(rows, ends)]
    places_mm = [
        centres[0] + (np.concatenate(faces).ravel() - 1) * panel.voxel_sizes_mm[axis]
        for centres, axis, faces in zip(
            panel.centres_mm(),
            PLANES[panel.plane][1:],
            zip(level, upright, strict=True),
            strict=True,
        )
    ]
    line = Line2D(*places_mm, color=color, linewidth=1.0, solid_capstyle="projecting")
    line.set_path_effects([withStroke(linewidth=2.0, foreground="#000000", alpha=0.6)])
    panel.axes.add_line(line)


def _concentration(sensitivity: Float[np.ndarray, "x y z"], grid: Canonical) -> str:
    """Say in how small a part of the image half of the sensitivity lies."""
    from_top = np.sort(sensitivity[sensitivity > 0])[::-1]
    n_half = int(np.searchsorted(np.cumsum(from_top), from_top.sum() / 2)) + 1
    volume_cm3 = n_half * np.abs(np.linalg.det(grid.vox2ras[:3, :3])) / 1000
    return (
        f"Half of the sum lies in {n_half:,} of {from_top.size:,} voxels above zero "
        f"({volume_cm3:.2g} cm\u00b3)."
    )


def _head(figure: Figure, what: str, nodes: Mapping[int, str]) -> None:
    """Write the title on the left and the names of the nodes on the right, clear of each other."""
    middle = 1 - _HEAD_IN / 2 / figure.get_figheight()
    names = [short_name(name) for name in nodes.values()]
    shrink = min(1.0, 110 / (len(what) + sum(map(len, names)) + 1))
    figure.text(
        0.006,
        middle,
        f"Sensitivity of {what}",
        color=TEXT_ON_DARK,
        fontsize=12 * shrink,
        va="center",
    )
    if not nodes:
        return
    squares = [
        Line2D([], [], linestyle="", marker="s", markersize=8, mfc="none", mec=color, mew=1.5)
        for color in NODE_COLORS[: len(nodes)]
    ]
    figure.legend(
        squares,
        names,
        loc="center right",
        bbox_to_anchor=(1.0, middle),
        ncols=len(nodes),
        frameon=False,
        labelcolor=TEXT_ON_DARK,
        fontsize=10 * shrink,
        handletextpad=0.2,
    )


def _say_nothing(figure: Figure, what: str) -> None:
    figure.text(
        0.5,
        0.5 * _FOOT_IN / figure.get_figheight(),
        f"Nothing in the image changes {what}: the sensitivity is zero in every voxel.",
        color=OUTLINE,
        fontsize=11,
        ha="center",
        va="center",
    )


def _foot(figure: Figure, scale: _Scale, units: str, concentration: str) -> None:
    """Draw the colour bar, and say what the panels show."""
    height_in = figure.get_figheight()
    style: dict[str, Any] = {"color": TEXT_ON_DARK, "fontsize": 8.5}
    frame = figure.add_axes((0.02, 0.46 / height_in, 0.42, 0.13 / height_in), facecolor="#404040")
    bar = figure.colorbar(
        ScalarMappable(scale.norm, scale.cmap), cax=frame, orientation="horizontal"
    )
    bar.outline.set_visible(False)
    bar.set_label(
        f"{units}; log scale to the {_PERCENTILE:g}th percentile; "
        f"transparent below {_SHARE:.0%} of that",
        labelpad=2,
        loc="left",
        **style,
    )
    bar.ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    bar.ax.xaxis.set_major_formatter("{x:g}")
    bar.ax.xaxis.set_minor_locator(NullLocator())
    bar.ax.tick_params(labelsize=7.5, colors=TEXT_ON_DARK, length=2, pad=1.5)
    note = (
        "First column: maximum of all slices, over the middle one. "
        f"Others: slices near {_spoken(_QUANTILES)} % of the sensitivity.\n{concentration}"
    )
    figure.text(
        0.994,
        0.5 * _FOOT_IN / height_in,
        note,
        ha="right",
        va="center",
        linespacing=1.5,
        **style,
    )


def _spoken(shares: Sequence[float]) -> str:
    percents = [f"{100 * share:.0f}" for share in shares]
    return f"{', '.join(percents[:-1])} and {percents[-1]}"
