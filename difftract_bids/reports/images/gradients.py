"""The diffusion encoding: shells, and directions on the sphere."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.patches import Circle

from difftract_bids.io.gradients import GradientTable
from difftract_bids.reports.drawing.style import (
    TEXT_ON_LIGHT,
    new_figure,
    save_svg,
    shell_colors,
)

#: Left edge of each disc in the figure, side of z = 0, and what is seen.
_DISCS = (
    (0.34, 1, "upper half, seen from above"),
    (0.66, -1, "lower half, seen through from above"),
)
#: Shells that the table has room for.
_MOST_ROWS = 6
_GREY = "#666666"


def plot_gradients(
    gradients: GradientTable,
    path: str | os.PathLike[str],
    *,
    signal: Float[np.ndarray, " volume"] | None = None,
) -> Path:
    """Draw a table of shells and every direction on the sphere, coloured by shell.

    The sphere is seen as two discs, its upper half (z > 0) and its lower half, both from above so
    that left is left, by Lambert's equal-area projection, in which an even scheme looks even. Open
    marks are the antipodes: a direction and its opposite measure the same.

    Parameters
    ----------
    gradients
        b-values and b-vectors in scanner axes.
    path
        SVG to write.
    signal
        Mean of each volume, any unit: a volume that is lost or of another b-value stands out.

    Returns
    -------
    Path
        The absolute path written.
    """
    figure = new_figure(14, 5.0)
    if signal is None:
        _bvalue_panel(figure.add_axes((0.05, 0.58, 0.25, 0.32)), gradients)
    else:
        above = figure.add_axes((0.05, 0.72, 0.25, 0.20))
        _bvalue_panel(above, gradients)
        above.set_xlabel("")
        above.tick_params(labelbottom=False)
        _signal_panel(figure.add_axes((0.05, 0.50, 0.25, 0.18), sharex=above), gradients, signal)
    _shell_table(figure.add_axes((0.03, 0.02, 0.28, 0.36)), gradients)
    for left, sign, title in _DISCS:
        axes = figure.add_axes((left, 0.08, 0.31, 0.82))
        _hemisphere(axes, gradients, sign)
        axes.set_title(title, fontsize=10, color=TEXT_ON_LIGHT)
    figure.text(
        0.655,
        0.03,
        "filled: as acquired; open: the opposite, which measures the same; circles every 30°",
        ha="center",
        fontsize=8,
        color=TEXT_ON_LIGHT,
    )
    return save_svg(figure, path)


def shell_members(
    gradients: GradientTable,
) -> list[tuple[float, Bool[np.ndarray, " volume"]]]:
    """List (mean b-value in s/mm², which volumes) of each diffusion-weighted shell."""
    shells = [mean for mean, _ in gradients.shells()[int(gradients.b0_mask.any()) :]]
    if not shells:
        return []
    nearest = np.abs(gradients.bvals_s_mm2[:, None] - np.array(shells)).argmin(axis=1)
    weighted = ~gradients.b0_mask
    return [(mean, weighted & (nearest == i)) for i, mean in enumerate(shells)]


def equal_area(directions: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 2"]:
    """Project unit vectors with z >= 0 onto the unit disc, keeping areas (Lambert 1772)."""
    x, y, z = directions.T
    return np.stack([x, y], axis=1) / np.sqrt(1.0 + z)[:, None]


_Coloured = list[tuple[float, Bool[np.ndarray, " volume"], str]]


def _coloured_shells(gradients: GradientTable) -> _Coloured:
    members = shell_members(gradients)
    colors = shell_colors(len(members))
    return [(mean, where, color) for (mean, where), color in zip(members, colors, strict=True)]


def _bvalue_panel(axes: Axes, gradients: GradientTable) -> None:
    volumes = np.arange(len(gradients.bvals_s_mm2))
    axes.scatter(
        volumes[gradients.b0_mask], gradients.bvals_s_mm2[gradients.b0_mask], s=9, color="#777777"
    )
    for _, members, color in _coloured_shells(gradients):
        axes.scatter(volumes[members], gradients.bvals_s_mm2[members], s=9, color=color)
    axes.set_title("b-value of each volume, in the order of acquisition", fontsize=10)
    axes.set_xlabel("volume", fontsize=9)
    axes.set_ylabel("b (s/mm²)", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_ylim(-0.06 * gradients.bvals_s_mm2.max(), 1.12 * gradients.bvals_s_mm2.max())


def _signal_panel(
    axes: Axes, gradients: GradientTable, signal: Float[np.ndarray, " volume"]
) -> None:
    volumes, members = np.arange(len(signal)), gradients.b0_mask
    relative = signal / max(float(np.nanmax(signal)), np.finfo(float).tiny)
    axes.bar(volumes[members], relative[members], width=0.8, color="#777777")
    for _, members, color in _coloured_shells(gradients):
        axes.bar(volumes[members], relative[members], width=0.8, color=color)
    axes.set_xlabel("volume", fontsize=9)
    axes.set_ylabel("mean signal", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_ylim(0, 1.1)


def _shell_table(axes: Axes, gradients: GradientTable) -> None:
    axes.set_axis_off()
    rows = _shell_rows(gradients)
    cells = [[name, str(count), spread] for name, _, count, spread in rows]
    table = axes.table(
        cellText=cells,
        colLabels=["shell (s/mm²)", "volumes", "b-values"],
        loc="upper center",
        cellLoc="center",
        edges="horizontal",
    )
    table.auto_set_font_size(False)  # noqa: FBT003 - matplotlib's signature
    table.set_fontsize(9)
    table.scale(1.0, 1.4)
    for number, (_, color, _, _) in enumerate(rows, start=1):
        table[number, 0].get_text().set_color(color)
        table[number, 0].get_text().set_fontweight("bold")


def _shell_rows(gradients: GradientTable) -> list[tuple[str, str, int, str]]:
    """Name, colour, number of volumes and b-values of each shell; the last of many in one row."""
    rows = [("b=0", _GREY, int(gradients.b0_mask.sum()), "")]
    shells = _coloured_shells(gradients)
    own = len(shells) if len(shells) <= _MOST_ROWS else _MOST_ROWS - 1
    for mean, members, color in shells[:own]:
        bvals = gradients.bvals_s_mm2[members]
        name = f"b≈{mean:.0f}" if np.ptp(bvals) else f"b={mean:.0f}"
        rows.append((name, color, len(bvals), _range_of(bvals)))
    if rest := shells[own:]:
        bvals = gradients.bvals_s_mm2[np.any([members for _, members, _ in rest], axis=0)]
        rows.append((f"and {len(rest)} more", _GREY, len(bvals), _range_of(bvals)))
    return rows


def _range_of(bvals_s_mm2: Float[np.ndarray, " volume"]) -> str:
    low, high = bvals_s_mm2.min(), bvals_s_mm2.max()
    return f"{low:.0f} to {high:.0f}" if low < high else f"{low:.0f}"


def _hemisphere(axes: Axes, gradients: GradientTable, sign: int) -> None:
    axes.set_aspect("equal")
    axes.set_axis_off()
    axes.set_xlim(-1.25, 1.25)
    axes.set_ylim(-1.15, 1.15)
    for tilt_deg in (30, 60, 90):
        radius = np.sqrt(2.0) * np.sin(np.deg2rad(tilt_deg) / 2)
        axes.add_patch(Circle((0, 0), radius, fill=False, color="#cccccc", linewidth=0.6))
    axes.plot([-1, 1], [0, 0], [0, 0], [-1, 1], color="#cccccc", linewidth=0.6, zorder=0)
    for _, members, color in _coloured_shells(gradients):
        vectors = gradients.bvecs[members] * [1.0, 1.0, float(sign)]
        for side, face in ((vectors, color), (-vectors, "none")):
            seen = equal_area(side[side[:, 2] >= 0])
            x, y = seen.T
            axes.scatter(x, y, s=30, facecolors=face, edgecolors=color, linewidths=0.9)
    _sides(axes)


def _sides(axes: Axes) -> None:
    # x keeps its side in both discs: the lower one is looked at through the sphere.
    for x, y, text in ((-1.1, 0, "L"), (1.1, 0, "R"), (0, 1.08, "A"), (0, -1.08, "P")):
        axes.text(x, y, text, ha="center", va="center", fontsize=10, color=TEXT_ON_LIGHT)
