"""Head motion over a run: where the head was, how far it moved, and which slices fell out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap

from difftract_bids.reports.drawing.style import (
    CATEGORIES,
    TEXT_ON_LIGHT,
    new_figure,
    save_svg,
    sequential_map,
)

_OUTLIER = "#d55e00"
_EMPTY = "#f2f2f2"
#: Axes show at least so much, so that noise does not look like motion.
_LEAST_MM, _LEAST_DEG, _LEAST_FD_MM = 0.5, 0.5, 1.0


def plot_motion(
    confounds: Mapping[str, Float[np.ndarray, " volume"]],
    outliers: Bool[np.ndarray, "slice volume"],
    path: str | os.PathLike[str],
) -> Path:
    """Draw translations, rotations, framewise displacement and outliers in acquisition order.

    Parameters
    ----------
    confounds
        Columns of the table of confounds: ``trans_x`` (mm) to ``rot_z`` (radians),
        ``framewise_displacement`` (mm) and ``bval`` (s/mm²).
    outliers
        Flagged slices.
    path
        SVG to write.

    Returns
    -------
    Path
        The absolute path written.
    """
    figure = new_figure(14, 7.6)
    heights = (0.19, 0.19, 0.15, 0.20, 0.025)
    bottoms = (0.76, 0.535, 0.35, 0.115, 0.06)
    panels = [
        figure.add_axes((0.07, bottom, 0.83, height))
        for bottom, height in zip(bottoms, heights, strict=True)
    ]
    shifts = [confounds[f"trans_{axis}"] for axis in "xyz"]
    _curves(panels[0], shifts, ("right", "front", "up"), _LEAST_MM, "translation (mm)")
    turns = [np.rad2deg(confounds[f"rot_{axis}"]) for axis in "xyz"]
    names = ("pitch (x)", "roll (y)", "yaw (z)")
    _curves(panels[1], turns, names, _LEAST_DEG, "rotation (°)")
    _displacement(panels[2], confounds["framewise_displacement"])
    _outlier_map(panels[3], outliers)
    _bval_strip(panels[4], confounds["bval"])
    for axes in panels:
        axes.set_xlim(-0.5, len(confounds["bval"]) - 0.5)
        axes.tick_params(labelsize=8)
    for axes in panels[:-1]:
        axes.tick_params(labelbottom=False)
    panels[0].set_title(
        "Position of the head at each volume, relative to the first b=0 volume",
        fontsize=10,
        color=TEXT_ON_LIGHT,
    )
    panels[-1].set_xlabel("volume, in the order of acquisition", fontsize=9)
    return save_svg(figure, path)


def _curves(
    axes: Axes,
    curves: list[Float[np.ndarray, " volume"]],
    names: tuple[str, str, str],
    least: float,
    label: str,
) -> None:
    # Blue, vermilion and green stay apart for every kind of colour vision; dashes help in grey.
    for values, name, color, style in zip(
        curves, names, CATEGORIES[:3], ("-", "--", "-."), strict=True
    ):
        axes.plot(values, style, color=color, linewidth=1.3, label=name)
    axes.axhline(0, color="#bbbbbb", linewidth=0.6, zorder=0)
    reach = 1.1 * max(least, float(np.nanmax(np.abs(curves))))
    axes.set_ylim(-reach, reach)
    axes.set_ylabel(label, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8)


def _displacement(axes: Axes, moved_mm: Float[np.ndarray, " volume"]) -> None:
    axes.bar(np.arange(len(moved_mm)), np.nan_to_num(moved_mm), color="#777777", width=0.8)
    mean = float(np.nanmean(moved_mm)) if np.isfinite(moved_mm).any() else 0.0
    largest = float(np.nanmax(moved_mm)) if np.isfinite(moved_mm).any() else 0.0
    axes.axhline(mean, color=CATEGORIES[0], linewidth=1.0)
    axes.set_ylim(0, 1.1 * max(_LEAST_FD_MM, largest))
    axes.set_ylabel("framewise\ndisplacement (mm)", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.text(
        1.005,
        0.98,
        f"mean {mean:.2f} mm\nlargest {largest:.2f} mm",
        transform=axes.transAxes,
        va="top",
        fontsize=8,
        color=TEXT_ON_LIGHT,
    )


def _outlier_map(axes: Axes, outliers: Bool[np.ndarray, "slice volume"]) -> None:
    axes.imshow(
        outliers,
        aspect="auto",
        origin="lower",
        interpolation="nearest",
        cmap=ListedColormap([_EMPTY, _OUTLIER]),
        vmin=0,
        vmax=1,
        rasterized=True,
    )
    axes.set_ylabel("slice", fontsize=9)
    n_slices, n_volumes = int(outliers.sum()), int(outliers.any(axis=0).sum())
    axes.text(
        1.005,
        0.98,
        f"slices that fell\nout: {n_slices}\nin volumes: {n_volumes}",
        transform=axes.transAxes,
        va="top",
        fontsize=8,
        color=_OUTLIER if n_slices else TEXT_ON_LIGHT,
    )


def _bval_strip(axes: Axes, bvals_s_mm2: Float[np.ndarray, " volume"]) -> None:
    largest = float(max(bvals_s_mm2.max(), 1.0))
    axes.imshow(
        bvals_s_mm2[None],
        aspect="auto",
        interpolation="nearest",
        cmap=sequential_map("cividis"),
        vmin=0,
        vmax=largest,
        rasterized=True,
    )
    axes.set_yticks([])
    axes.set_ylabel("b", fontsize=9, rotation=0, ha="right", va="center")
    axes.text(
        1.005,
        0.5,
        f"0 (dark) to {largest:.0f} s/mm²",
        transform=axes.transAxes,
        va="center",
        fontsize=8,
        color=TEXT_ON_LIGHT,
    )
