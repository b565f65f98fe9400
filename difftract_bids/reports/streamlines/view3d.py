"""Streamlines over slices of the anatomy, to turn and to search in a browser."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from difftract_bids.io.streamline_arrays import StreamlineArrays
from difftract_bids.io.thinning import thin
from difftract_bids.reports.drawing.style import direction_colors
from difftract_bids.reports.drawing.typed_arrays import coded, run_lengths
from difftract_bids.reports.streamlines.brain_grid import BrainGrid, brain_grid
from difftract_bids.reports.templates import render, save_text

#: A vertex is left out where the line through its neighbours is as near as this.
_TOLERANCE_MM = 0.3
#: Smallest unit of a coordinate; larger only for what is more than a metre across.
_QUANTUM_MM = 0.02
#: Vertices of one view: what is drawn fluently without a graphics card, and 0.8 MB of text.
_MAX_POINTS = 80_000
#: Directions along an edge of the triangle between red, green and blue.
_STEPS = 9
#: Neighbouring streamlines differ in brightness, so that the eye can follow each.
_SHADES = (1.0, 0.9, 0.8, 0.7)
#: From the brain to the letters of the sides.
_MARGIN_MM = 8.0
#: Name of a plane, and the axis it is across.
_PLANES = (("Sagittal", "x"), ("Coronal", "y"), ("Axial", "z"))


def write_view3d(
    points_mm: Float[np.ndarray, "point 3"],
    offsets: Int[np.ndarray, " streamline_plus_1"],
    background: Float[np.ndarray, "x y z"],
    mask: Bool[np.ndarray, "i j k"],
    vox2ras: Float[np.ndarray, "4 4"],
    path: str | os.PathLike[str],
    *,
    mask_vox2ras: Float[np.ndarray, "4 4"] | None = None,
    max_streamlines: int = 5_000,
    random_seed: int = 0,
    n_total: int | None = None,
    background_name: str = "T1w",
) -> Path:
    """Write a view of streamlines and three slices that a browser turns, filters and moves.

    The page that shows it needs :func:`difftract_bids.reports.page.scripts.page_scripts`.
    Everything is in scanner axes, whatever the grid of the background.

    Parameters
    ----------
    points_mm
        Vertices of all streamlines, RAS+ millimetres.
    offsets
        Streamline i has the vertices from ``offsets[i]`` up to ``offsets[i + 1]``.
    background
        Image that the slices show; only the brain is kept.
    mask
        Brain.
    vox2ras
        Voxels of the background to RAS+ millimetres.
    path
        HTML fragment to write.
    mask_vox2ras
        Voxels of the mask to RAS+ millimetres; the same as the background's if left out.
    max_streamlines
        Of more than these, or of more than a browser draws fluently, a random part is shown.
    random_seed
        Seed of that choice.
    n_total
        Streamlines that those given are a part of; as many as are given if left out.
    background_name
        What the slices show, in words.

    Returns
    -------
    Path
        The absolute path written.

    Raises
    ------
    ValueError
        If mask and background are said to be on one grid and have different shapes.
    """
    if mask_vox2ras is None and mask.shape != background.shape:
        message = f"a mask of shape {mask.shape} does not fit a background of {background.shape}"
        raise ValueError(message)
    streamlines = StreamlineArrays(points_mm, offsets)
    shown = _chosen(streamlines, max_streamlines, random_seed)
    onto = vox2ras if mask_vox2ras is None else mask_vox2ras
    brain = brain_grid(background, mask.astype(bool), vox2ras, onto)
    longest_mm = float(shown.lengths_mm().max(initial=0.0))
    html = render(
        "view3d.html.jinja",
        payload={
            "streamlines": _coded_streamlines(shown),
            "palette": [_hex(color) for color in _palette()],
            "brain": _coded_brain(brain),
            "box_mm": np.round(_box_mm(brain, shown), 1).tolist(),
            "letters_mm": np.round(_letters_mm(brain), 1).tolist(),
        },
        planes=_planes(brain),
        n_shown=shown.n_streamlines,
        n_total=n_total or streamlines.n_streamlines,
        background_name=background_name,
        longest_mm=int(np.ceil(longest_mm / 5) * 5),
    )
    return save_text(html, path)


def _chosen(
    streamlines: StreamlineArrays, max_streamlines: int, random_seed: int
) -> StreamlineArrays:
    """Leave out vertices that do not matter, then streamlines by chance until the rest fits."""
    points = np.asarray(streamlines.points, dtype=np.float32)
    thinned = thin(StreamlineArrays(points, streamlines.offsets), _TOLERANCE_MM)
    counts = np.diff(thinned.offsets)
    order = np.random.default_rng(random_seed).permutation(len(counts))[:max_streamlines]
    fits = int(np.searchsorted(np.cumsum(counts[order]), _MAX_POINTS, side="right"))
    kept = np.zeros(len(counts), dtype=bool)
    kept[order[:fits]] = True
    kept &= counts > 1
    return StreamlineArrays(
        thinned.points[np.repeat(kept, counts)], np.concatenate([[0], np.cumsum(counts[kept])])
    )


def _coded_streamlines(streamlines: StreamlineArrays) -> dict[str, Any]:
    points = streamlines.points.astype(np.float64)
    low, high = (points.min(axis=0), points.max(axis=0)) if len(points) else (np.zeros(3),) * 2
    origin_mm = np.round((low + high) / 2, 1)
    reach_mm = float(np.abs(points - origin_mm).max(initial=0.0))
    quantum_mm = max(_QUANTUM_MM, reach_mm / np.iinfo(np.int16).max)
    return {
        "origin_mm": origin_mm.tolist(),
        "quantum_mm": quantum_mm,
        "points": coded(np.round((points - origin_mm) / quantum_mm).astype(np.int16)),
        "counts": coded(np.diff(streamlines.offsets).astype(np.uint32)),
        "colors": coded(_color_numbers(streamlines)),
    }


def _color_numbers(streamlines: StreamlineArrays) -> NDArray[np.uint8]:
    """Find each vertex's place in the palette: its direction, and its streamline's shade."""
    counts = np.diff(streamlines.offsets)
    directions = _directions(streamlines)
    total = np.maximum(directions.sum(axis=1), 1e-12)
    red, green = (np.round(_STEPS * directions[:, i] / total).astype(int) for i in (0, 1))
    green = np.minimum(green, _STEPS - red)
    # Place of (red, green) in the triangle, row after row of equal red.
    place = red * (_STEPS + 1) - red * (red - 1) // 2 + green
    shade = np.repeat(np.arange(len(counts)) % len(_SHADES), counts)
    return (place * len(_SHADES) + shade).astype(np.uint8)


def _directions(streamlines: StreamlineArrays) -> Float[np.ndarray, "point 3"]:
    """Find where each streamline goes at each of its vertices, without sign."""
    points = streamlines.points.astype(np.float64)
    before, after = np.arange(len(points)) - 1, np.arange(len(points)) + 1
    first, last = streamlines.offsets[:-1], streamlines.offsets[1:] - 1
    before[first], after[last] = first, last
    along = np.zeros_like(points)
    for start, stop in ((before, np.arange(len(points))), (np.arange(len(points)), after)):
        step = points[stop] - points[start]
        # Unit steps: where a long step meets a short one, both count alike.
        along += step / np.maximum(np.linalg.norm(step, axis=1, keepdims=True), 1e-12)
    return direction_colors(along)


def _palette() -> Float[np.ndarray, "color 3"]:
    triangle = [
        (red, green, _STEPS - red - green)
        for red in range(_STEPS + 1)
        for green in range(_STEPS + 1 - red)
    ]
    colors = direction_colors(np.array(triangle, dtype=float))
    return (colors[:, None] * np.array(_SHADES)[:, None]).reshape(-1, 3)


def _hex(color: Float[np.ndarray, " 3"]) -> str:
    return "#" + "".join(f"{round(255 * float(part)):02x}" for part in color)


def _coded_brain(brain: BrainGrid) -> dict[str, Any]:
    return {
        "shape": list(brain.grey.shape),
        "origin_mm": np.round(brain.origin_mm, 3).tolist(),
        "spacing_mm": brain.spacing_mm,
        "runs": coded(run_lengths(brain.inside)),
        "grey": coded(brain.grey[brain.inside]),
    }


def _letters_mm(brain: BrainGrid) -> Float[np.ndarray, "2 3"]:
    return np.stack([brain.origin_mm - _MARGIN_MM, brain.last_mm + _MARGIN_MM])


def _box_mm(brain: BrainGrid, streamlines: StreamlineArrays) -> Float[np.ndarray, "2 3"]:
    """Find what the view holds: beyond it nothing is drawn."""
    everything = np.concatenate([_letters_mm(brain), streamlines.points])
    return np.stack([everything.min(axis=0) - 1.0, everything.max(axis=0) + 1.0])


def _planes(brain: BrainGrid) -> list[dict[str, Any]]:
    ends = brain.origin_mm, brain.middle_mm, brain.last_mm
    return [
        {"name": name, "axis": axis, "low_mm": low, "at_mm": at, "high_mm": high}
        for (name, axis), low, at, high in zip(
            _PLANES, *(np.round(end, 3).tolist() for end in ends), strict=True
        )
    ]
