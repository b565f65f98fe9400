"""Before and after correction of motion and distortion: whether volumes lie on each other."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import ndimage

from difftract_bids.reports.drawing.mosaic import Panel, grey_window
from difftract_bids.reports.drawing.sampling import sampled
from difftract_bids.reports.drawing.style import OUTLINE
from difftract_bids.reports.flickers.flicker import write_flicker
from difftract_bids.reports.flickers.rows import Rows

#: Brightness of a wider surrounding is taken out: the coils' is corrected in one series only.
_SURROUNDING_MM = 15.0
#: White of the map of scatter: so much brighter than all but 3 % of the corrected brain.
_SCATTER_PERCENT, _SCATTER_ROOM = 97.0, 1.4


class ShellMaps(NamedTuple):
    """Mean and standard deviation over the volumes of a shell, with the grid they are on."""

    mean: Float[np.ndarray, "x y z"]
    scatter: Float[np.ndarray, "x y z"]
    vox2ras: Float[np.ndarray, "4 4"]


def shell_maps(
    series: Float[np.ndarray, "x y z t"],
    volumes: Bool[np.ndarray, " t"],
    vox2ras: Float[np.ndarray, "4 4"],
) -> ShellMaps:
    """Average the volumes of a shell, and say how much they scatter about that.

    Parameters
    ----------
    series, vox2ras
        All volumes, and their voxels to RAS+ millimetres.
    volumes
        Which are of the shell.
    """
    total = np.zeros(series.shape[:3], dtype=np.float64)
    squares = np.zeros_like(total)
    for number in np.flatnonzero(volumes):  # the shell at once would be a second series
        volume = series[..., number].astype(np.float64)
        total += volume
        squares += volume**2
    mean = total / volumes.sum()
    variance = np.maximum(squares / volumes.sum() - mean**2, 0.0)
    return ShellMaps(mean.astype(np.float32), np.sqrt(variance).astype(np.float32), vox2ras)


def flick_motion(
    before: ShellMaps,
    after: ShellMaps,
    mask: Bool[np.ndarray, "x y z"],
    path: str | os.PathLike[str],
    *,
    b_s_mm2: float,
) -> Path:
    """Show the mean and the scatter of a shell before and after correction in turn.

    Where volumes do not lie on each other, the mean is blurred, and the rim of the brain, where
    tissue meets nothing, scatters most. What stays is diffusion itself: tracts, which are bright
    in some directions and dark in others. What moves, along one axis, is distortion.

    Parameters
    ----------
    before, after
        :func:`shell_maps` of the series as acquired, on any grid, and of the corrected one.
    mask
        Brain on the grid of the corrected series; its outline is drawn on the means.
    path
        Part of a page (HTML) to write.
    b_s_mm2
        b-value of the shell.

    Returns
    -------
    Path
        The absolute path written.
    """
    shell = f"b={b_s_mm2:.0f} s/mm²"
    titles = (f"mean of the volumes of {shell}", "standard deviation over these volumes")
    evened = [_evened(maps, mask, after.vox2ras) for maps in (before, after)]
    windows = (grey_window(evened[1].mean, mask), _scatter_window(evened[1].scatter, mask))

    def drawn(maps: ShellMaps) -> Figure:
        rows = Rows(mask, after.vox2ras, titles)
        to_maps = np.linalg.inv(maps.vox2ras) @ rows.grid.vox2ras
        for row, volume, window in zip(rows, (maps.mean, maps.scatter), windows, strict=True):
            for panel in row:
                panel.show(sampled(panel, volume, to_maps), **window)
        inside = rows.grid.turn(mask)
        for panel in rows.upper:
            draw_outline(panel, inside)
        return rows.figure

    shown = f"mean and standard deviation over the volumes of {shell}"
    return write_flicker(
        drawn(evened[0]),
        drawn(evened[1]),
        path,
        title="Before and after correction of motion and distortion",
        alts=(f"Before correction: {shown}", f"After correction: {shown}"),
    )


def draw_outline(panel: Panel, inside: NDArray[np.generic]) -> None:
    """Draw the outline of a turned mask into a panel, thin enough to see what it lies on."""
    cut = panel.take(inside).astype(np.float64)
    if min(cut.shape) > 1 and cut.min() < cut.max():
        panel.axes.contour(*panel.centres_mm(), cut, levels=[0.5], colors=OUTLINE, linewidths=0.6)


def _evened(
    maps: ShellMaps, mask: Bool[np.ndarray, "x y z"], vox2ras: Float[np.ndarray, "4 4"]
) -> ShellMaps:
    """Divide by the brightness of a brain's wider surrounding."""
    pull = np.linalg.inv(vox2ras) @ maps.vox2ras
    brain = ndimage.affine_transform(
        mask.astype(np.float32), pull[:3, :3], pull[:3, 3], maps.mean.shape, order=1
    )
    sigma = _SURROUNDING_MM / np.linalg.norm(maps.vox2ras[:3, :3], axis=0)
    share = ndimage.gaussian_filter(brain, sigma)
    bright = ndimage.gaussian_filter(brain * maps.mean, sigma) / np.maximum(share, 1e-6)
    inside = bright[brain > 0]
    floor = 1e-3 * float(inside.max()) if inside.size else 0.0
    bright = np.maximum(bright, floor if floor > 0 else 1.0)
    return ShellMaps(maps.mean / bright, maps.scatter / bright, maps.vox2ras)


def _scatter_window(
    scatter: Float[np.ndarray, "x y z"], mask: Bool[np.ndarray, "x y z"]
) -> dict[str, Any]:
    high = float(np.percentile(scatter[mask], _SCATTER_PERCENT)) if mask.any() else 0.0
    return {"cmap": "gray", "vmin": 0.0, "vmax": _SCATTER_ROOM * high if high > 0 else 1.0}
