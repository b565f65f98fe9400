"""Image values along streamlines, one streamline at a time, on processors.

See `difftract_bids.core.connectome.sampling` for what is computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import cache
from typing import NamedTuple

import numba
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from difftract_bids.core.kernels.target import device_function, host_kernel, source_digest
from difftract_bids.core.kernels.threads import Span, first_come, in_turn, share

#: Streamlines that a thread takes at a time: about a millisecond of work.
_PORTION = 128

#: MRtrix adds in float32, vertex by vertex, which is up to 1e-5 off the sum over a long
#: streamline. So must float32 here, if it is to give the same: sums may not be reordered.
_in_order = numba.njit(nogil=True, error_model="numpy", _nrt=False)


class _Cell(NamedTuple):
    """Corners of the cell that a position is in, how far in, and along which axes it may move."""

    inside: bool
    i: int
    j: int
    k: int
    i1: int
    j1: int
    k1: int
    fu: float
    fv: float
    fw: float
    varies_u: bool
    varies_v: bool
    varies_w: bool


@device_function
def _cell_of(image, ras2vox, x, y, z):
    """Find the cell: in bounds is -0.5 < v < size - 0.5, and the rim is its edge voxel's."""
    u = ras2vox[0, 0] * x + ras2vox[0, 1] * y + ras2vox[0, 2] * z + ras2vox[0, 3]
    v = ras2vox[1, 0] * x + ras2vox[1, 1] * y + ras2vox[1, 2] * z + ras2vox[1, 3]
    w = ras2vox[2, 0] * x + ras2vox[2, 1] * y + ras2vox[2, 2] * z + ras2vox[2, 3]
    last_u, last_v, last_w = image.shape[0] - 1.0, image.shape[1] - 1.0, image.shape[2] - 1.0
    inside = u > -0.5 and v > -0.5 and w > -0.5
    inside = inside and u < last_u + 0.5 and v < last_v + 0.5 and w < last_w + 0.5
    cu, cv, cw = min(max(u, 0.0), last_u), min(max(v, 0.0), last_v), min(max(w, 0.0), last_w)
    # Not negative, so that cutting the fraction off is rounding down.
    i, j, k = int(cu), int(cv), int(cw)
    # In the rim no next voxel is looked at: its weight is 0, but 0 times NaN is NaN.
    i1 = min(i + int(u >= 0.0), image.shape[0] - 1)
    j1 = min(j + int(v >= 0.0), image.shape[1] - 1)
    k1 = min(k + int(w >= 0.0), image.shape[2] - 1)
    varies_u, varies_v, varies_w = 0.0 < u < last_u, 0.0 < v < last_v, 0.0 < w < last_w
    fu, fv, fw = cu - i, cv - j, cw - k
    return _Cell(inside, i, j, k, i1, j1, k1, fu, fv, fw, varies_u, varies_v, varies_w)


@device_function
def _weights(image, cell):
    """Weigh the corners of a cell; float32 leaves out the smallest, as MRtrix does."""
    real = image.dtype.type
    fu, fv, fw = cell.fu, cell.fv, cell.fw
    # In float64 as yet: 1 - f has lost its digits in float32 where f is nearly 1.
    gu, gv, gw = 1.0 - fu, 1.0 - fv, 1.0 - fw
    a, b, c, d = gu * gv, gu * fv, fu * gv, fu * fv
    w0, w1, w2, w3 = real(a * gw), real(a * fw), real(b * gw), real(b * fw)
    w4, w5, w6, w7 = real(c * gw), real(c * fw), real(d * gw), real(d * fw)
    if image.itemsize == 4:
        tiny, zero = real(1e-6), real(0.0)
        w0, w1 = w0 if w0 >= tiny else zero, w1 if w1 >= tiny else zero
        w2, w3 = w2 if w2 >= tiny else zero, w3 if w3 >= tiny else zero
        w4, w5 = w4 if w4 >= tiny else zero, w5 if w5 >= tiny else zero
        w6, w7 = w6 if w6 >= tiny else zero, w7 if w7 >= tiny else zero
    return w0, w1, w2, w3, w4, w5, w6, w7


@device_function
def _corners(image, c):
    """Look up the corners of a cell, in the order of their weights."""
    return (
        image[c.i, c.j, c.k],
        image[c.i, c.j, c.k1],
        image[c.i, c.j1, c.k],
        image[c.i, c.j1, c.k1],
        image[c.i1, c.j, c.k],
        image[c.i1, c.j, c.k1],
        image[c.i1, c.j1, c.k],
        image[c.i1, c.j1, c.k1],
    )


