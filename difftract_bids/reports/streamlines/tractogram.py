"""Streamlines in three projections, coloured by direction."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from difftract_bids.reports.drawing.mosaic import PLANES, annotate
from difftract_bids.reports.drawing.paint import paint_segments, shrink
from difftract_bids.reports.drawing.projections import (
    add_projections,
    brain_points_mm,
    field_of_view,
    height_in,
    outline,
)
from difftract_bids.reports.drawing.style import (
    TEXT_ON_DARK,
    direction_colors,
    new_figure,
    save_svg,
)

_SEGMENT_MM = 1.5
#: Painted on a raster this much finer than the picture, which smooths the lines.
_PIXELS_PER_MM, _OVERSAMPLING = 4, 3
_WIDTH_IN, _FOOT_IN = 14.0, 0.25


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
    brain_mm = brain_points_mm(mask, vox2ras)
    low, high = field_of_view(brain_mm, segments)
    figure = new_figure(_WIDTH_IN, height_in(high - low, _WIDTH_IN) + _FOOT_IN, dark=True)
    text = f"{len(chosen):,} of {n_total or n_streamlines:,} streamlines"
    figure.text(0.995, 0.01, text, color=TEXT_ON_DARK, fontsize=9, ha="right", va="bottom")
    for plane, axes in add_projections(figure, low, high, bottom_in=_FOOT_IN).items():
        _, across, up = PLANES[plane]
        axes.imshow(
            _painted(segments[:, :, [across, up]], colors, low[[across, up]], high[[across, up]]),
            origin="lower",
            extent=(low[across], high[across], low[up], high[up]),
            interpolation="bilinear",
        )
        outline(axes, plane, brain_mm)
        annotate(axes, plane, "")
    return save_svg(figure, path, dpi=110)


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
    """Paint projected segments on black, as RGB (vertical, horizontal).

    On black and not transparent, because that compresses to a quarter.
    """
    fine = _PIXELS_PER_MM * _OVERSAMPLING
    columns, rows = (np.ceil((high_mm - low_mm) * _PIXELS_PER_MM).astype(int)) * _OVERSAMPLING
    canvas = np.zeros((rows, columns, 3), dtype=np.float32)
    paint_segments(canvas, (segments - low_mm) * fine, colors)
    return shrink(canvas, _OVERSAMPLING)
