"""Small dense linear algebra for compiled code: factors of 5 to 100 rows, upper triangles in rows.

Rows are walked from left to right only, so that each inner loop is one stream of numbers; with
sums by tiles that makes it several times faster than LAPACK's calls at these sizes. Matrices have
rows and columns padded with zeros to whole tiles; below the diagonal, within a tile, they hold
nothing that means anything.
"""

from __future__ import annotations

from difftract_bids.core.kernels.target import device_function
from difftract_bids.core.kernels.tile import BLOCK, HEIGHT, add_products


@device_function
def add_rows(matrix, rows, chosen, weights, count):
    """Add weighted outer products of some rows with themselves to an upper triangle."""
    size = matrix.shape[1]
    for i in range(0, size, HEIGHT):
        for j in range(i // BLOCK * BLOCK, size, BLOCK):
            add_products(matrix, i, j, rows, chosen, weights, count)


@device_function
def cholesky(matrix, n, counting, minus):
    """Factor a symmetric matrix, its upper triangle given, into R'R; False if it is not positive.

    The reciprocals of the diagonal are put on it. Columns from ``n`` on are solved along: what is
    b there becomes the solution of R'x = b.

    Parameters
    ----------
    matrix
        Replaced by the factor.
    n
        Rows of it.
    counting, minus
        0, 1, 2, ... and as many times -1.
    """
    size = matrix.shape[1]
    for i in range(0, n, HEIGHT):
        first = i // BLOCK * BLOCK
        for j in range(first, size, BLOCK):
            add_products(matrix, i, j, matrix, counting, minus, i)
        if not _factor_panel(matrix, i, first, n):
            return False
    return True


@device_function
def _factor_panel(matrix, i, first, n):
    """Factor four rows: the square on the diagonal in numbers, then all columns in one sweep.

    Rows beyond the last one have nothing on the diagonal, and stay zeros.
    """
    a, b, c, d = matrix[i], matrix[i + 1], matrix[i + 2], matrix[i + 3]
    ra = _inverse_root(a[i], i < n)
    ab, ac, ad = ra * a[i + 1], ra * a[i + 2], ra * a[i + 3]
    rb = _inverse_root(b[i + 1] - ab * ab, i + 1 < n)
    bc, bd = rb * (b[i + 2] - ab * ac), rb * (b[i + 3] - ab * ad)
    rc = _inverse_root(c[i + 2] - ac * ac - bc * bc, i + 2 < n)
    cd = rc * (c[i + 3] - ac * ad - bc * bd)
    rd = _inverse_root(d[i + 3] - ad * ad - bd * bd - cd * cd, i + 3 < n)
    for j in range(first, matrix.shape[1]):
        aj = ra * a[j]
        bj = rb * (b[j] - ab * aj)
        cj = rc * (c[j] - ac * aj - bc * bj)
        d[j] = rd * (d[j] - ad * aj - bd * bj - cd * cj)
        a[j], b[j], c[j] = aj, bj, cj
    a[i], b[i + 1], c[i + 2], d[i + 3] = ra, rb, rc, rd
    return min(ra, rb, rc, rd) >= 0.0


@device_function
def _inverse_root(pivot, exists):
    """Take 1 / sqrt of a pivot; -1 if it is not positive, 0 if there is none."""
    if not exists:
        return 0.0
    return 1.0 / pivot**0.5 if pivot > 0.0 else -1.0


@device_function
def solve_upper(factor, x, n):
    """Solve Rx = b, b being the column after the factor's, which is that of `cholesky`."""
    for k in range(n - 1, -1, -1):
        total = factor[k, n]
        for j in range(k + 1, n):
            total -= factor[k, j] * x[j]
        x[k] = total * factor[k, k]


@device_function
def combine_rows(rows, weights, n, result):
    """Sum rows times weights: ``result = weights @ rows``."""
    for j in range(rows.shape[1]):
        result[j] = 0.0
    whole = n // 4 * 4
    for k in range(0, whole, 4):
        a, b, c, d = weights[k], weights[k + 1], weights[k + 2], weights[k + 3]
        for j in range(rows.shape[1]):
            ab = a * rows[k, j] + b * rows[k + 1, j]
            result[j] += ab + c * rows[k + 2, j] + d * rows[k + 3, j]
    for k in range(whole, n):
        a = weights[k]
        for j in range(rows.shape[1]):
            result[j] += a * rows[k, j]