@device_function
def _blend(image, cell):
    if not cell.inside:
        return image.dtype.type(0.0)
    w0, w1, w2, w3, w4, w5, w6, w7 = _weights(image, cell)
    v0, v1, v2, v3, v4, v5, v6, v7 = _corners(image, cell)
    return (w0 * v0 + w1 * v1) + (w2 * v2 + w3 * v3) + (w4 * v4 + w5 * v5) + (w6 * v6 + w7 * v7)


@device_function
def _value_at(image, ras2vox, point):
    return _blend(image, _cell_of(image, ras2vox, point[0], point[1], point[2]))


@device_function
def _distance(a, b):
    x, y, z = b[0] - a[0], b[1] - a[1], b[2] - a[2]
    return math.sqrt(x * x + y * y + z * z)


@_in_order
def mean_along(image, ras2vox, points):
    """Average the values at the vertices, weighed by half the segments on both sides."""
    real = image.dtype.type
    integral, total, before = real(0.0), real(0.0), real(0.0)
    last = len(points) - 1
    for i in range(len(points)):
        after = real(_distance(points[i], points[i + 1])) if i < last else real(0.0)
        length = (before + after) * real(0.5)
        integral += _value_at(image, ras2vox, points[i]) * length
        total += length
        before = after
    return integral / total if total > 0.0 else real(0.0)


@device_function
def smallest_along(image, ras2vox, points, sign):
    """Find the smallest of the values times a sign; NaN values do not count."""
    best = image.dtype.type(math.inf)
    for i in range(len(points)):
        value = _value_at(image, ras2vox, points[i]) * sign
        best = min(best, value) if value == value else best  # noqa: PLR0124 - NaN is not itself
    return best * sign


