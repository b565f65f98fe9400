"""Correlations of many lists of values with each other, some of which have gaps."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

#: So many values of each list at a time: what is worked on then fits the processor's cache.
_COLUMNS = 1 << 14
#: A variance of less than this share of the mean square is rounding: all values are the same.
_ROUNDING = 1e-12


def correlations(
    first: Float[np.ndarray, "a value"], second: Float[np.ndarray, "b value"]
) -> Float[np.ndarray, "a b"]:
    """Correlate each list of one block with each of another.

    Pearson's correlation over the values that both have. All pairs at once are a matrix product;
    where lists have gaps, there are six of them: the numbers of common values, their sums, sums
    of squares and of products.

    Parameters
    ----------
    first, second
        A list a row; NaN where it has no value.

    Returns
    -------
    Float[np.ndarray, "a b"]
        NaN where fewer than two values are common, or those of one are all the same.
    """
    middle_a, middle_b = _middle(first), _middle(second)
    n, sum_a, sum_b, square_a, square_b, product = np.zeros((6, len(first), len(second)))
    for start in range(0, first.shape[1], _COLUMNS):
        columns = slice(start, start + _COLUMNS)
        a, has_a = _centred(first[:, columns], middle_a)
        b, has_b = _centred(second[:, columns], middle_b)
        product += a @ b.T
        if has_a.all() and has_b.all():
            n += a.shape[1]
            sum_a += a.sum(axis=1)[:, None]
            sum_b += b.sum(axis=1)
            square_a += (a**2).sum(axis=1)[:, None]
            square_b += (b**2).sum(axis=1)
        else:
            in_a, in_b = has_a.astype(np.float64), has_b.astype(np.float64)
            n += in_a @ in_b.T
            sum_a += a @ in_b.T
            sum_b += in_a @ b.T
            square_a += a**2 @ in_b.T
            square_b += in_a @ (b**2).T
    variance_a, variance_b = n * square_a - sum_a**2, n * square_b - sum_b**2
    vary = (n > 1) & (variance_a > _ROUNDING * n * square_a)
    vary &= variance_b > _ROUNDING * n * square_b
    scale = np.sqrt(np.where(vary, variance_a * variance_b, np.nan))
    return np.clip((n * product - sum_a * sum_b) / scale, -1.0, 1.0)


def _middle(values: Float[np.ndarray, "a value"]) -> Float[np.ndarray, "a 1"]:
    """Average each list: values around 0 lose less to rounding in sums of squares."""
    there = np.isfinite(values)
    total = np.sum(values, axis=1, where=there, dtype=np.float64, keepdims=True)
    return np.asarray(total / np.maximum(there.sum(axis=1, keepdims=True), 1))


def _centred(
    values: Float[np.ndarray, "a value"], middle: Float[np.ndarray, "a 1"]
) -> tuple[Float[np.ndarray, "a value"], Bool[np.ndarray, "a value"]]:
    there = np.isfinite(values)
    return np.where(there, values - middle, 0.0), there
