"""The connectome as a matrix with the name of every node."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.patches import Rectangle

from difftract_bids.checks.sides import side_of
from difftract_bids.reports.drawing.style import (
    CATEGORIES,
    TEXT_ON_LIGHT,
    new_figure,
    save_svg,
    sequential_map,
)

_T = TypeVar("_T")
_SCHAEFER = re.compile(r"^\d+Networks_[LR]H_(?P<network>[A-Za-z]+)")
_SIDES = ("left", "right", "midline")
#: Of more nodes, names cannot be read, and cells are smaller than what a screen shows.
_MANY_NODES = 400


def plot_connectome(
    matrix: Float[np.ndarray, "node node"],
    names: Sequence[str],
    path: str | os.PathLike[str],
    *,
    groups: Sequence[str] | None = None,
    measure: str = "number of streamlines",
) -> Path:
    """Draw a connectome on a logarithmic scale; edges without streamlines stay blank.

    Nodes are sorted by hemisphere, then by group; within a group they keep the atlas's order.

    Parameters
    ----------
    matrix
        Symmetric, not negative.
    names
        Node names, in the matrix's order.
    path
        SVG to write.
    groups
        Group (network, lobe) of each node, shown as a coloured bar; from the names if not given
        (Schaefer's networks), else none.
    measure
        What the colour means, with its unit.

    Returns
    -------
    Path
        The absolute path written.

    Raises
    ------
    ValueError
        If the matrix is not square or does not have one row per name.
    """
    n_nodes = len(names)
    if matrix.shape != (n_nodes, n_nodes):
        message = f"a matrix of shape {matrix.shape} does not fit {n_nodes} node names"
        raise ValueError(message)
    sides = [side_of(name) for name in names]
    groups = list(groups) if groups is not None else [group_of(name) for name in names]
    order = node_order(sides, groups)
    figure = new_figure(12.5, 12.5)
    axes = figure.add_axes((0.15, 0.15, 0.77, 0.77))
    _draw_cells(axes, matrix[np.ix_(order, order)], measure)
    labels = [short_name(names[i]) for i in order] if n_nodes <= _MANY_NODES else []
    font = _font_size(labels)
    axes.set_xticks(range(len(labels)), labels, rotation=90, fontsize=font)
    axes.set_yticks(range(len(labels)), labels, fontsize=font)
    axes.tick_params(length=0, pad=13, colors=TEXT_ON_LIGHT)
    axes.spines[:].set_visible(False)
    _draw_groups(axes, [sides[i] for i in order], [groups[i] for i in order])
    return save_svg(figure, path)


def group_of(name: str) -> str:
    """Read the network from a Schaefer name; any other node is in no group."""
    found = _SCHAEFER.match(name)
    return found["network"] if found else ""


def short_name(name: str) -> str:
    """Leave out what every name of a Schaefer atlas begins with."""
    return re.sub(r"^\d+Networks_", "", name)


def node_order(sides: Sequence[str], groups: Sequence[str]) -> list[int]:
    """Order nodes by side, then by group in order of appearance, then as they came."""
    first = {group: i for i, group in reversed(list(enumerate(groups)))}
    return sorted(range(len(sides)), key=lambda i: (_SIDES.index(sides[i]), first[groups[i]], i))


def interpolation(n_nodes: int) -> str:
    """Choose how cells are drawn: each as it is, unless there are more than pixels."""
    return "none" if n_nodes <= _MANY_NODES else "auto"


def _font_size(labels: Sequence[str]) -> float:
    """Choose points so that rows do not touch and the longest name fits the margin."""
    by_rows = 560.0 / max(len(labels), 1)
    by_length = 190.0 / max([len(label) for label in labels], default=1)
    return float(np.clip(min(by_rows, by_length), 1.5, 9.0))


def _draw_cells(axes: Axes, matrix: Float[np.ndarray, "node node"], measure: str) -> None:
    positive = matrix[matrix > 0]
    low, high = (positive.min(), positive.max()) if positive.size else (1.0, 10.0)
    if low == high:
        low, high = low / 2, high * 2
    cells = np.ma.masked_where(~(matrix > 0), matrix)
    image = axes.imshow(
        cells,
        cmap=sequential_map(),
        norm=LogNorm(low, high),
        interpolation=interpolation(len(matrix)),
        aspect="equal",
    )
    bar_axes = axes.inset_axes((1.02, 0.0, 0.018, 0.35))
    bar = axes.figure.colorbar(image, cax=bar_axes)
    bar.set_label(f"{measure} (log scale; grey: none)", fontsize=9)
    bar.ax.tick_params(labelsize=8)


def _draw_groups(axes: Axes, sides: Sequence[str], groups: Sequence[str]) -> None:
    """Draw a coloured bar per group and a line between the hemispheres, along both axes."""
    n_nodes = len(sides)
    known = list(dict.fromkeys(group for group in groups if group))
    width, gap = 0.008 * n_nodes, 0.004 * n_nodes
    for (_, group), members in runs_of(list(zip(sides, groups, strict=True))):
        first, last = members
        color = CATEGORIES[known.index(group) % len(CATEGORIES)] if group else "#bbbbbb"
        length = last - first
        for corner, size in (
            ((-0.5 - gap - width, first - 0.5), (width, length)),
            ((first - 0.5, n_nodes - 0.5 + gap), (length, width)),
        ):
            axes.add_patch(
                Rectangle(corner, *size, color=color, clip_on=False, linewidth=0.4, ec="white")
            )
        if group and length >= 0.024 * n_nodes:
            axes.text(
                (first + last - 1) / 2,
                -0.5 - gap,
                group,
                fontsize=7,
                rotation=35,
                ha="left",
                va="bottom",
                color=color,
            )
    for side, (first, last) in side_runs(sides):
        if first:
            axes.axhline(first - 0.5, color="white", linewidth=1.5)
            axes.axvline(first - 0.5, color="white", linewidth=1.5)
        axes.text(
            (first + last - 1) / 2,
            -0.5 - 0.055 * n_nodes,
            side,
            fontsize=10,
            ha="center",
            va="bottom",
        )


def side_runs(sides: Sequence[str]) -> list[tuple[str, tuple[int, int]]]:
    """List the stretch of each side as :func:`runs_of` does; none where names tell no sides."""
    return runs_of(sides) if set(sides) != {"midline"} else []


def runs_of(values: Sequence[_T]) -> list[tuple[_T, tuple[int, int]]]:
    """List each stretch of equal values with its first and last-plus-one position."""
    runs: list[tuple[_T, tuple[int, int]]] = []
    position = 0
    for value, members in groupby(values):
        length = len(list(members))
        runs.append((value, (position, position + length)))
        position += length
    return runs
