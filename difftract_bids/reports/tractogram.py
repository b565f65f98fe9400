"""Streamlines in three projections, coloured by direction."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import ndimage

from difftract_bids.reports.mosaic import PLANES, annotate
from difftract_bids.reports.style import TEXT_ON_DARK, direction_colors, new_figure, save_svg

_SEGMENT_MM = 1.5
#: Painted on a raster this much finer than the picture, which smooths the lines.
_PIXELS_PER_MM, _OVERSAMPLING = 4, 3
_OUTLINE_MM = 1.5  # grid on which the brain's shadow is outlined


def plot_tractogram(
    points_mm: Float[np.ndarray, "point 3"],
    offsets: Int[np.ndarray, " streamline_plus_1"],
    mask: Bool[np.ndarray, "x y z"],
    vox2ras: Float[np.ndarray, "4 4"],
    path: str | os.PathLike[str],
    *,
    max_streamlines: int = 5_000,
    n_total: int | None = None,
    random_seed: int = 0,
) -> Path:
    """Draw a random part of a tractogram from above, from behind and from the right.

    Parameters
    ----------
    points_mm
        Vertices of all streamlines, RAS+ millimetres.
    offsets
        Streamline i has the vertices from ``offsets[i]`` up to ``offsets[i + 1]``.
    mask
        Brain, whose shadow is outlined.
    vox2ras
        Its voxels to RAS+ millimetres.
    path
        SVG to write.
    max_streamlines
        Of more than these a random part is drawn.
    n_total
        Streamlines that those given are a part of; as many as are given if left out.
    random_seed
        Seed of that choice.

    Returns
    -------
    Path
        The absolute path written.
    """
    n_streamlines = len(offsets) - 1
    chosen = np.random.default_rng(random_seed).permutation(n_streamlines)[:max_streamlines]
    segments = _segments(points_mm, offsets, chosen)
    colors = direction_colors(segments[:, 1] - segments[:, 0])
    brain_mm = np.argwhere(mask) @ vox2ras[:3, :3].T + vox2ras[:3, 3]
    low, high = _field_of_view(brain_mm, segments)
    figure, axes_of = _layout(
        high - low, f"{len(chosen):,} of {n_total or n_streamlines:,} streamlines"
    )
    for plane, axes in axes_of.items():
        _, across, up = PLANES[plane]
        axes.set_xlim(low[across], high[across])
        axes.set_ylim(low[up], high[up])
        _outline(axes, brain_mm[:, [across, up]])
        axes.imshow(
            _painted(segments[:, :, [across, up]], colors, low[[across, up]], high[[across, up]]),
            origin="lower",
            extent=(low[across], high[across], low[up], high[up]),
            interpolation="bilinear",
        )
        annotate(axes, plane, "")
    return save_svg(figure, path, dpi=120)


def _segments(
    points_mm: Float[np.ndarray, "point 3"],
    offsets: Int[np.ndarray, " streamline_plus_1"],
    chosen: Int[np.ndarray, " n"],
) -> Float[np.ndarray, "segment 2 3"]:
    """Cut streamlines into segments of at most ``_SEGMENT_MM``, whatever their vertices."""
    parts = []
    for first, last in zip(offsets[chosen], offsets[chosen + 1], strict=True):
        line = points_mm[first:last]
        if len(line) < 2:
            continue
        steps_mm = np.linalg.norm(np.diff(line, axis=0), axis=1)
        travelled_mm = np.concatenate([[0.0], np.cumsum(steps_mm)])
        n = max(1, int(np.ceil(travelled_mm[-1] / _SEGMENT_MM)))
        places_mm = np.linspace(0.0, travelled_mm[-1], n + 1)
        even = np.stack([np.interp(places_mm, travelled_mm, axis) for axis in line.T], axis=1)
        parts.append(np.stack([even[:-1], even[1:]], axis=1))
    return np.concatenate(parts) if parts else np.zeros((0, 2, 3))


def _painted(
    segments: Float[np.ndarray, "segment 2 2"],
    colors: Float[np.ndarray, "segment 3"],
    low_mm: Float[np.ndarray, " 2"],
    high_mm: Float[np.ndarray, " 2"],
) -> NDArray[np.uint8]:
    """Paint projected segments one over the other, as RGBA (vertical, horizontal).

    By hand, because Matplotlib takes ten times as long to draw so many short lines.
    """
    fine = _PIXELS_PER_MM * _OVERSAMPLING
    columns, rows = (np.ceil((high_mm - low_mm) * _PIXELS_PER_MM).astype(int)) * _OVERSAMPLING
    canvas = np.zeros((rows, columns, 4), dtype=np.float32)
    start, stop = ((segments[:, end] - low_mm) * fine for end in (0, 1))
    longest = np.linalg.norm(stop - start, axis=1).max(initial=0.0)
    along = np.linspace(0, 1, max(2, int(np.ceil(longest)) + 1))
    points = (start[:, None] + along[:, None] * (stop - start)[:, None]).reshape(-1, 2).astype(int)
    paint = np.repeat(np.append(colors, np.ones((len(colors), 1)), axis=1), len(along), axis=0)
    # Where an index is repeated, NumPy keeps the last value: later streamlines lie on top.
    canvas[points[:, 1], points[:, 0]] = paint
    blocks = canvas.reshape(
        rows // _OVERSAMPLING, _OVERSAMPLING, columns // _OVERSAMPLING, _OVERSAMPLING, 4
    )
    blended = blocks.mean(axis=(1, 3))
    alpha = blended[..., 3:]
    blended[..., :3] /= np.where(alpha > 0, alpha, 1.0)
    return np.round(255 * blended).astype(np.uint8)


def _field_of_view(
    brain_mm: Float[np.ndarray, "n 3"], segments: Float[np.ndarray, "segment 2 3"]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    everything = np.concatenate([brain_mm, segments.reshape(-1, 3)])
    if not len(everything):
        everything = np.array([[-50.0] * 3, [50.0] * 3])
    return everything.min(axis=0) - 6.0, everything.max(axis=0) + 6.0


def _layout(extent_mm: NDArray[np.float64], text: str) -> tuple[Figure, dict[str, Axes]]:
    width_in, foot_in = 14.0, 0.25
    scale = width_in / sum(extent_mm[across] for _, across, _ in PLANES.values())
    tallest = scale * max(extent_mm[up] for *_, up in PLANES.values())
    total = tallest + foot_in
    figure = new_figure(width_in, total, dark=True)
    figure.text(0.995, 0.01, text, color=TEXT_ON_DARK, fontsize=9, ha="right", va="bottom")
    axes, left = {}, 0.0
    for plane, (_, across, up) in PLANES.items():
        width, height = scale * extent_mm[across], scale * extent_mm[up]
        bottom = foot_in + (tallest - height) / 2
        axes[plane] = figure.add_axes(
            (left / width_in, bottom / total, width / width_in, height / total), facecolor="none"
        )
        left += width
    return figure, axes


def _outline(axes: Axes, brain_mm: Float[np.ndarray, "n 2"]) -> None:
    """Outline the brain's shadow in scanner axes, oblique acquisitions included."""
    if not len(brain_mm):
        return
    low = brain_mm.min(axis=0) - 6.0
    cells = np.floor((brain_mm - low) / _OUTLINE_MM).astype(int)
    shadow = np.zeros(cells.max(axis=0) + 5)
    shadow[cells[:, 0], cells[:, 1]] = 1.0
    # Voxels are larger than the cells: closing fills the gaps between their centres.
    smooth = ndimage.gaussian_filter(ndimage.grey_closing(shadow, size=(5, 5)), 1.5)
    centres = [low[i] + (np.arange(shadow.shape[i]) + 0.5) * _OUTLINE_MM for i in (0, 1)]
    axes.contour(*centres, smooth.T, levels=[0.5], colors="#8a8a8a", linewidths=0.8)
