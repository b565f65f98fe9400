"""Peaks of the fODF as sticks over a slice of each plane, and a close-up of the fODFs."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from scipy import ndimage

from difftract_bids.core.fodf_peaks import all_peaks
from difftract_bids.reports.drawing.compress import with_palette
from difftract_bids.reports.drawing.mosaic import (
    PLANES,
    Canonical,
    Panel,
    annotate,
    bounding_box,
    grown,
)
from difftract_bids.reports.drawing.paint import paint_segments, shrink
from difftract_bids.reports.drawing.style import (
    TEXT_ON_DARK,
    direction_colors,
    new_figure,
    save_svg,
)
from difftract_bids.reports.fodf.glyphs import draw_glyphs

_MAX_PEAKS = 3
#: A second peak is shown from this share of the first one, and this far from it.
_RELATIVE_THRESHOLD, _SEPARATION_DEG = 0.3, 25.0
_CLOSE_UP_MM = 48.0
_WIDTH_IN, _WHOLE_IN, _GAP_IN = 14.0, 5.0, 0.06
#: Grey of FA 1: sticks and shapes stand out from what is darker.
_WHITE_WHOLE, _WHITE_CLOSE = 1.5, 2.5
#: Of the longest stick's amplitude, the share at which a shape fills its voxel: where fibres
#: cross, amplitudes are lower than in bundles of one direction.
_MAGNIFIED = 0.6
#: Width of the picture of a close-up.
_CLOSE_PIXELS = 820
#: Width of the picture of a whole slice; its lines are painted on a finer one.
_WHOLE_PIXELS, _FINER, _STICK_WIDTH = 640, 3, 4


def plot_fodf_peaks(
    sh_coeffs: Float[np.ndarray, "x y z coeff"],
    fa: Float[np.ndarray, "x y z"],
    mask: Bool[np.ndarray, "x y z"],
    vox2ras: Float[np.ndarray, "4 4"],
    path: str | os.PathLike[str],
    *,
    cutoff: float = 0.1,
) -> Path:
    """Draw up to three fODF peaks per voxel over FA, and whole fODFs in a close-up, in each plane.

    The slices are those with most anisotropy, the close-ups go where most fibres cross. A stick's
    length is proportional to its peak's amplitude, its colour is its direction; it is
    foreshortened where it leaves the slice. Shapes are as long as their
    amplitudes too, and made smaller where they would leave their voxel.

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
        there, slice_fa = whole.take(inside), whole.take(grey).astype(np.float64)
        peaks = np.zeros((*there.shape, _MAX_PEAKS, 3))
        peaks[there] = fodf_peaks(whole.take(fodf)[there], cutoff=cutoff)
        full = _full_amplitude(peaks, cutoff)
        _draw_sticks(whole, peaks, slice_fa / _WHITE_WHOLE, grid.rotation, full=full)
        aim = _aim(close_up, slice_fa, peaks)
        framed = replace(close_up, box=_voxels_in(close_up, aim))
        draw_glyphs(
            framed,
            framed.take(fodf),
            framed.take(inside).astype(bool),
            framed.take(grey).astype(np.float64) / _WHITE_CLOSE,
            grid.rotation,
            full=_MAGNIFIED * full,
            pixels=round(_CLOSE_PIXELS * framed.voxel_sizes_mm.min() / _CLOSE_UP_MM),
        )
        close_up.axes.set_xlim(*aim[0])
        close_up.axes.set_ylim(*aim[1])
        _frame(whole, aim)
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
    heights = [_WHOLE_IN * extent_mm[up] / extent_mm[across] for _, across, up in PLANES.values()]
    total = sum(heights) + _GAP_IN * (len(heights) + 1)
    figure = new_figure(_WIDTH_IN, total, dark=True)
    close_in = _WIDTH_IN - _WHOLE_IN - 3 * _GAP_IN
    pairs = []
    top = total
    for (plane, (axis, across, up)), height in zip(PLANES.items(), heights, strict=True):
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


_Window = tuple[tuple[float, float], tuple[float, float]]


