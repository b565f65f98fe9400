"""Before and after denoising: a b=0 volume, and one in which there is most noise."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.figure import Figure

from difftract_bids.reports.drawing.mosaic import grey_window
from difftract_bids.reports.flickers.flicker import write_flicker
from difftract_bids.reports.flickers.rows import Rows


def flick_denoising(
    before: tuple[Float[np.ndarray, "x y z"], Float[np.ndarray, "x y z"]],
    after: tuple[Float[np.ndarray, "x y z"], Float[np.ndarray, "x y z"]],
    mask: Bool[np.ndarray, "x y z"],
    vox2ras: Float[np.ndarray, "4 4"],
    path: str | os.PathLike[str],
    *,
    b_s_mm2: float,
) -> Path:
    """Show a b=0 and a weighted volume before and after denoising in turn.

    Only sand should come and go. Borders that move or soften are signal that was lost.

    Parameters
    ----------
    before, after
        A b=0 and a diffusion-weighted volume.
    mask
        Brain: it sets windows and field of view.
    vox2ras
        Voxels to RAS+ millimetres.
    path
        Part of a page (HTML) to write.
    b_s_mm2
        b-value of the weighted volume.

    Returns
    -------
    Path
        The absolute path written.
    """
    titles = ("b=0", f"b={b_s_mm2:.0f} s/mm²")
    windows = [grey_window(volume, mask) for volume in after]

    def drawn(volumes: tuple[Float[np.ndarray, "x y z"], ...]) -> Figure:
        rows = Rows(mask, vox2ras, titles)
        for row, volume, window in zip(rows, volumes, windows, strict=True):
            turned = rows.grid.turn(volume)
            for panel in row:
                # As they are: interpolated noise looks like less noise.
                panel.show(panel.take(turned), **window)
        return rows.figure

    shown = f"slices of a b=0 volume and of one of {titles[1]}"
    return write_flicker(
        drawn(before),
        drawn(after),
        path,
        title="Before and after denoising",
        alts=(f"Before denoising: {shown}", f"After denoising: the same {shown}"),
    )
