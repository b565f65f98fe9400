"""Peaks of the fODF as sticks over two slices, with a close-up of each."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from scipy import ndimage

from difftract_bids.core.fodf_peaks import all_peaks
from difftract_bids.reports.mosaic import (
    PLANES,
    Canonical,
    Panel,
    annotate,
    bounding_box,
    grown,
)
from difftract_bids.reports.style import TEXT_ON_DARK, direction_colors, new_figure, save_svg

_MAX_PEAKS = 3
#: A second peak is shown from this share of the first one, and this far from it.
_RELATIVE_THRESHOLD, _SEPARATION_DEG = 0.3, 25.0
_SHOWN = ("axial", "coronal")
_CLOSE_UP_MM = 64.0
_WIDTH_IN, _WHOLE_IN, _GAP_IN = 14.0, 5.4, 0.06


def plot_fodf_peaks(
    sh_coeffs: Float[np.ndarray, "x y z coeff"],
    fa: Float[np.ndarray, "x y z"],
    mask: Bool[np.ndarray, "x y z"],
    vox2ras: Float[np.ndarray, "4 4"],
    path: str | os.PathLike[str],
    *,
    cutoff: float = 0.1,
) -> Path:
    """Draw up to three fODF peaks per voxel over FA, on an axial and a coronal slice.

    The slices are those with most anisotropy, the close-ups go where most fibres cross. A stick's
    length is proportional to its peak's amplitude, its colour is its direction; it is
    foreshortened where it leaves the slice.

    Parameters
    ----------
    sh_coeffs
        fODF in MRtrix's basis, scanner axes.
    fa
        Fractional anisotropy, the background.
    mask
        Brain.
    vox2ras
        Voxels to RAS+ millimetres.
    path
        SVG to write.
    cutoff
        Peaks below this amplitude are left out; give tracking's cutoff, and the sticks are what
        streamlines can follow.

    Returns
    -------
    Path
        The absolute path written.
    """
    grid = Canonical(vox2ras, mask.shape)
    inside = grid.turn(mask).astype(bool)
    fodf, grey = grid.turn(sh_coeffs), np.clip(np.nan_to_num(grid.turn(fa)), 0, 1) * inside
    figure, pairs = _layout(
        grid, grey, grown(bounding_box(inside), inside.shape, grid.voxel_sizes_mm)
    )
    for whole, close_up in pairs:
        there = whole.take(inside)
        peaks = np.zeros((*there.shape, _MAX_PEAKS, 3))
        peaks[there] = fodf_peaks(whole.take(fodf)[there], cutoff=cutoff)
        for view in (whole, close_up):
            view.show(whole.take(grey), cmap="gray", vmin=0.0, vmax=1.5)
        _aim(close_up, whole.take(grey).astype(np.float64), peaks)
        _draw_sticks(whole, peaks, grid.rotation, linewidth=0.8, vector=False)
        _draw_sticks(close_up, peaks, grid.rotation, linewidth=2.0, vector=True)
        _frame(whole, close_up)
    return save_svg(figure, path)


def fodf_peaks(
    sh_coeffs: Float[np.ndarray, "n coeff"], *, cutoff: float = 0.1
) -> Float[np.ndarray, "n 3 3"]:
    """Find the three largest peaks of each fODF, those that are worth a stick.

    Returns
    -------
    Float[np.ndarray, "n 3 3"]
        Unit direction times amplitude of each peak, scanner axes, largest first; zero if none.

    Raises
    ------
    FodfError
        If the number of coefficients is not that of an even degree from 2 to 12.
    """
    return all_peaks(
        torch.from_numpy(np.ascontiguousarray(sh_coeffs, dtype=np.float32)),
        _MAX_PEAKS,
        cutoff=cutoff,
        relative_cutoff=_RELATIVE_THRESHOLD,
        separation_deg=_SEPARATION_DEG,
    ).numpy()


def _layout(
    grid: Canonical,
    fa: NDArray[np.floating],
    box: tuple[tuple[int, int], tuple[int, int], tuple[int, int]],
) -> tuple[Figure, list[tuple[Panel, Panel]]]:
    """Lay out, per plane, the whole slice on the left and its close-up on the right."""
    extent_mm = np.array([last - first for first, last in box]) * grid.voxel_sizes_mm
    planes = {plane: PLANES[plane] for plane in _SHOWN}
    heights = [_WHOLE_IN * extent_mm[up] / extent_mm[across] for _, across, up in planes.values()]
    total = sum(heights) + _GAP_IN * (len(heights) + 1)
    figure = new_figure(_WIDTH_IN, total, dark=True)
    close_in = _WIDTH_IN - _WHOLE_IN - 3 * _GAP_IN
    pairs = []
    top = total
    for (plane, (axis, across, up)), height in zip(planes.items(), heights, strict=True):
        top -= height + _GAP_IN
        index = int(fa.sum(axis=(across, up)).argmax())
        whole, close_up = (
            Panel(
                figure.add_axes(
                    (left / _WIDTH_IN, top / total, width / _WIDTH_IN, height / total)
                ),
                plane,
                index,
                box,
                grid.voxel_sizes_mm,
            )
            for left, width in ((_GAP_IN, _WHOLE_IN), (_WHOLE_IN + 2 * _GAP_IN, close_in))
        )
        position_mm = grid.slice_mm(axis, index, box)
        annotate(whole.axes, plane, f"{'xyz'[axis]} = {position_mm:.0f} mm")
        close_up.axes.set_axis_off()
        pairs.append((whole, close_up))
    return figure, pairs


def _aim(
    close_up: Panel, fa: Float[np.ndarray, "v h"], peaks: Float[np.ndarray, "v h 3 3"]
) -> None:
    """Point a close-up at the crossing fibres of the right half of the picture."""
    across, up = close_up.centres_mm()
    left, right, bottom, top = close_up.extent_mm
    frame = close_up.axes.get_window_extent()
    size = np.array([1.0, frame.height / frame.width]) * _CLOSE_UP_MM
    # Far from the brain's edge, where noise crosses as freely as fibres do.
    depth_mm = ndimage.distance_transform_edt(fa > 0, (up[1] - up[0], across[1] - across[0]))
    weight = np.where(fa > 0.2, np.linalg.norm(peaks[:, :, 1], axis=-1) * depth_mm, 0.0)
    weight *= across > (left + right) / 2
    spread = _CLOSE_UP_MM / 5 / np.array([up[1] - up[0], across[1] - across[0]])
    row, column = np.unravel_index(ndimage.gaussian_filter(weight, spread).argmax(), weight.shape)
    for centre, length, (low, high), limit in (
        (across[column], size[0], (left, right), close_up.axes.set_xlim),
        (up[row], size[1], (bottom, top), close_up.axes.set_ylim),
    ):
        middle = min(max(centre, low + length / 2), max(high - length / 2, low + length / 2))
        limit(middle - length / 2, middle + length / 2)


def _draw_sticks(
    panel: Panel,
    peaks: Float[np.ndarray, "v h 3 3"],
    rotation: Float[np.ndarray, "3 3"],
    *,
    linewidth: float,
    vector: bool,
) -> None:
    _, *plane_axes = PLANES[panel.plane]
    across, up = panel.centres_mm()
    amplitude = np.linalg.norm(peaks, axis=-1)
    if not amplitude.any():
        return
    full = np.percentile(amplitude[:, :, 0][amplitude[:, :, 0] > 0], 95)
    rows, columns, number = np.nonzero((amplitude > 0) & _seen(panel)[..., None])
    sticks, size = peaks[rows, columns, number], amplitude[rows, columns, number, None]
    half_mm = 0.5 * panel.voxel_sizes_mm[plane_axes].min() * np.clip(size / full, 0.1, 1.1)
    # Scanner axes to the grid's: on an oblique grid a stick must follow its voxels.
    half = (sticks / size * half_mm) @ rotation[:, plane_axes]
    middle = np.stack([across[columns], up[rows]], axis=1)
    colors = direction_colors(sticks)
    lines = LineCollection(
        list(np.stack([middle - half, middle + half], axis=1)),
        colors=list(colors / colors.max(axis=1, keepdims=True)),
        linewidths=linewidth,
        capstyle="round",
    )
    lines.set_rasterized(not vector)
    panel.axes.add_collection(lines, autolim=False)


def _seen(panel: Panel) -> Bool[np.ndarray, "v h"]:
    """Tell which voxels lie in view: lines clipped away cost as many bytes as visible ones."""
    across, up = panel.centres_mm()
    (left, right), (bottom, top) = panel.axes.get_xlim(), panel.axes.get_ylim()
    return ((up >= bottom) & (up <= top))[:, None] & (across >= left) & (across <= right)


def _frame(panel: Panel, close_up: Panel) -> None:
    (left, right), (bottom, top) = close_up.axes.get_xlim(), close_up.axes.get_ylim()
    box = Rectangle(
        (left, bottom), right - left, top - bottom, fill=False, color=TEXT_ON_DARK, linewidth=0.8
    )
    panel.axes.add_patch(box)
