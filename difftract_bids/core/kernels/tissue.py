"""Tissue at a position, and what it makes of a seed: the rules of `difftract_bids.core.anatomy`.

Operations are made one by one, in MRtrix's order: on the interface of grey and white matter, where
seeds are put, the last digit of their fractions decides.
"""

from __future__ import annotations

from difftract_bids.core.anatomy import (
    INTERFACE_TOLERANCE,
    LEAST_TISSUE,
    SEEDED_DEEP,
    SICK,
    SIDE_MM,
    SMALLEST_WEIGHT,
    Kind,
)
from difftract_bids.core.kernels.target import exact_function

_NOWHERE = int(Kind.NOWHERE)
_FLUID = int(Kind.FLUID)
_CORTEX = int(Kind.CORTEX)
_DEEP = int(Kind.DEEP)
_PASSABLE = int(Kind.PASSABLE)


@exact_function
def kind_at(tissues, x, y, z):
    """Say what a position (RAS+ millimetres) is to a streamline: its `Kind`, and a bit if sick."""
    inside, cu, cv, cw = _place_in(tissues, x, y, z)
    if not inside:
        return _NOWHERE, 0
    if tissues.surely_white[int(cu), int(cv), int(cw)]:
        return _PASSABLE, 0
    valid, cortex, deep, white, fluid, sick = _blend(tissues, cu, cv, cw)
    if not valid:
        return _NOWHERE, 0
    bit = 0
    if sick >= cortex and sick >= deep and sick >= white and sick > fluid:
        bit = SICK
    if fluid >= cortex and fluid >= deep and fluid >= white and fluid >= sick:
        return _FLUID, bit
    grey = cortex + deep
    if grey >= white and grey > fluid and grey > sick:
        return (_CORTEX if cortex >= deep else _DEEP), bit
    return _PASSABLE, bit


@exact_function
def judge_seed(tissues, work, x, y, z, dx, dy, dz):
    """Say whether a streamline may start at a position, and how.

    Returns
    -------
    suitable, remembered, one_way, x, y, z
        Whether it may, bits to be remembered, whether only one way is to be gone (the other is
        into the cortex), and the direction to start along.
    """
    real = tissues.table.dtype.type
    valid, cortex, deep, white, fluid, sick = _fractions(tissues, x, y, z)
    if not valid:
        return False, 0, False, dx, dy, dz
    bits = 0
    if sick >= cortex and sick >= deep and sick >= white and sick > fluid:
        bits = SICK
    if deep > cortex and deep >= white and deep > fluid and deep > sick:
        return True, bits | SEEDED_DEEP, False, dx, dy, dz
    grey = cortex + deep
    if fluid >= cortex and fluid >= deep and fluid >= white and fluid >= sick:
        return False, bits, False, dx, dy, dz
    if white == real(0.0) or grey - white >= real(INTERFACE_TOLERANCE):
        return False, bits, False, dx, dy, dz
    if white >= grey or deep >= cortex:
        return True, bits, False, dx, dy, dz
    h = work.tensor.dtype.type(SIDE_MM)
    ahead = _surplus(tissues, x + h * dx, y + h * dy, z + h * dz)
    behind = _surplus(tissues, x - h * dx, y - h * dy, z - h * dz)
    if ahead > behind:
        dx, dy, dz = -dx, -dy, -dz
    return True, bits, True, dx, dy, dz


@exact_function
def _surplus(tissues, x, y, z):
    """Subtract white from grey matter."""
    _, cortex, deep, white, _, _ = _fractions(tissues, x, y, z)
    return cortex + deep - white


@exact_function
def _fractions(tissues, x, y, z):
    """Look fractions up: whether there is enough tissue, and the five of them."""
    inside, cu, cv, cw = _place_in(tissues, x, y, z)
    if not inside:
        zero = tissues.table.dtype.type(0.0)
        return False, zero, zero, zero, zero, zero
    return _blend(tissues, cu, cv, cw)


