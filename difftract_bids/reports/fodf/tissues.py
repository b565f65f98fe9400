"""Tissues of a multi-tissue fODF model: shares of the signal, and their normalisation."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from difftract_bids.reports.drawing.mosaic import Mosaic, Panel
from difftract_bids.reports.drawing.style import TEXT_ON_DARK, save_svg

#: As users of MRtrix have them: CSF red, grey matter green, white matter blue.
_CHANNELS = ("CSF", "GM", "WM")
#: How far apart the lines of the normalisation field may be, and how many there may be.
_FIELD_STEPS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_MAX_LINES = 10


def plot_tissues(
    tissues: Mapping[str, Float[np.ndarray, "x y z"]],
    mask: Bool[np.ndarray, "x y z"],
    vox2ras: Float[np.ndarray, "4 4"],
    path: str | os.PathLike[str],
    *,
    field: Float[np.ndarray, "x y z"] | None = None,
) -> Path:
    """Draw the share of each tissue in three planes, with lines of the normalisation field.

    Parameters
    ----------
    tissues
        Coefficient of degree 0 of ``WM``, ``CSF``, and ``GM`` if the model has it.
    mask
        Brain; black outside.
    vox2ras
        Voxels to RAS+ millimetres.
    path
        SVG to write.
    field
        What the tissues were divided by; its lines are numbered in shares of its mean.

    Returns
    -------
    Path
        The absolute path written.
    """
    mosaic = Mosaic(mask, vox2ras)
    colors = mosaic.grid.turn(np.round(255 * tissue_shares(tissues, mask)).astype(np.uint8))
    turned_mask = mosaic.grid.turn(mask).astype(bool)
    lines, levels = None, np.zeros(0)
    if field is not None and mask.any():
        relative = field / float(np.mean(field[mask]))
        lines, levels = mosaic.grid.turn(relative), _levels(relative[mask])
    for panel in mosaic:
        panel.show(panel.take(colors))
        if lines is not None and len(levels):
            outside = np.asarray(panel.take(turned_mask) == 0)
            _draw_field(panel, np.ma.masked_array(panel.take(lines), outside), levels)
    return save_svg(mosaic.figure, path)


def tissue_shares(
    tissues: Mapping[str, Float[np.ndarray, "x y z"]], mask: Bool[np.ndarray, "x y z"]
) -> Float[np.ndarray, "x y z 3"]:
    """Give red, green and blue their tissue's share of the sum, 0 to 1; black outside the mask."""
    like = next(iter(tissues.values()))
    amounts = np.stack(
        [np.nan_to_num(tissues.get(name, np.zeros_like(like))) for name in _CHANNELS], axis=-1
    ).clip(min=0.0)
    total = amounts.sum(axis=-1, keepdims=True)
    return np.where(mask[..., None], amounts / np.where(total > 0, total, 1.0), 0.0)


def _levels(values: Float[np.ndarray, " voxel"]) -> Float[np.ndarray, " level"]:
    """Choose at which values lines are drawn: round ones, the same in every slice."""
    low, high = float(values.min()), float(values.max())
    enough = (step for step in _FIELD_STEPS if high - low <= _MAX_LINES * step)
    step = next(enough, _FIELD_STEPS[-1])
    if high - low < step:
        return np.zeros(0)
    return step * np.arange(np.ceil(low / step), np.floor(high / step) + 1)[:_MAX_LINES]


def _draw_field(
    panel: Panel, relative: np.ma.MaskedArray[Any, Any], levels: Float[np.ndarray, " level"]
) -> None:
    if min(relative.shape) < 2 or not relative.count():
        return
    inside = levels[(levels >= relative.min()) & (levels <= relative.max())]
    if not len(inside):
        return
    across, up = panel.centres_mm()
    drawn = panel.axes.contour(
        across, up, relative, levels=inside, colors=TEXT_ON_DARK, linewidths=0.6, alpha=0.8
    )
    panel.axes.clabel(drawn, fontsize=5, fmt="%.2f")
