"""How fODFs came nearer to a target, and what it cost."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.ticker import MaxNLocator, PercentFormatter

from difftract_bids.checks.sides import side_of
from difftract_bids.reports.connectome.edges import mark_sides
from difftract_bids.reports.connectome.matrix import group_of, interpolation, node_order
from difftract_bids.reports.drawing.style import (
    CATEGORIES,
    TEXT_ON_LIGHT,
    new_figure,
    save_svg,
    sequential_map,
)

_PANEL_IN = 4.2
#: Order and titles of the matrices.
_SHOWN = {"target": "Target", "before": "Before", "after": "After"}
#: The scale of the matrices spans this many decades: soft edges go down to nothing.
_DECADES = 4


def plot_refinement(
    loss: Float[np.ndarray, " step"],
    misfit: Float[np.ndarray, " step"],
    path: str | os.PathLike[str],
    *,
    target: str,
    judged: Float[np.ndarray, " step"] | None = None,
    best_step: int | None = None,
    matrices: Mapping[str, Float[np.ndarray, "node node"]] | None = None,
    names: Sequence[str] = (),
) -> Path:
    """Draw loss and misfit over the steps, and the connectomes beside the target.

    Parameters
    ----------
    loss
        How far the tracked fODFs are from the target, from the start on, as each step sees it:
        with seeds of its own.
    misfit
        Squared difference of predicted and measured signal, as a share of the measured one's
        square, at the same steps.
    path
        SVG to write.
    target
        Name of the target.
    judged
        The same from seeds that are always the same, NaN at steps without.
    best_step
        Which step was taken.
    matrices
        ``target``, ``before`` and ``after``, of one scale; none for a tractogram.
    names
        Node names, in the matrices' order.

    Returns
    -------
    Path
        The absolute path written.

    Raises
    ------
    ValueError
        If a matrix does not have one row and one column per name, or losses and misfits are not
        of the same steps.
    """
    shown = {key: matrices[key] for key in _SHOWN if matrices and key in matrices}
    for key, matrix in shown.items():
        if matrix.shape != (len(names), len(names)):
            message = f"{key} of shape {matrix.shape} does not fit {len(names)} node names"
            raise ValueError(message)
    if len(loss) != len(misfit):
        message = f"{len(loss)} losses and {len(misfit)} misfits are not of the same steps"
        raise ValueError(message)
    n_panels = 1 + len(shown)
    figure = new_figure(_PANEL_IN * n_panels + 0.6, _PANEL_IN)
    panels = figure.subplots(1, n_panels, squeeze=False, width_ratios=[1.15] + [1] * len(shown))[0]
    left = 0.62 / figure.get_figwidth()
    # At the right of all there is a colour bar, or the axis of the misfit.
    right = 0.94 if shown else 1 - 0.85 / figure.get_figwidth()
    figure.subplots_adjust(left=left, right=right, bottom=0.13, top=0.84, wspace=0.22)
    _draw_course(panels[0], loss, misfit, judged)
    shortened = target if len(target) < 48 else f"...{target[-44:]}"
    panels[0].set_title(
        f"Towards {shortened}", fontsize=8.5, color=TEXT_ON_LIGHT, loc="left", pad=16
    )
    if best_step is not None:
        panels[0].axvline(best_step, color="#999999", linestyle=":", linewidth=1.2)
    if shown:
        _draw_matrices(panels[1:], shown, names)
    return save_svg(figure, path)


def edge_correlation(
    first: Float[np.ndarray, "node node"], second: Float[np.ndarray, "node node"]
) -> float:
    """Correlate the edges between different nodes; NaN where one matrix is constant."""
    above = np.triu_indices(len(first), k=1)
    one, other = first[above], second[above]
    if one.size < 2 or not (np.ptp(one) > 0 and np.ptp(other) > 0):
        return float("nan")
    return float(np.corrcoef(one, other)[0, 1])


def _draw_course(
    axes: Axes,
    loss: Float[np.ndarray, " step"],
    misfit: Float[np.ndarray, " step"],
    judged: Float[np.ndarray, " step"] | None,
) -> None:
    """Draw the two curves with an axis each: they have no common unit."""
    steps = np.arange(len(loss))
    other = axes.twinx()
    own = np.full(len(loss), np.nan) if judged is None else judged
    # After the last step only the fixed seeds are tracked: that is a dot, and no turn of the line.
    course = np.where(loss == own, np.nan, loss)
    for panel, values, color, label in (
        (axes, course, CATEGORIES[0], "loss (line: as the steps see it; dots: fixed seeds)"),
        (other, misfit, CATEGORIES[1], "misfit of the signal"),
    ):
        panel.plot(steps, values, color=color, alpha=0.5 if judged is not None else 1.0)
        panel.set_ylabel(label, color=color, fontsize=8)
        panel.tick_params(axis="y", colors=color, labelsize=7.5)
        panel.spines[["top"]].set_visible(False)
    axes.plot(steps, own, color=CATEGORIES[0], marker="o", markersize=4, linestyle="")
    # From zero, so that a rise by a hair does not look like one.
    for panel, *shown in ((axes, loss, own), (other, misfit)):
        high = np.nanmax(np.concatenate([np.zeros(1), *shown]))
        panel.set_ylim(0, 1.08 * max(float(high), np.finfo(float).tiny))
    other.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.tick_params(axis="x", labelsize=7.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("step (dotted: the one that was taken)", fontsize=8)


def _draw_matrices(
    panels: Sequence[Axes],
    matrices: Mapping[str, Float[np.ndarray, "node node"]],
    names: Sequence[str],
) -> None:
    sides = [side_of(name) for name in names]
    order = node_order(sides, [group_of(name) for name in names])
    high = max(float(matrix.max()) for matrix in matrices.values()) or 1.0
    norm = LogNorm(high * 10.0**-_DECADES, high)
    for axes, (key, matrix) in zip(panels, matrices.items(), strict=True):
        ordered = matrix[np.ix_(order, order)]
        image = axes.imshow(
            np.ma.masked_where(~(ordered > norm.vmin), ordered),
            cmap=sequential_map(),
            norm=norm,
            interpolation=interpolation(len(names)),
            aspect="equal",
        )
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        r = edge_correlation(matrix, matrices["target"])
        said = _SHOWN[key] if key == "target" else f"{_SHOWN[key]}, r = {r:.2f} with the target"
        axes.set_title(said, fontsize=11, color=TEXT_ON_LIGHT, loc="left", pad=16)
        mark_sides(axes, [sides[i] for i in order])
    bar = panels[-1].figure.colorbar(image, cax=panels[-1].inset_axes((1.03, 0.0, 0.03, 0.6)))
    bar.set_label("soft streamlines (log scale; grey: fewer)", fontsize=8)
    bar.ax.tick_params(labelsize=7)
