"""Positions with marks between streamlines, taken apart in one pass."""

from __future__ import annotations

import math

from difftract_bids.core.kernels.target import host_kernel

#: What a row is.
END_MARK, ODD = -1, -2


@host_kernel
def split(rows, points, n_points, ends, n_ends):
    """Copy rows that are positions, and note how many there were at each row of NaN.

    Parameters
    ----------
    rows
        (m, 3), any floating type.
    points
        (at least n_points + m, 3): positions follow the first ``n_points``.
    n_points
        Positions there already.
    ends
        Receives the numbers of positions up to each mark, after the first ``n_ends``.
    n_ends
        Ends there already.

    Returns
    -------
    tuple
        Numbers of positions and of ends now; and ``END_MARK`` if a row of infinities ended it,
        ``ODD`` if a row is partly finite, 0 if all rows were taken.
    """
    for row in range(len(rows)):
        x, y, z = rows[row, 0], rows[row, 1], rows[row, 2]
        if math.isfinite(x) and math.isfinite(y) and math.isfinite(z):
            points[n_points, 0] = x
            points[n_points, 1] = y
            points[n_points, 2] = z
            n_points += 1
        elif math.isnan(x) and math.isnan(y) and math.isnan(z):
            ends[n_ends] = n_points
            n_ends += 1
        elif math.isinf(x):
            return n_points, n_ends, END_MARK
        else:
            return n_points, n_ends, ODD
    return n_points, n_ends, 0
