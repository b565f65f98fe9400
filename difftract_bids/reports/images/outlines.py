"""Outlines over the b=0 image: brain mask, parcellation, edges of the T1-weighted image."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its own documentation imports it so
from jaxtyping import Bool, Float, Int
from matplotlib.colors import to_rgb
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from scipy import ndimage

from difftract_bids.checks.brain_tissue import find_tissue
from difftract_bids.reports.drawing.mosaic import Mosaic, grey_window
from difftract_bids.reports.drawing.sampling import FINER, sampled
from difftract_bids.reports.drawing.style import OUTLINE, label_colors, save_svg

#: Edges of the T1w shorter than this say nothing.
_CRUMB_MM = 8.0


def plot_mask(
    b0: Float[np.ndarray, "x y z"],
    mask: Bool[np.ndarray, "x y z"],
    vox2ras: Float[np.ndarray, "4 4"],
    path: str | os.PathLike[str],
) -> Path:
    """Draw the outline of the brain mask over the b=0 image.

    What is bright about the mask is in the picture, too: it may be brain that the mask lacks.

    Parameters
    ----------
    b0, mask
        On one grid.
    vox2ras
        Voxels to RAS+ millimetres.
    path
        SVG to write.

    Returns
    -------
    Path
        The absolute path written.
    """
    mosaic = Mosaic(_with_brain_about(mask, b0, vox2ras), vox2ras)
    grey, inside = mosaic.grid.turn(b0), mosaic.grid.turn(mask).astype(np.float64)
    window = grey_window(b0, mask)
    for panel in mosaic:
        panel.show(panel.take(grey), **window)
        cut = panel.take(inside)
        if min(cut.shape) > 1 and cut.min() < cut.max():
            line = panel.axes.contour(
                *panel.centres_mm(), cut, levels=[0.5], colors=OUTLINE, linewidths=1.1
            )
            # On bright fluid at the rim an orange line alone is hard to see.
            line.set_path_effects([withStroke(linewidth=2.4, foreground="black")])
    return save_svg(mosaic.figure, path)


def plot_parcellation(
    b0: Float[np.ndarray, "x y z"],
    labels: Int[np.ndarray, "x y z"],
    mask: Bool[np.ndarray, "x y z"],
    vox2ras: Float[np.ndarray, "4 4"],
    path: str | os.PathLike[str],
    *,
    colors: Mapping[int, str] | None = None,
) -> Path:
    """Draw the borders of all parcels over the b=0 image, each in its colour.

    Parameters
    ----------
    b0, labels, mask
        On one grid; label 0 is outside every parcel.
    vox2ras
        Voxels to RAS+ millimetres.
    path
        SVG to write.
    colors
        Colour of each label, as ``#rrggbb``; labels left out get one of our own.

    Returns
    -------
    Path
        The absolute path written.
    """
    mosaic = Mosaic(mask | (labels > 0), vox2ras)
    grey, turned = mosaic.grid.turn(b0), mosaic.grid.turn(labels)
    window = grey_window(b0, mask)
    table = _color_table(labels, colors or {})
    for panel in mosaic:
        panel.show(panel.take(grey), **window)
        panel.show(_label_borders(panel.take(turned), table))
    return save_svg(mosaic.figure, path)


def plot_registration(
    b0: Float[np.ndarray, "x y z"],
    mask: Bool[np.ndarray, "x y z"],
    vox2ras: Float[np.ndarray, "4 4"],
    t1w: Float[np.ndarray, "i j k"],
    t1w_vox2ras: Float[np.ndarray, "4 4"],
    path: str | os.PathLike[str],
    *,
    headroom: float = 1.0,
) -> Path:
    """Draw edges of the registered T1-weighted image over the b=0 image.

    Parameters
    ----------
    b0, mask
        On one grid.
    vox2ras
        Their voxels to RAS+ millimetres.
    t1w, t1w_vox2ras
        The T1-weighted image in the diffusion data's space, on any grid.
    path
        SVG to write.
    headroom
        Of the grey picture, see :func:`difftract_bids.reports.drawing.mosaic.grey_window`.

    Returns
    -------
    Path
        The absolute path written.

    References
    ----------
    Edges: Canny 1986, doi:10.1109/TPAMI.1986.4767851, as in SimpleITK.
    """
    mosaic = Mosaic(mask, vox2ras)
    grey, window = mosaic.grid.turn(b0), grey_window(b0, mask, headroom=headroom)
    to_t1w = np.linalg.inv(t1w_vox2ras) @ mosaic.grid.vox2ras
    near = ndimage.binary_dilation(mosaic.grid.turn(mask), iterations=2)
    edge_source = t1w.astype(np.float32)
    bright = float(np.percentile(t1w[t1w > 0], 98)) if (t1w > 0).any() else 1.0
    for panel in mosaic:
        panel.show(panel.take(grey), **window)
        edges = _edges(sampled(panel, edge_source, to_t1w), bright)
        keep = _repeated(panel.take(near)).astype(bool)
        shown = _without_crumbs(edges & keep, _CRUMB_MM * FINER / panel.voxel_sizes_mm.mean())
        panel.show(_overlay(shown, to_rgb(OUTLINE)))
    return save_svg(mosaic.figure, path)


def _with_brain_about(
    mask: Bool[np.ndarray, "x y z"],
    b0: Float[np.ndarray, "x y z"],
    vox2ras: Float[np.ndarray, "4 4"],
) -> Bool[np.ndarray, "x y z"]:
    """Add what is as bright as the mask's inside and is one piece with it."""
    if not mask.any():
        return mask
    sizes_mm = np.linalg.norm(vox2ras[:3, :3], axis=0)
    return mask | find_tissue(np.nan_to_num(b0), mask, sizes_mm)


