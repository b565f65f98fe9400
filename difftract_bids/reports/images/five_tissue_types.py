"""Tissues and template over the T1w: what anatomical constraints and atlases rest on."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from scipy import ndimage

from difftract_bids.reports.drawing.mosaic import Mosaic, Panel, grey_window
from difftract_bids.reports.drawing.style import TEXT_ON_DARK, save_svg
from difftract_bids.reports.images.outlines import plot_registration

#: Lines: the tissues within each (volumes of the 5TT image), and its colour.
_LINES = (
    ("surface of the brain", (0, 1, 2), "#e69f00"),
    ("white matter", (2,), "#56b4e9"),
    ("deep grey matter", (1,), "#ff5fa2"),
)
#: White matter is not white: see :func:`difftract_bids.reports.drawing.mosaic.grey_window`.
T1W_HEADROOM = 1.3
#: Lines follow shares that are smoothed a little, or each noisy voxel would have its own.
_SMOOTHING_VOXELS = 0.6


def plot_five_tissue_types(
    tissues: Float[np.ndarray, "x y z 5"],
    vox2ras: Float[np.ndarray, "4 4"],
    t1w: Float[np.ndarray, "i j k"],
    t1w_vox2ras: Float[np.ndarray, "4 4"],
    path: str | os.PathLike[str],
) -> Path:
    """Draw the surfaces of brain, white matter and deep grey matter over the T1w.

    Lines are where the tissues within make up half of a voxel; cortex is between the first two.

    Parameters
    ----------
    tissues, vox2ras
        5TT image, and its voxels to RAS+ millimetres.
    t1w, t1w_vox2ras
        T1w in the same space, on any grid.
    path
        SVG to write.

    Returns
    -------
    Path
        The absolute path written.
    """
    brain = np.asarray(tissues.sum(axis=-1) > 0.5)
    mosaic = Mosaic(brain, vox2ras)
    grey = mosaic.grid.turn(_on_grid(t1w, t1w_vox2ras, brain.shape, vox2ras))
    window = grey_window(grey, mosaic.grid.turn(brain).astype(bool), headroom=T1W_HEADROOM)
    for panel in mosaic:
        panel.show(panel.take(grey), **window)
    for _, kinds, color in _LINES:
        share = tissues[..., list(kinds)].sum(axis=-1, dtype=np.float32)
        smooth = mosaic.grid.turn(ndimage.gaussian_filter(share, _SMOOTHING_VOXELS))
        for panel in mosaic:
            _draw_line(panel, panel.take(smooth), color)
    mosaic.figure.legend(
        handles=[Line2D([], [], color=color, label=name) for name, _, color in _LINES],
        loc="upper right",
        fontsize=7,
        labelcolor=TEXT_ON_DARK,
        facecolor="black",
        edgecolor="none",
        framealpha=0.6,
        borderaxespad=0.1,
    )
    return save_svg(mosaic.figure, path)


def plot_template(
    template: Float[np.ndarray, "x y z"],
    brain: Bool[np.ndarray, "x y z"],
    vox2ras: Float[np.ndarray, "4 4"],
    t1w: Float[np.ndarray, "i j k"],
    t1w_vox2ras: Float[np.ndarray, "4 4"],
    path: str | os.PathLike[str],
) -> Path:
    """Draw the edges of a template, brought to the participant, over the T1w.

    Parameters
    ----------
    template, brain, vox2ras
        The template's T1w on a grid in the participant's space, the participant's brain on the
        same grid, and its voxels to RAS+ millimetres.
    t1w, t1w_vox2ras
        T1w in that space, on any grid.
    path
        SVG to write.

    Returns
    -------
    Path
        The absolute path written.
    """
    on_grid = _on_grid(t1w, t1w_vox2ras, brain.shape, vox2ras)
    return plot_registration(
        on_grid, brain, vox2ras, template, vox2ras, path, headroom=T1W_HEADROOM
    )


def _draw_line(panel: Panel, cut: NDArray[np.generic], color: str) -> None:
    if min(cut.shape) > 1 and cut.min() < 0.5 < cut.max():
        panel.axes.contour(*panel.centres_mm(), cut, levels=[0.5], colors=color, linewidths=0.7)


def _on_grid(
    volume: NDArray[np.generic],
    vox2ras: Float[np.ndarray, "4 4"],
    shape: tuple[int, ...],
    grid2ras: Float[np.ndarray, "4 4"],
) -> NDArray[np.float32]:
    pull = np.linalg.inv(vox2ras) @ grid2ras
    return ndimage.affine_transform(
        volume.astype(np.float32), pull[:3, :3], pull[:3, 3], shape, order=1
    )
