"""Two images of one brain that a registration brought together."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from numpy.typing import NDArray

from difftract_bids.reports.drawing.mosaic import Mosaic
from difftract_bids.reports.drawing.sampling import FINER, sampled
from difftract_bids.reports.flickers.flicker import write_flicker
from difftract_bids.reports.flickers.motion import draw_outline

#: Fewer and larger than in still mosaics, as the eye can only follow a few.
_N_SLICES = 5


def flick_coregistration(
    b0: Float[np.ndarray, "x y z"],
    mask: Bool[np.ndarray, "x y z"],
    vox2ras: Float[np.ndarray, "4 4"],
    t1w: Float[np.ndarray, "i j k"],
    t1w_vox2ras: Float[np.ndarray, "4 4"],
    path: str | os.PathLike[str],
) -> Path:
    """Show the T1-weighted image and the b=0 image in turn.

    Parameters
    ----------
    b0, mask
        On one grid; the outline of the mask is drawn on both images.
    vox2ras
        Their voxels to RAS+ millimetres.
    t1w, t1w_vox2ras
        The T1-weighted image in the diffusion data's space, on any grid.
    path
        Part of a page (HTML) to write.

    Returns
    -------
    Path
        The absolute path written.
    """
    return write_flicker(
        _mosaic(t1w, t1w_vox2ras, mask, vox2ras),
        _mosaic(b0, vox2ras, mask, vox2ras),
        path,
        names=("T1w", "b=0"),
        title="T1-weighted image and b=0 image",
        alts=(
            "T1-weighted image in the space of the diffusion data, with the brain mask's outline",
            "Average b=0 image, the same slices, with the brain mask's outline",
        ),
    )


def flick_template(
    template: Float[np.ndarray, "x y z"],
    brain: Bool[np.ndarray, "x y z"],
    vox2ras: Float[np.ndarray, "4 4"],
    t1w: Float[np.ndarray, "i j k"],
    t1w_vox2ras: Float[np.ndarray, "4 4"],
    path: str | os.PathLike[str],
) -> Path:
    """Show a template, brought to the participant, and the T1-weighted image in turn.

    Parameters
    ----------
    template, brain, vox2ras
        The template's T1w on a grid in the participant's space, the participant's brain on the
        same grid, whose outline is drawn on both, and its voxels to RAS+ millimetres.
    t1w, t1w_vox2ras
        T1w in that space, on any grid.
    path
        Part of a page (HTML) to write.

    Returns
    -------
    Path
        The absolute path written.
    """
    return write_flicker(
        _mosaic(template, vox2ras, brain, vox2ras),
        _mosaic(t1w, t1w_vox2ras, brain, vox2ras),
        path,
        names=("template", "T1w"),
        title="Template and T1-weighted image",
        alts=(
            "Template, warped to the participant, with the outline of the participant's brain",
            "T1-weighted image of the participant, the same slices and outline",
        ),
    )


def _mosaic(
    image: Float[np.ndarray, "i j k"],
    image_vox2ras: Float[np.ndarray, "4 4"],
    mask: Bool[np.ndarray, "x y z"],
    vox2ras: Float[np.ndarray, "4 4"],
) -> Figure:
    """Draw an image on the slices of a mask, wherever its own grid lies."""
    mosaic = Mosaic(mask, vox2ras, n_slices=_N_SLICES)
    inside = mosaic.grid.turn(mask)
    to_image = np.linalg.inv(image_vox2ras) @ mosaic.grid.vox2ras
    volume = image.astype(np.float32)
    slices = [sampled(panel, volume, to_image) for panel in mosaic]
    white = _white(slices, [panel.take(inside) for panel in mosaic])
    for panel, picture in zip(mosaic, slices, strict=True):
        panel.show(picture, cmap="gray", vmin=0.0, vmax=white)
        draw_outline(panel, inside)
    return mosaic.figure


def _white(slices: Sequence[NDArray[np.float64]], masks: Sequence[NDArray[np.generic]]) -> float:
    """Choose what is drawn white from the brain as it is drawn: each image has its own grid."""
    brain = [
        picture[::FINER, ::FINER][inside.astype(bool)]
        for picture, inside in zip(slices, masks, strict=True)
    ]
    values = np.concatenate(brain)
    values = values[np.isfinite(values)]
    high = float(np.percentile(values, 99.5)) if values.size else 1.0
    return high if high > 0 else 1.0