@device_function
def median_along(image, ras2vox, points, values):
    """Find the median, between the middle two if need be; NaN values do not count."""
    n = 0
    for i in range(len(points)):
        value = _value_at(image, ras2vox, points[i])
        if value == value:  # noqa: PLR0124 - NaN is not itself
            values[n] = value
            n += 1
    if n == 0:
        return image.dtype.type(math.nan)
    upper = _select(values, n, n // 2)
    if n % 2:
        return upper
    lower = values[0]
    for i in range(1, n // 2):
        lower = max(lower, values[i])
    return (lower + upper) * image.dtype.type(0.5)


@device_function
def _select(values, n, rank):
    """Bring the value of a rank to its place, smaller ones before it (Hoare 1961, Find)."""
    low, high = 0, n - 1
    while low < high:
        pivot, i, j = values[(low + high) // 2], low, high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while pivot < values[j]:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if rank <= j:
            high = j
        elif rank >= i:
            low = i
        else:
            break
    return values[rank]


@device_function
def pull_back_mean(image, ras2vox, points, cotangent, to_points, to_image):
    """Add the derivatives by the vertices and by the image of `mean_along`."""
    last = len(points) - 1
    if cotangent == 0.0:  # so that a mean that is NaN, and not used, leaves no NaN behind
        return
    total = integral = before = 0.0
    for i in range(last):
        value = _value_at(image, ras2vox, points[i])
        after = _distance(points[i], points[i + 1])
        integral += value * (before + after)
        total += 2.0 * after
        before = after
    if not total > 0.0:
        return
    integral += _value_at(image, ras2vox, points[last]) * before
    mean, scale = integral / total, cotangent / total
    before = value_before = 0.0
    for i in range(last + 1):
        cell = _cell_of(image, ras2vox, points[i, 0], points[i, 1], points[i, 2])
        value = _blend(image, cell)
        after = _distance(points[i], points[i + 1]) if i < last else 0.0
        if cell.inside:
            slope = scale * (before + after)
            _pull_back_value(image, ras2vox, cell, slope, to_points[i], to_image)
        if before > 0.0:
            # A longer segment draws the mean towards its own.
            slope = scale * (value_before + value - 2.0 * mean) / before
            for axis in range(3):
                step = slope * (points[i, axis] - points[i - 1, axis])
                to_points[i, axis] += step
                to_points[i - 1, axis] -= step
        before, value_before = after, value


@device_function
def _pull_back_value(image, ras2vox, c, slope, to_point, to_image):
    w0, w1, w2, w3, w4, w5, w6, w7 = _weights(image, c)
    v0, v1, v2, v3, v4, v5, v6, v7 = _corners(image, c)
    to_image[c.i, c.j, c.k] += slope * w0
    to_image[c.i, c.j, c.k1] += slope * w1
    to_image[c.i, c.j1, c.k] += slope * w2
    to_image[c.i, c.j1, c.k1] += slope * w3
    to_image[c.i1, c.j, c.k] += slope * w4
    to_image[c.i1, c.j, c.k1] += slope * w5
    to_image[c.i1, c.j1, c.k] += slope * w6
    to_image[c.i1, c.j1, c.k1] += slope * w7
    fu, fv, fw = c.fu, c.fv, c.fw
    gu, gv, gw = 1.0 - fu, 1.0 - fv, 1.0 - fw
    by_u = (v4 - v0) * gv * gw + (v5 - v1) * gv * fw + (v6 - v2) * fv * gw + (v7 - v3) * fv * fw
    by_v = (v2 - v0) * gu * gw + (v3 - v1) * gu * fw + (v6 - v4) * fu * gw + (v7 - v5) * fu * fw
    by_w = (v1 - v0) * gu * gv + (v3 - v2) * gu * fv + (v5 - v4) * fu * gv + (v7 - v6) * fu * fv
    by_u, by_v, by_w = by_u * c.varies_u, by_v * c.varies_v, by_w * c.varies_w
    for axis in range(3):
        to_point[axis] += slope * (
            ras2vox[0, axis] * by_u + ras2vox[1, axis] * by_v + ras2vox[2, axis] * by_w
        )


def statistic_along(
    image: Float[Tensor, "x y z"],
    ras2vox: Float[Tensor, "4 4"],
    points: Float[Tensor, "p 3"],
    offsets: Int[Tensor, " n+1"],
    statistic: str,
) -> Float[Tensor, " n"]:
    """Find a statistic of each streamline, in the type that image and points share."""
    given = tuple(_array(x) for x in (image, ras2vox[:3], points, offsets))
    counts = np.diff(given[3])
    result = np.empty(len(counts), dtype=given[0].dtype)
    kernels = _kernels()

    def work_on(spans: Iterable[Span]) -> None:
        values = np.empty(counts.max(initial=0), dtype=result.dtype)
        for at, end in spans:
            if statistic == "mean":
                kernels.mean(*given, at, end, result)
            elif statistic == "median":
                kernels.median(*given, at, end, result, values)
            else:
                sign = result.dtype.type(1 if statistic == "min" else -1)
                kernels.smallest(*given, at, end, result, sign)

    share(work_on, first_come(len(result), _PORTION))
    return torch.from_numpy(result)


def pull_back_means(
    image: Float[Tensor, "x y z"],
    ras2vox: Float[Tensor, "4 4"],
    points: Float[Tensor, "p 3"],
    offsets: Int[Tensor, " n+1"],
    cotangent: Float[Tensor, " n"],
) -> tuple[Float[Tensor, "x y z"], Float[Tensor, "p 3"]]:
    """Pass derivatives by the means on; each thread adds into an image of its own, float64."""
    given = tuple(_array(x) for x in (image, ras2vox[:3], points, offsets, cotangent))
    to_points = np.zeros(points.shape, dtype=given[0].dtype)
    kernel = _kernels().pull_back

    def work_on(spans: Iterable[Span]) -> np.ndarray:
        to_image = np.zeros(image.shape)
        for at, end in spans:
            kernel(*given, at, end, to_points, to_image)
        return to_image

    total, *others = share(work_on, in_turn(len(offsets) - 1, _PORTION))
    for to_image in others:
        total += to_image
    return torch.from_numpy(total).to(image.dtype), torch.from_numpy(to_points)


class _Kernels(NamedTuple):
    mean: Callable[..., None]
    median: Callable[..., None]
    smallest: Callable[..., None]
    pull_back: Callable[..., None]


@cache
def _kernels() -> _Kernels:
    return _made_of(source_digest())


def _made_of(digest: str) -> _Kernels:
    """Compile what loops over a portion; the digest makes a kernel's name in the cache on disk."""

    @host_kernel
    def mean_portion(image, ras2vox, points, offsets, at, end, result):
        _ = digest
        for i in range(at, end):
            result[i] = mean_along(image, ras2vox, points[offsets[i] : offsets[i + 1]])

    @host_kernel
    def median_portion(image, ras2vox, points, offsets, at, end, result, values):
        _ = digest
        for i in range(at, end):
            mine = points[offsets[i] : offsets[i + 1]]
            result[i] = median_along(image, ras2vox, mine, values)

    @host_kernel
    def smallest_portion(image, ras2vox, points, offsets, at, end, result, sign):
        _ = digest
        for i in range(at, end):
            mine = points[offsets[i] : offsets[i + 1]]
            result[i] = smallest_along(image, ras2vox, mine, sign)

    @host_kernel
    def pull_back_portion(
        image, ras2vox, points, offsets, cotangent, at, end, to_points, to_image
    ):
        _ = digest
        for i in range(at, end):
            mine = slice(offsets[i], offsets[i + 1])
            pull_back_mean(image, ras2vox, points[mine], cotangent[i], to_points[mine], to_image)

    return _Kernels(mean_portion, median_portion, smallest_portion, pull_back_portion)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()