@exact_function
def _place_in(tissues, x, y, z):
    """Find the voxel coordinates of a position, or those of the edge, and if it is inside."""
    m, shape = tissues.ras2vox, tissues.row.shape
    u = m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + m[0, 3]
    v = m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + m[1, 3]
    w = m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + m[2, 3]
    last_u, last_v, last_w = shape[0] - 1.0, shape[1] - 1.0, shape[2] - 1.0
    inside = u > -0.5 and v > -0.5 and w > -0.5
    inside = inside and u < last_u + 0.5 and v < last_v + 0.5 and w < last_w + 0.5
    return inside, min(max(u, 0.0), last_u), min(max(v, 0.0), last_v), min(max(w, 0.0), last_w)


@exact_function
def _blend(tissues, cu, cv, cw):
    """Interpolate fractions at voxel coordinates, and tell whether there is enough tissue."""
    row, table = tissues.row, tissues.table
    real = table.dtype.type
    zero, one = real(0.0), real(1.0)
    if row[int(cu + 0.5), int(cv + 0.5), int(cw + 0.5)] == 0:
        return False, zero, zero, zero, zero, zero
    i, j, k = int(cu), int(cv), int(cw)
    # At the last voxel there is no next one; its weight is zero.
    i1 = min(i + 1, row.shape[0] - 1)
    j1 = min(j + 1, row.shape[1] - 1)
    k1 = min(k + 1, row.shape[2] - 1)
    weights = _weights(tissues, cu - i, cv - j, cw - k)
    rows = (
        *(row[i, j, k], row[i, j, k1], row[i, j1, k], row[i, j1, k1]),
        *(row[i1, j, k], row[i1, j, k1], row[i1, j1, k], row[i1, j1, k1]),
    )
    cortex = _mixed(table, rows, weights, 0)
    deep = _mixed(table, rows, weights, 1)
    white = _mixed(table, rows, weights, 2)
    fluid = _mixed(table, rows, weights, 3)
    sick = _mixed(table, rows, weights, 4)
    total = cortex + deep + white + fluid + sick
    if total != total:  # noqa: PLR0124 - one of them is not a number
        return False, zero, zero, zero, zero, zero
    cortex, deep = min(max(cortex, zero), one), min(max(deep, zero), one)
    white, fluid = min(max(white, zero), one), min(max(fluid, zero), one)
    sick = min(max(sick, zero), one)
    enough = cortex + deep + white + fluid + sick >= real(LEAST_TISSUE)
    return enough, cortex, deep, white, fluid, sick


@exact_function
def _weights(tissues, fu, fv, fw):
    """Weigh the corners of a cell; MRtrix leaves out the smallest."""
    real = tissues.table.dtype.type
    u1, v1, w1 = real(fu), real(fv), real(fw)
    u0, v0, w0 = real(1.0 - fu), real(1.0 - fv), real(1.0 - fw)
    a, b, c, d = v0 * w0, v0 * w1, v1 * w0, v1 * w1
    return (
        *(_large(u0 * a), _large(u0 * b), _large(u0 * c), _large(u0 * d)),
        *(_large(u1 * a), _large(u1 * b), _large(u1 * c), _large(u1 * d)),
    )


@exact_function
def _large(weight):
    return weight if weight >= SMALLEST_WEIGHT else weight - weight


@exact_function
def _mixed(table, rows, weights, column):
    """Sum a fraction of eight voxels by their weights: along z, then y, then x."""
    ends = (
        (weights[0] * table[rows[0], column] + weights[1] * table[rows[1], column])
        + (weights[2] * table[rows[2], column] + weights[3] * table[rows[3], column]),
        (weights[4] * table[rows[4], column] + weights[5] * table[rows[5], column])
        + (weights[6] * table[rows[6], column] + weights[7] * table[rows[7], column]),
    )
    return ends[0] + ends[1]
