"""The peak that a direction leads to, and its derivative; see `difftract_bids.core.peaks`."""

from __future__ import annotations

import math

from difftract_bids.core.kernels.contraction import matrix_of
from difftract_bids.core.kernels.target import device_function
from difftract_bids.core.peaks import (
    LONGEST_STEP,
    NEWTON_ITERATIONS,
    POLE,
    SEARCH_ITERATIONS,
    SMALLEST_CURVATURE,
)


@device_function
def find_peak(field, rules, work, x, y, z):
    """Climb from a unit direction over the fODF looked up last.

    The same step as in `difftract_bids.core.peaks`: slope over curvature along the gradient, by
    MRtrix's derivatives along the elevation and the azimuth. Searches take five steps on noisy
    data, each of which waits for the one before, so what counts is the longest chain of
    operations. Hence the direction is not normalised before the sums that take longest: they are
    homogeneous, and what they lack is a power of its length, found in the meantime, as are the
    axes. And the step is written for the gradient g, not for g / |g|, which would take a root.

    Returns
    -------
    found, amplitude, x, y, z
        Whether the search ended, the amplitude before its last update, and the peak.
    """
    tensor = work.tensor
    real = tensor.dtype.type
    lmax = real(len(field.order))
    one, two, zero = real(1.0), real(2.0), real(0.0)
    longest, longest2 = real(LONGEST_STEP), real(LONGEST_STEP * LONGEST_STEP)
    pole2, coarse2 = real(POLE * POLE), rules.coarse * rules.coarse
    found, amplitude = False, zero
    for _ in range(SEARCH_ITERATIONS):
        xx, xy, xz, yy, yz, zz = matrix_of(tensor, x, y, z, field.order)
        over = _over_root(tensor, x * x + y * y + z * z)
        x, y, z = x * over, y * over, z * over
        power = _power(over * over, field.order)
        sx, sy, sz = x * power, y * power, z * power
        sine2 = x * x + y * y
        if sine2 >= pole2:
            over_sine = one / math.sqrt(sine2)
            cos_az, sin_az = x * over_sine, y * over_sine
        else:
            over_sine, cos_az, sin_az = _near_pole(tensor, x, y)
        ex, ey, ez = z * cos_az, z * sin_az, -sine2 * over_sine

        # The matrix times the axis of the elevation, and times that of the azimuth.
        ux, uy, uz = (
            xx * ex + xy * ey + xz * ez,
            xy * ex + yy * ey + yz * ez,
            xz * ex + yz * ey + zz * ez,
        )
        vx, vy, vz = (
            xy * cos_az - xx * sin_az,
            yy * cos_az - xy * sin_az,
            yz * cos_az - xz * sin_az,
        )
        px, py, pz = xx * x + xy * y + xz * z, xy * x + yy * y + yz * z, xz * x + yz * y + zz * z
        amplitude = px * sx + py * sy + pz * sz
        by_el, by_az = ux * sx + uy * sy + uz * sz, vx * sx + vy * sy + vz * sz
        el_el = (ux * ex + uy * ey + uz * ez) * power
        el_az = (vx * ex + vy * ey + vz * ez) * power
        az_az = (vy * cos_az - vx * sin_az) * power

        el2, az2 = by_el * by_el, by_az * by_az
        size2 = el2 + az2
        if sine2 >= pole2:
            bend = el_el * el2 + az_az * az2 + two * el_az * (by_el * by_az)
            turn = z * over_sine * (by_el * az2)
            curvature = (lmax - one) * bend - amplitude * size2 + turn
        else:
            # At a pole MRtrix knows only the curvature along the elevation.
            curvature = el2 * ((lmax - one) * el_el - amplitude)
        scale = size2 / abs(curvature) if curvature != zero else zero
        step2 = scale * scale * size2
        if step2 > longest2:
            scale = longest / math.sqrt(size2)
        along_x, along_y = by_el * ex - by_az * sin_az, by_el * ey + by_az * cos_az
        x, y, z = x + scale * along_x, y + scale * along_y, z + scale * (by_el * ez)
        if step2 < coarse2:
            found = True
            break
    over = one / math.sqrt(x * x + y * y + z * z)
    x, y, z = x * over, y * over, z * over
    if found and rules.tolerance < rules.coarse:
        amplitude, x, y, z = _refine(field, rules, tensor, amplitude, x, y, z)
    return found, amplitude, x, y, z


@device_function
def _near_pole(tensor, x, y):
    """Find the azimuth where it hardly is one: 1 / sine, cosine and sine."""
    real = tensor.dtype.type
    sine = math.sqrt(x * x + y * y)
    if sine > real(0.0):
        return real(1.0) / sine, x / sine, y / sine
    return real(0.0), real(1.0), real(0.0)


