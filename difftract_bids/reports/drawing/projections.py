"""A brain seen through from above, from behind and from the right: frames and its outline."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import ndimage

from difftract_bids.reports.drawing.mosaic import PLANES

_OUTLINE_MM = 1.5  # grid on which the brain's shadow is outlined
_MARGIN_MM = 6.0


def brain_points_mm(
    mask: Bool[np.ndarray, "x y z"], vox2ras: Float[np.ndarray, "4 4"]
) -> NDArray[np.float64]:
    """Centres of the voxels of a mask, RAS+ millimetres."""
    return np.asarray(np.argwhere(mask) @ vox2ras[:3, :3].T + vox2ras[:3, 3])


def field_of_view(
    *points_mm: Float[np.ndarray, "n 3"],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Smallest and largest coordinates of what is to be seen, with a margin, millimetres."""
    everything = np.concatenate([one.reshape(-1, 3) for one in points_mm])
    if not len(everything):
        everything = np.array([[-50.0] * 3, [50.0] * 3])
    return everything.min(axis=0) - _MARGIN_MM, everything.max(axis=0) + _MARGIN_MM


def height_in(extent_mm: Float[np.ndarray, " 3"], width_in: float) -> float:
    """Height of three projections of a brain that stand side by side, inches."""
    return _scale(extent_mm, width_in) * float(max(extent_mm[up] for *_, up in PLANES.values()))


def add_projections(
    figure: Figure,
    low_mm: Float[np.ndarray, " 3"],
    high_mm: Float[np.ndarray, " 3"],
    *,
    bottom_in: float,
) -> dict[str, Axes]:
    """Add axes for three projections in one scale, over the whole width of a figure.

    Returns
    -------
    dict of str to Axes
        By plane; in millimetres, without a background.
    """
    extent_mm = high_mm - low_mm
    width_in, total_in = figure.get_size_inches()
    scale, tallest = _scale(extent_mm, width_in), height_in(extent_mm, width_in)
    axes, left = {}, 0.0
    for plane, (_, across, up) in PLANES.items():
        width, height = scale * extent_mm[across], scale * extent_mm[up]
        bottom = bottom_in + (tallest - height) / 2
        place = (left / width_in, bottom / total_in, width / width_in, height / total_in)
        axes[plane] = figure.add_axes(place, facecolor="none")
        axes[plane].set_xlim(low_mm[across], high_mm[across])
        axes[plane].set_ylim(low_mm[up], high_mm[up])
        left += width
    return axes


def outline(axes: Axes, plane: str, brain_mm: Float[np.ndarray, "n 3"]) -> None:
    """Outline the brain's shadow in scanner axes, oblique acquisitions included."""
    if not len(brain_mm):
        return
    _, *plane_axes = PLANES[plane]
    points_mm = brain_mm[:, plane_axes]
    low = points_mm.min(axis=0) - 6.0
    cells = np.floor((points_mm - low) / _OUTLINE_MM).astype(int)
    shadow = np.zeros(cells.max(axis=0) + 5)
    shadow[cells[:, 0], cells[:, 1]] = 1.0
    # Voxels are larger than the cells: closing fills the gaps between their centres.
    smooth = ndimage.gaussian_filter(ndimage.grey_closing(shadow, size=(5, 5)), 1.5)
    centres = [low[i] + (np.arange(shadow.shape[i]) + 0.5) * _OUTLINE_MM for i in (0, 1)]
    axes.contour(*centres, smooth.T, levels=[0.5], colors="#8a8a8a", linewidths=0.8)


def _scale(extent_mm: Float[np.ndarray, " 3"], width_in: float) -> float:
    """Inches to a millimetre."""
    return float(width_in / sum(extent_mm[across] for _, across, _ in PLANES.values()))
