"""The diffusion encoding: shells, and directions on the sphere."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.patches import Circle

from difftract_bids.io.gradients import GradientTable
from difftract_bids.reports.drawing.style import CATEGORIES, TEXT_ON_LIGHT, new_figure, save_svg


def plot_gradients(
    gradients: GradientTable,
    path: str | os.PathLike[str],
    *,
    signal: Float[np.ndarray, " volume"] | None = None,
) -> Path:
    """Draw a table of shells and every direction on the sphere, coloured by shell.

    The sphere is seen as two discs, from above (z > 0) and from below, by Lambert's equal-area
    projection, in which an even scheme looks even. Open marks are the antipodes: a direction and
    its opposite measure the same.

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
    for left, sign, title in ((0.34, 1, "seen from above"), (0.66, -1, "seen from below")):
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


def _color(shell: int) -> str:
    return CATEGORIES[shell % len(CATEGORIES)]


def _bvalue_panel(axes: Axes, gradients: GradientTable) -> None:
    volumes = np.arange(len(gradients.bvals_s_mm2))
    axes.scatter(
        volumes[gradients.b0_mask], gradients.bvals_s_mm2[gradients.b0_mask], s=9, color="#777777"
    )
    for number, (_, members) in enumerate(shell_members(gradients)):
        axes.scatter(volumes[members], gradients.bvals_s_mm2[members], s=9, color=_color(number))
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
    for number, (_, members) in enumerate(shell_members(gradients)):
        axes.bar(volumes[members], relative[members], width=0.8, color=_color(number))
    axes.set_xlabel("volume", fontsize=9)
    axes.set_ylabel("mean signal", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_ylim(0, 1.1)


def _shell_table(axes: Axes, gradients: GradientTable) -> None:
    axes.set_axis_off()
    rows = [("b=0", "grey", int(gradients.b0_mask.sum()), "")]
    for number, (mean, members) in enumerate(shell_members(gradients)):
        bvals = gradients.bvals_s_mm2[members]
        spread = f"{bvals.min():.0f} to {bvals.max():.0f}" if np.ptp(bvals) else f"{mean:.0f}"
        rows.append(
            (
                f"b≈{mean:.0f}" if np.ptp(bvals) else f"b={mean:.0f}",
                _color(number),
                len(bvals),
                spread,
            )
        )
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
        table[number, 0].get_text().set_color("#666666" if color == "grey" else color)
        table[number, 0].get_text().set_fontweight("bold")


def _hemisphere(axes: Axes, gradients: GradientTable, sign: int) -> None:
    axes.set_aspect("equal")
    axes.set_axis_off()
    axes.set_xlim(-1.25, 1.25)
    axes.set_ylim(-1.15, 1.15)
    for tilt_deg in (30, 60, 90):
        radius = np.sqrt(2.0) * np.sin(np.deg2rad(tilt_deg) / 2)
        axes.add_patch(Circle((0, 0), radius, fill=False, color="#cccccc", linewidth=0.6))
    axes.plot([-1, 1], [0, 0], [0, 0], [-1, 1], color="#cccccc", linewidth=0.6, zorder=0)
    for number, (_, members) in enumerate(shell_members(gradients)):
        vectors = gradients.bvecs[members] * [1.0, 1.0, float(sign)]
        for side, face in ((vectors, _color(number)), (-vectors, "none")):
            seen = equal_area(side[side[:, 2] >= 0])
            x, y = seen.T
            axes.scatter(x, y, s=30, facecolors=face, edgecolors=_color(number), linewidths=0.9)
    _sides(axes)


def _sides(axes: Axes) -> None:
    # x keeps its side in both discs: the lower one is looked at through the sphere.
    for x, y, text in ((-1.1, 0, "L"), (1.1, 0, "R"), (0, 1.08, "A"), (0, -1.08, "P")):
        axes.text(x, y, text, ha="center", va="center", fontsize=10, color=TEXT_ON_LIGHT)