def _color_table(
    labels: Int[np.ndarray, "x y z"], colors: Mapping[int, str]
) -> dict[int, tuple[float, float, float]]:
    present = [int(label) for label in np.unique(labels) if label > 0]
    ours = label_colors(len(present))
    return {
        label: to_rgb(colors[label]) if label in colors else tuple(ours[i])
        for i, label in enumerate(present)
    }


def _repeated(cut: NDArray[np.generic]) -> NDArray[np.generic]:
    return np.kron(cut, np.ones((FINER, FINER), dtype=cut.dtype))


def _label_borders(
    cut: Int[np.ndarray, "v h"], table: Mapping[int, tuple[float, float, float]]
) -> NDArray[np.uint8]:
    """Colour the inner rim of every label: between two parcels both colours are seen."""
    fine = np.pad(_repeated(cut), 1)
    centre = fine[1:-1, 1:-1]
    rim = np.zeros(centre.shape, dtype=bool)
    for rows, columns in ((0, 1), (2, 1), (1, 0), (1, 2)):
        rim |= fine[rows : rows + centre.shape[0], columns : columns + centre.shape[1]] != centre
    # Two samples wide, or the line is thinner than a pixel of the screen.
    rim = ndimage.binary_dilation(rim) & (centre > 0)
    picture = np.zeros((*centre.shape, 4), dtype=np.uint8)
    for label in np.unique(centre[rim]):
        here = rim & (centre == label)
        picture[here, :3] = np.round(255 * np.array(table[int(label)]))
        picture[here, 3] = 255
    return picture


def _edges(picture: NDArray[np.float64], bright: float) -> NDArray[np.bool_]:
    image = sitk.GetImageFromArray(np.clip(picture / bright, 0, 1.2).astype(np.float32))
    variance = float(0.9 * FINER) ** 2
    canny = sitk.CannyEdgeDetection(
        image, lowerThreshold=0.015, upperThreshold=0.035, variance=[variance] * 2
    )
    return ndimage.binary_dilation(sitk.GetArrayFromImage(canny) > 0, structure=np.ones((2, 2)))


def _without_crumbs(lines: NDArray[np.bool_], shortest: float) -> NDArray[np.bool_]:
    """Take out pieces that are narrower and lower than some samples: rests of cut lines."""
    numbered, _ = ndimage.label(lines, structure=np.ones((3, 3)))
    sizes = [
        max(rows.stop - rows.start, columns.stop - columns.start)
        for rows, columns in ndimage.find_objects(numbered)
    ]
    return np.append(False, np.array(sizes) >= shortest)[numbered]


def _overlay(where: NDArray[np.bool_], color: tuple[float, float, float]) -> NDArray[np.uint8]:
    picture = np.zeros((*where.shape, 4), dtype=np.uint8)
    picture[where] = [*(round(255 * part) for part in color), 255]
    return picture