def _aim(
    close_up: Panel, fa: Float[np.ndarray, "v h"], peaks: Float[np.ndarray, "v h 3 3"]
) -> _Window:
    """Choose where fibres cross, in the right half of a picture that has one: mm across and up."""
    across, up = close_up.centres_mm()
    left, right, bottom, top = close_up.extent_mm
    frame = close_up.axes.get_window_extent()
    size = np.array([1.0, frame.height / frame.width]) * _CLOSE_UP_MM
    # Far from the brain's edge, where noise crosses as freely as fibres do.
    _, *plane_axes = PLANES[close_up.plane]
    steps_mm = close_up.voxel_sizes_mm[plane_axes[::-1]]  # up, across
    depth_mm = ndimage.distance_transform_edt(fa > 0, steps_mm)
    crossing = np.linalg.norm(peaks[:, :, 1], axis=-1) ** 2
    weight = np.where(fa > 0.2, crossing * depth_mm, 0.0)
    if close_up.plane != "sagittal":
        weight *= across > (left + right) / 2
    spread = _CLOSE_UP_MM / 5 / steps_mm
    row, column = np.unravel_index(ndimage.gaussian_filter(weight, spread).argmax(), weight.shape)
    window = []
    for centre, length, (low, high) in (
        (across[column], size[0], (left, right)),
        (up[row], size[1], (bottom, top)),
    ):
        middle = min(max(centre, low + length / 2), max(high - length / 2, low + length / 2))
        window.append((float(middle - length / 2), float(middle + length / 2)))
    return window[0], window[1]


def _voxels_in(
    panel: Panel, window: _Window
) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Find the voxels of a panel's slice that a window shows, also those that it cuts."""
    _, *plane_axes = PLANES[panel.plane]
    box = list(panel.box)
    for axis, (low, high) in zip(plane_axes, window, strict=True):
        first, last = np.array([low, high]) / panel.voxel_sizes_mm[axis] + 0.5
        box[axis] = (
            max(box[axis][0], int(np.floor(first))),
            min(box[axis][1], int(np.ceil(last))),
        )
    return box[0], box[1], box[2]


def _full_amplitude(peaks: Float[np.ndarray, "v h 3 3"], cutoff: float) -> float:
    """Choose the amplitude that is drawn as long as a voxel: few peaks exceed it."""
    largest = np.linalg.norm(peaks[:, :, 0], axis=-1)
    return float(np.percentile(largest[largest > 0], 95)) if largest.any() else max(cutoff, 1e-6)


def _draw_sticks(
    panel: Panel,
    peaks: Float[np.ndarray, "v h 3 3"],
    background: Float[np.ndarray, "v h"],
    rotation: Float[np.ndarray, "3 3"],
    *,
    full: float,
) -> None:
    _, *plane_axes = PLANES[panel.plane]
    sizes_mm = panel.voxel_sizes_mm[plane_axes]
    left, _, bottom, _ = panel.extent_mm
    per_mm = max(_WHOLE_PIXELS / (sizes_mm[0] * background.shape[1]), 4 / sizes_mm.min())
    pixels = _FINER * np.round(per_mm * sizes_mm).astype(int)  # of a voxel: across, up
    canvas = np.kron(background, np.ones(pixels[::-1])).astype(np.float32)
    canvas = np.repeat(canvas[..., None], 3, axis=-1)
    segments_mm, colors = stick_segments(panel, peaks, rotation, full=full)
    places = (segments_mm - [left, bottom]) * pixels / sizes_mm
    paint_segments(canvas, places, colors, width=_STICK_WIDTH)
    panel.show(with_palette(shrink(canvas, _FINER)))


def stick_segments(
    panel: Panel,
    peaks: Float[np.ndarray, "v h 3 3"],
    rotation: Float[np.ndarray, "3 3"],
    *,
    full: float,
) -> tuple[Float[np.ndarray, "stick 2 2"], Float[np.ndarray, "stick 3"]]:
    """Place a stick for every peak of a slice: through its voxel's centre, along the peak.

    Parameters
    ----------
    panel
        The slice.
    peaks
        Directions times amplitudes, scanner axes.
    rotation
        Unit columns: the grid's axes in scanner axes.
    full
        Amplitude of a stick as long as a voxel.

    Returns
    -------
    segments_mm
        Both ends (across, up), in the units of the panel's axes.
    colors
        Of each, 0 to 1.
    """
    _, *plane_axes = PLANES[panel.plane]
    across, up = panel.centres_mm()
    amplitude = np.linalg.norm(peaks, axis=-1)
    rows, columns, number = np.nonzero(amplitude > 0)
    sticks, size = peaks[rows, columns, number], amplitude[rows, columns, number, None]
    half_mm = 0.5 * panel.voxel_sizes_mm[plane_axes].min() * np.clip(size / full, 0.1, 1.1)
    # Scanner axes to the grid's: on an oblique grid a stick must follow its voxels.
    half = (sticks / size * half_mm) @ rotation[:, plane_axes]
    middle = np.stack([across[columns], up[rows]], axis=1)
    colors = direction_colors(sticks)
    ends = np.stack([middle - half, middle + half], axis=1)
    return ends, colors / np.maximum(colors.max(axis=1, keepdims=True), 1e-6)


def _frame(panel: Panel, window: _Window) -> None:
    (left, right), (bottom, top) = window
    box = Rectangle(
        (left, bottom), right - left, top - bottom, fill=False, color=TEXT_ON_DARK, linewidth=0.8
    )
    panel.axes.add_patch(box)
