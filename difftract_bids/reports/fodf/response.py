"""Response functions: what the signal of each tissue looks like, as the fit assumes it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, StrMethodFormatter
from numpy.polynomial.legendre import legval

from difftract_bids.reports.drawing.style import TEXT_ON_LIGHT, new_figure, save_svg, shell_colors

#: Colours are shells'; tissues are told apart by their lines.
_TISSUE_LINES = {"WM": "o-", "GM": "s--", "CSF": "^:"}
_B0_COLOR = "#777777"

#: b-value of each shell (s/mm²), and its zonal coefficients, one row a shell.
Rows = tuple[tuple[float, ...], Float[np.ndarray, "shell order"]]


def plot_response(
    responses: Mapping[str, Rows],
    path: str | os.PathLike[str],
    *,
    shells_s_mm2: Sequence[float] | None = None,
) -> Path:
    """Draw the response of white matter against angle and as a glyph, and the decay of tissues.

    Parameters
    ----------
    responses
        b-values and zonal coefficients (MRtrix's convention) of ``WM``, and of ``GM`` and ``CSF``
        if the model has them.
    path
        SVG to write.
    shells_s_mm2
        Mean b-value of each diffusion-weighted shell of the images, ascending, as
        :func:`difftract_bids.reports.images.gradients.shell_members` lists them: colours are those
        of the nearest. Default: the shells of the response.

    Returns
    -------
    Path
        The absolute path written.
    """
    figure = new_figure(14, 4.6)
    bvals, coefficients = responses["WM"]
    colors = _shell_colors(bvals, shells_s_mm2)
    _angle_panel(figure.add_axes((0.05, 0.13, 0.28, 0.75)), bvals, coefficients, colors)
    glyphs = figure.add_axes((0.36, 0.10, 0.27, 0.70), projection="polar")
    _glyph_panel(glyphs, bvals, coefficients, colors)
    title = "the same as a shape: flat across the fibre"
    figure.text(0.495, 0.9, title, ha="center", fontsize=10)
    if max(len(bvals) for bvals, _ in responses.values()) > 1:
        _decay_panel(figure.add_axes((0.70, 0.13, 0.28, 0.75)), responses)
    return save_svg(figure, path)


def amplitudes(
    coefficients: Float[np.ndarray, " order"], angle_rad: Float[np.ndarray, " angle"]
) -> Float[np.ndarray, " angle"]:
    """Evaluate a zonal series at angles to the fibre.

    Parameters
    ----------
    coefficients
        Of degree 0, 2, 4, ..., MRtrix's convention.
    angle_rad
        Angles, radians.
    """
    series = np.zeros(2 * len(coefficients) - 1)
    degree = np.arange(0, len(series), 2)
    series[::2] = coefficients * np.sqrt((2 * degree + 1) / (4 * np.pi))
    return legval(np.cos(angle_rad), series)


def _shell_colors(
    bvals: tuple[float, ...], shells_s_mm2: Sequence[float] | None = None
) -> list[str]:
    """Give shells the colours that they have in the figure of the gradients."""
    shells = np.array([bval for bval in bvals if bval > 0])
    if shells_s_mm2 is not None and len(shells_s_mm2):
        shells = np.asarray(shells_s_mm2, dtype=float)
    colors = shell_colors(len(shells))
    return [
        colors[int(np.abs(shells - bval).argmin())] if bval > 0 else _B0_COLOR for bval in bvals
    ]


def _angle_panel(
    axes: Axes,
    bvals: tuple[float, ...],
    coefficients: Float[np.ndarray, "shell order"],
    colors: list[str],
) -> None:
    angle = np.linspace(0, np.pi / 2, 181)
    for bval, row, color in zip(bvals, coefficients, colors, strict=True):
        style = "-" if bval > 0 else "--"
        label = f"b={bval:.0f}"
        axes.plot(np.rad2deg(angle), amplitudes(row, angle), style, color=color, label=label)
    axes.set_title("white matter: signal against the angle to the fibre", fontsize=10)
    axes.set_xlabel("angle (degrees)", fontsize=9)
    axes.set_ylabel("signal", fontsize=9)
    axes.set_xlim(0, 90)
    axes.set_xticks(range(0, 91, 15))
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    axes.legend(fontsize=8, frameon=False, title="s/mm²", title_fontsize=8)
    _plain(axes)


def _glyph_panel(
    axes: Axes,
    bvals: tuple[float, ...],
    coefficients: Float[np.ndarray, "shell order"],
    colors: list[str],
) -> None:
    angle = np.linspace(0, 2 * np.pi, 361)  # to the fibre
    for bval, row, color in zip(bvals, coefficients, colors, strict=True):
        if bval > 0:  # b=0 is a circle that would dwarf the others
            radius = np.clip(amplitudes(row, angle), 0.0, None)
            axes.plot(angle + np.pi / 2, radius, color=color)
            axes.fill(angle + np.pi / 2, radius, color=color, alpha=0.12)
    axes.set_yticks([])
    # Angle 0 of these axes points to the right: the fibre is upright.
    axes.set_xticks(np.deg2rad([90, 180, 0, 270]), ["fibre", "across", "", ""])
    axes.tick_params(labelsize=8, colors=TEXT_ON_LIGHT)
    axes.spines["polar"].set_visible(False)
    axes.grid(linewidth=0.4)


def _decay_panel(axes: Axes, responses: Mapping[str, Rows]) -> None:
    for tissue, (bvals, coefficients) in responses.items():
        mean = coefficients[:, 0] / np.sqrt(4 * np.pi)
        axes.semilogy(
            bvals, np.clip(mean, 1e-6, None), _TISSUE_LINES[tissue], color=TEXT_ON_LIGHT, ms=4
        )
        axes.annotate(
            tissue,
            (bvals[-1], mean[-1]),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=TEXT_ON_LIGHT,
            fontweight="bold",
        )
    plain = StrMethodFormatter("{x:g}")
    axes.yaxis.set_major_formatter(plain)
    axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    axes.yaxis.set_minor_formatter(plain)
    axes.set_title("mean signal over all directions", fontsize=10)
    axes.set_xlabel("b (s/mm²)", fontsize=9)
    axes.margins(x=0.14)
    _plain(axes)


def _plain(axes: Axes) -> None:
    axes.tick_params(labelsize=8, which="both")
    axes.spines[["top", "right"]].set_visible(False)
