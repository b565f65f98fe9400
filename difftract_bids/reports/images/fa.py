"""Fractional anisotropy coloured by the direction of the fibres."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from difftract_bids.core.colours import colour_fa
from difftract_bids.reports.drawing.mosaic import Mosaic
from difftract_bids.reports.drawing.style import save_svg

#: Brightness 1 at this FA, so that ordinary white matter is well lit.
_BRIGHT_FA = 0.7


def plot_fa(
    fa: Float[np.ndarray, "x y z"],
    v1: Float[np.ndarray, "x y z 3"],
    mask: Bool[np.ndarray, "x y z"],
    vox2ras: Float[np.ndarray, "4 4"],
    path: str | os.PathLike[str],
) -> Path:
    """Draw FA in three planes, coloured by direction.

    Parameters
    ----------
    fa
        Fractional anisotropy, 0 to 1.
    v1
        First eigenvector in scanner axes (not voxel axes), or another vector along it, as is a
        colour of the map that was saved: its length has no meaning, nor has its sign.
    mask
        Brain; black outside.
    vox2ras
        Voxels to RAS+ millimetres.
    path
        SVG to write.

    Returns
    -------
    Path
        The absolute path written.

    References
    ----------
    Pajevic and Pierpaoli 1999, doi:10.1002/(SICI)1522-2594(199909)42:3<526::AID-MRM15>3.0.CO;2-J.
    """
    length = np.linalg.norm(v1, axis=-1, keepdims=True)
    direction = np.divide(v1, length, out=np.zeros(v1.shape), where=length > 0)
    colors = np.round(255 * colour_fa(fa / _BRIGHT_FA, direction) * mask[..., None])
    mosaic = Mosaic(mask, vox2ras)
    turned = mosaic.grid.turn(colors.astype(np.uint8))
    for panel in mosaic:
        panel.show(panel.take(turned))
    return save_svg(mosaic.figure, path)
