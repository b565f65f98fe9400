"""Volumes on the slices of a figure, whatever grid they are on."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import ndimage

from difftract_bids.reports.drawing.mosaic import PLANES, Panel

#: Slices are sampled on a grid this much finer than the voxels of their figure.
FINER = 4


def sampled(
    panel: Panel, volume: NDArray[np.float32], grid_to_volume: Float[np.ndarray, "4 4"]
) -> Float[np.ndarray, "v h"]:
    """Interpolate another volume on a panel's slice, ``FINER`` samples to a voxel of the figure.

    Parameters
    ----------
    panel
        Of a mosaic, on whose turned grid the slice lies.
    volume
        On any grid; 0 outside.
    grid_to_volume
        Voxels of the mosaic's turned grid to voxels of the volume.

    Returns
    -------
    numpy.ndarray
        The panel's field of view, bottom row first.
    """
    axis, horizontal, vertical = PLANES[panel.plane]
    fine = {
        side: np.arange(first * FINER, last * FINER) / FINER - 0.5 + 0.5 / FINER
        for side, (first, last) in ((i, panel.box[i]) for i in (horizontal, vertical))
    }
    up, across = np.meshgrid(fine[vertical], fine[horizontal], indexing="ij")
    points = np.empty((4, up.size))
    points[axis], points[horizontal], points[vertical] = panel.index, across.ravel(), up.ravel()
    points[3] = 1.0
    there = (grid_to_volume @ points)[:3]
    return ndimage.map_coordinates(volume, there, order=1, output=np.float64).reshape(up.shape)
