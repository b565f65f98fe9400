"""What an image holds at a position: trilinear, cell by cell, and its derivative."""

from __future__ import annotations

from difftract_bids.core.kernels.target import add_to, device_function


@device_function
def look_up(field, work, x, y, z):
    """Interpolate the fODF at a position (RAS+ millimetres); tell whether there is one.

    In bounds is -0.5 < v < size - 0.5; in the half-voxel rim the coordinate is that of the edge
    voxel's centre; a position whose nearest voxel is empty is outside too.
    """
    real = field.table.dtype.type
    to_voxel, shape = field.ras2vox, field.row.shape
    u = to_voxel[0, 0] * x + to_voxel[0, 1] * y + to_voxel[0, 2] * z + to_voxel[0, 3]
    v = to_voxel[1, 0] * x + to_voxel[1, 1] * y + to_voxel[1, 2] * z + to_voxel[1, 3]
    w = to_voxel[2, 0] * x + to_voxel[2, 1] * y + to_voxel[2, 2] * z + to_voxel[2, 3]
    last_u, last_v, last_w = shape[0] - 1.0, shape[1] - 1.0, shape[2] - 1.0
    if not (u > -0.5 and v > -0.5 and w > -0.5):
        return False
    if not (u < last_u + 0.5 and v < last_v + 0.5 and w < last_w + 0.5):
        return False
    cu, cv, cw = min(max(u, 0.0), last_u), min(max(v, 0.0), last_v), min(max(w, 0.0), last_w)
    # Not negative, so that cutting the fraction off is rounding down.
    if field.row[int(cu + 0.5), int(cv + 0.5), int(cw + 0.5)] == 0:
        return False
    i, j, k = int(cu), int(cv), int(cw)
    _enter_cell(field, work, i, j, k)
    fraction = work.fraction
    fraction[0], fraction[1], fraction[2] = real(cu - i), real(cv - j), real(cw - k)
    fraction[3] = real(u > 0.0 and u < last_u)
    fraction[4] = real(v > 0.0 and v < last_v)
    fraction[5] = real(w > 0.0 and w < last_w)
    _blend(field, work, real(cu - i), real(cv - j), real(cw - k))
    return True


@device_function
def _enter_cell(field, work, i, j, k):
    """Find the rows of a cell's corners, unless they are at hand: steps are short."""
    cell, rows, row = work.cell, work.rows, field.row
    if cell[0] == i and cell[1] == j and cell[2] == k:
        return
    cell[0], cell[1], cell[2] = i, j, k
    # At the last voxel there is no next one; its weight is zero.
    i1, j1, k1 = (
        min(i + 1, row.shape[0] - 1),
        min(j + 1, row.shape[1] - 1),
        min(k + 1, row.shape[2] - 1),
    )
    rows[0], rows[1], rows[2], rows[3] = row[i, j, k], row[i, j, k1], row[i, j1, k], row[i, j1, k1]
    rows[4], rows[5] = row[i1, j, k], row[i1, j, k1]
    rows[6], rows[7] = row[i1, j1, k], row[i1, j1, k1]


@device_function
def _weights(field, fu, fv, fw):
    """Weigh the corners of a cell; float32 leaves out the smallest, as MRtrix does."""
    real = field.table.dtype.type
    gu, gv, gw = real(1.0) - fu, real(1.0) - fv, real(1.0) - fw
    a, b, c, d = gu * gv, gu * fv, fu * gv, fu * fv
    w0, w1, w2, w3, w4, w5, w6, w7 = a * gw, a * fw, b * gw, b * fw, c * gw, c * fw, d * gw, d * fw
    if field.table.itemsize == 4:
        tiny, zero = real(1e-6), real(0.0)
        w0, w1 = w0 if w0 >= tiny else zero, w1 if w1 >= tiny else zero
        w2, w3 = w2 if w2 >= tiny else zero, w3 if w3 >= tiny else zero
        w4, w5 = w4 if w4 >= tiny else zero, w5 if w5 >= tiny else zero
        w6, w7 = w6 if w6 >= tiny else zero, w7 if w7 >= tiny else zero
    return w0, w1, w2, w3, w4, w5, w6, w7


@device_function
def _blend(field, work, fu, fv, fw):
    table, rows, tensor = field.table, work.rows, work.tensor
    w0, w1, w2, w3, w4, w5, w6, w7 = _weights(field, fu, fv, fw)
    r0, r1, r2, r3 = rows[0], rows[1], rows[2], rows[3]
    r4, r5, r6, r7 = rows[4], rows[5], rows[6], rows[7]
    for e in range(table.shape[1]):
        tensor[e] = (
            (w0 * table[r0, e] + w1 * table[r1, e])
            + (w2 * table[r2, e] + w3 * table[r3, e])
            + (w4 * table[r4, e] + w5 * table[r5, e])
            + (w6 * table[r6, e] + w7 * table[r7, e])
        )


@device_function
def pull_back_lookup(field, work, to_table):
    """Add the derivative by the table, and return that by the position, of the last lookup.

    ``work.cotangent`` holds the derivative by the interpolated components.
    """
    real = field.table.dtype.type
    table, rows, fraction, m = field.table, work.rows, work.fraction, field.ras2vox
    fu, fv, fw = fraction[0], fraction[1], fraction[2]
    weights = _weights(field, fu, fv, fw)
    s0 = _scatter(table, rows[0], weights[0], work.cotangent, to_table)
    s1 = _scatter(table, rows[1], weights[1], work.cotangent, to_table)
    s2 = _scatter(table, rows[2], weights[2], work.cotangent, to_table)
    s3 = _scatter(table, rows[3], weights[3], work.cotangent, to_table)
    s4 = _scatter(table, rows[4], weights[4], work.cotangent, to_table)
    s5 = _scatter(table, rows[5], weights[5], work.cotangent, to_table)
    s6 = _scatter(table, rows[6], weights[6], work.cotangent, to_table)
    s7 = _scatter(table, rows[7], weights[7], work.cotangent, to_table)
    gu, gv, gw = real(1.0) - fu, real(1.0) - fv, real(1.0) - fw
    by_u = (
        (s4 - s0) * (gv * gw)
        + (s5 - s1) * (gv * fw)
        + (s6 - s2) * (fv * gw)
        + (s7 - s3) * (fv * fw)
    )
    by_v = (
        (s2 - s0) * (gu * gw)
        + (s3 - s1) * (gu * fw)
        + (s6 - s4) * (fu * gw)
        + (s7 - s5) * (fu * fw)
    )
    by_w = (
        (s1 - s0) * (gu * gv)
        + (s3 - s2) * (gu * fv)
        + (s5 - s4) * (fu * gv)
        + (s7 - s6) * (fu * fv)
    )
    # In the rim of the image the coordinate does not vary.
    by_u, by_v, by_w = by_u * fraction[3], by_v * fraction[4], by_w * fraction[5]
    return (
        real(m[0, 0]) * by_u + real(m[1, 0]) * by_v + real(m[2, 0]) * by_w,
        real(m[0, 1]) * by_u + real(m[1, 1]) * by_v + real(m[2, 1]) * by_w,
        real(m[0, 2]) * by_u + real(m[1, 2]) * by_v + real(m[2, 2]) * by_w,
    )


@device_function
def _scatter(table, row, weight, cotangent, to_table):
    """Add a corner's share, and return the slope of the result by the corner's weight."""
    total = table.dtype.type(0.0)
    for e in range(table.shape[1]):
        total += table[row, e] * cotangent[e]
    for e in range(table.shape[1]):
        add_to(to_table, row, e, weight * cotangent[e])
    return total
