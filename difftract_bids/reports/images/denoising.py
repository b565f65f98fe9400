"""What denoising did: one slice before and after, what was taken away, and the noise."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from difftract_bids.reports.drawing.mosaic import (
    PLANES,
    Canonical,
    Panel,
    annotate,
    bounding_box,
    grey_window,
    grown,
)
from difftract_bids.reports.drawing.style import TEXT_ON_DARK, new_figure, save_svg

_WIDTH_IN, _GAP_IN, _HEAD_IN = 14.0, 0.05, 0.3
#: What was taken away is drawn from minus to plus so many standard deviations of the noise.
_RESIDUAL_SD = 3.0


def plot_denoising(
    before: tuple[Float[np.ndarray, "x y z"], Float[np.ndarray, "x y z"]],
    after: tuple[Float[np.ndarray, "x y z"], Float[np.ndarray, "x y z"]],
    maps: tuple[Float[np.ndarray, "x y z"], Float[np.ndarray, "x y z"]],
    mask: Bool[np.ndarray, "x y z"],
    vox2ras: Float[np.ndarray, "4 4"],
    path: str | os.PathLike[str],
    *,
    b_s_mm2: float,
) -> Path:
    """Draw a b=0 and a weighted volume before and after, their difference, and two noise maps.

    Anatomy in a difference, or in the map of its size, is signal that was lost.

    Parameters
    ----------
    before, after
        A b=0 and a diffusion-weighted volume.
    maps
        Noise standard deviation, and the root mean square of what was taken away, over volumes.
    mask
        Brain: it sets windows and field of view.
    vox2ras
        Voxels to RAS+ millimetres.
    path
        SVG to write.
    b_s_mm2
        b-value of the weighted volume.

    Returns
    -------
    Path
        The absolute path written.
    """
    grid = Canonical(vox2ras, mask.shape)
    inner = bounding_box(grid.turn(mask).astype(bool))
    box = grown(inner, grid.turn(mask).shape, grid.voxel_sizes_mm)
    index = round(inner[2][0] + 0.55 * (inner[2][1] - 1 - inner[2][0]))
    figure, rows = _layout(box, grid.voxel_sizes_mm)
    noise = _typical(maps[0], mask)
    window = {"cmap": "gray", "vmin": -_RESIDUAL_SD * noise, "vmax": _RESIDUAL_SD * noise}
    noise_window = {"cmap": "viridis", "vmin": 0.0, "vmax": 2.0 * noise}
    names = ("b=0", f"b={b_s_mm2:.0f} s/mm²")
    map_names = (f"noise SD, 0 to {2 * noise:.3g}", "removed, RMS, same scale")
    for row, name, raw, clean, noise_map, map_name in zip(
        rows, names, before, after, maps, map_names, strict=True
    ):
        grey = grey_window(clean, mask)
        pictures: tuple[tuple[str, NDArray[np.generic], dict[str, Any]], ...] = (
            (f"{name}, before", raw, grey),
            ("denoised", clean, grey),
            (f"removed, ±{_RESIDUAL_SD:g} SD", raw - clean, window),
            (map_name, noise_map, noise_window),
        )
        for number, (axes, (title, picture, style)) in enumerate(zip(row, pictures, strict=True)):
            panel = Panel(axes, "axial", index, box, grid.voxel_sizes_mm)
            panel.show(panel.take(grid.turn(np.asarray(picture))), **style)
            height_mm = grid.slice_mm(2, index, box)
            annotate(axes, "axial", f"z = {height_mm:.0f} mm", sides=number == 0)
            axes.set_title(title, color=TEXT_ON_DARK, fontsize=9, pad=3)
    return save_svg(figure, path)


def _layout(
    box: tuple[tuple[int, int], ...], sizes_mm: Float[np.ndarray, " 3"]
) -> tuple[Figure, list[list[Axes]]]:
    _, across, up = PLANES["axial"]
    size_mm = [(last - first) * size for (first, last), size in zip(box, sizes_mm, strict=True)]
    cell = (_WIDTH_IN - 5 * _GAP_IN) / 4
    height = cell * size_mm[up] / size_mm[across]
    total = 2 * (height + _HEAD_IN) + _GAP_IN
    figure = new_figure(_WIDTH_IN, total, dark=True)
    rows = []
    for row in range(2):
        bottom = total - (row + 1) * (height + _HEAD_IN)
        places = [
            ((_GAP_IN + column * (cell + _GAP_IN)) / _WIDTH_IN, bottom / total)
            for column in range(4)
        ]
        rows.append([figure.add_axes((x, y, cell / _WIDTH_IN, height / total)) for x, y in places])
    return figure, rows


def _typical(sigma: Float[np.ndarray, "x y z"], mask: Bool[np.ndarray, "x y z"]) -> float:
    inside = sigma[mask & (sigma > 0)]
    return float(np.median(inside)) if inside.size else 1.0