@device_function
def _power(square, order):
    """Raise a squared length to half of two less than the degree."""
    power = square
    for _ in range(len(order) // 2 - 2):
        power *= square
    return power if len(order) > 2 else square / square


@device_function
def _over_root(tensor, square):
    """1 / √square of a number close to 1, in float32 by its series: the root is slow."""
    real = tensor.dtype.type
    one, e = real(1.0), square - real(1.0)
    if tensor.itemsize == 4 and abs(e) < real(0.01):
        return one - e * (real(0.5) - e * (real(0.375) - e * real(0.3125)))
    return one / math.sqrt(square)


@device_function
def quadratic(matrix, x, y, z):
    """Apply a symmetric matrix (xx, xy, xz, yy, yz, zz) to a vector twice."""
    xx, xy, xz, yy, yz, zz = matrix
    off = x * (xy * y + xz * z) + yz * y * z
    return xx * x * x + yy * y * y + zz * z * z + (off + off)


@device_function
def _refine(field, rules, tensor, amplitude, x, y, z):
    """Finish a search by Newton's method on the sphere."""
    real = tensor.dtype.type
    lmax = real(len(field.order))
    longest = real(LONGEST_STEP)
    for _ in range(NEWTON_ITERATIONS):
        matrix = matrix_of(tensor, x, y, z, field.order)
        xx, xy, xz, yy, yz, zz = matrix
        px, py, pz = xx * x + xy * y + xz * z, xy * x + yy * y + yz * z, xz * x + yz * y + zz * z
        amplitude = x * px + y * py + z * pz
        gradient = (
            lmax * (px - amplitude * x),
            lmax * (py - amplitude * y),
            lmax * (pz - amplitude * z),
        )
        ux, uy, uz, _ = inverse_curvature(tensor, lmax, amplitude, matrix, (x, y, z), gradient)
        step = math.sqrt(ux * ux + uy * uy + uz * uz)
        scale = longest / step if step > longest else real(1.0)
        x, y, z = x - scale * ux, y - scale * uy, z - scale * uz
        over = real(1.0) / math.sqrt(x * x + y * y + z * z)
        x, y, z = x * over, y * over, z * over
        if step < rules.tolerance:
            break
    return amplitude, x, y, z


@device_function
def inverse_curvature(tensor, lmax, amplitude, matrix, direction, vector):
    """Apply the inverse of the Hessian on the tangent plane to a vector.

    Both eigenvalues are taken as negative, as they are at a peak, and bounded away from zero.

    Returns
    -------
    x, y, z, bounded
        The tangent vector, and whether an eigenvalue was not below the bound.
    """
    real = tensor.dtype.type
    one, zero = real(1.0), real(0.0)
    x, y, z = direction
    # A frame of the tangent plane (Duff et al. 2017, JCGT 6(1)).
    sign = -one if z < zero else one
    a = -one / (sign + z)
    b = x * y * a
    ux, uy, uz = one + sign * x * x * a, sign * b, -sign * x
    vx, vy, vz = b, sign + y * y * a, -y
    xx, xy, xz, yy, yz, zz = matrix
    mx, my, mz = (
        xx * ux + xy * uy + xz * uz,
        xy * ux + yy * uy + yz * uz,
        xz * ux + yz * uy + zz * uz,
    )
    factor, shift = lmax * (lmax - one), lmax * amplitude
    huu = factor * (ux * mx + uy * my + uz * mz) - shift
    huv = factor * (vx * mx + vy * my + vz * mz)
    hvv = factor * quadratic(matrix, vx, vy, vz) - shift
    mean, half = (huu + hvv) * real(0.5), (huu - hvv) * real(0.5)
    radius = math.sqrt(half * half + huv * huv)
    bound = max(real(SMALLEST_CURVATURE) * abs(amplitude), real(1e-18))
    large, small = abs(mean + radius), abs(mean - radius)
    # Also where an eigenvalue is positive: a search can end where there is no peak.
    bounded = mean + radius > -bound
    first, second = -one / max(large, bound), -one / max(small, bound)
    even = (first + second) * real(0.5)
    odd = (first - second) * real(0.5) / radius if radius > zero else zero
    iuu, ivv, iuv = even + odd * half, even - odd * half, odd * huv
    wx, wy, wz = vector
    along_u, along_v = ux * wx + uy * wy + uz * wz, vx * wx + vy * wy + vz * wz
    p, q = iuu * along_u + iuv * along_v, iuv * along_u + ivv * along_v
    return p * ux + q * vx, p * uy + q * vy, p * uz + q * vz, bounded
