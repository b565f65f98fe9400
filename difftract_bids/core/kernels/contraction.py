"""The two sums over tensor components that everything rests on, unrolled for each degree.

Loops over exponents would cost more than the arithmetic in them. So the source of each sum is
written out, one line a component, when a kernel is compiled for a degree: the functions here are
what it must compute, and what runs where nothing is compiled.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from difftract_bids.core.tensor_form import exponents

#: Exponents of the six entries of a symmetric matrix: xx, xy, xz, yy, yz, zz.
_PAIRS = exponents(2)


def place(exponent: tuple[int, int, int]) -> int:
    """Find the place of a component in the order of `exponents`."""
    _, b, c = exponent
    return (b + c) * (b + c + 1) // 2 + c


def multiplicity(exponent: tuple[int, int, int]) -> int:
    """Count the entries of a symmetric tensor that are equal to a component."""
    return math.factorial(sum(exponent)) // math.prod(map(math.factorial, exponent))


def matrix_of(tensor, x, y, z, order):
    """Apply a tensor to a direction until two slots are left: xx, xy, xz, yy, yz, zz."""
    matrix = [tensor[0] * 0] * 6
    for exponent in exponents(len(order) - 2):
        a, b, c = exponent
        weight = multiplicity(exponent) * x**a * y**b * z**c
        for entry, (i, j, k) in enumerate(_PAIRS):
            matrix[entry] += weight * tensor[place((a + i, b + j, c + k))]
    return tuple(matrix)


def slope_of(direction, along, order, result):
    """Differentiate the slope at a direction along a vector by each tensor component."""
    x, y, z = direction
    degree = len(order)
    for exponent in exponents(degree):
        total = x * 0
        for axis in range(3):
            if exponent[axis]:
                a, b, c = (n - (i == axis) for i, n in enumerate(exponent))
                weight = degree * multiplicity((a, b, c))
                total += weight * x**a * y**b * z**c * along[axis]
        result[place(exponent)] = total


def power_of(x, y, z, order, scale, result):
    """Add to ``result`` the derivative of ``scale`` times the amplitude by each component."""
    for exponent in exponents(len(order)):
        a, b, c = exponent
        result[place(exponent)] += scale * multiplicity(exponent) * x**a * y**b * z**c


def _powers(degree: int) -> list[str]:
    """Write the powers of x, y and z up to a degree, each from two of half its size."""
    lines = []
    for name in "xyz":
        lines += [f"{name}0 = real(1)", f"{name}1 = {name}"]
        lines += [f"{name}{k} = {name}{k // 2} * {name}{k - k // 2}" for k in range(2, degree + 1)]
    return lines


def _monomial(exponent: tuple[int, int, int], factor: int) -> str:
    a, b, c = exponent
    return f"real({factor}) * (x{a} * (y{b} * z{c}))"


def _function(arguments: str, array: str, lines: list[str]) -> Callable[..., Any]:
    body = [f"real = {array}.dtype.type", *lines]
    source = "\n    ".join([f"def unrolled({arguments}):", *body])
    namespace: dict[str, Any] = {}
    exec(source, namespace)  # noqa: S102 - made of nothing but the exponents above
    return namespace["unrolled"]


def unrolled_matrix(lmax: int) -> Callable[..., Any]:
    """Write `matrix_of` out for one degree."""
    lines = _powers(lmax - 2)
    for number, exponent in enumerate(exponents(lmax - 2)):
        lines.append(f"w = {_monomial(exponent, multiplicity(exponent))}")
        for entry, pair in enumerate(_PAIRS):
            at = place(tuple(a + i for a, i in zip(exponent, pair, strict=True)))  # type: ignore[arg-type]
            lines.append(f"m{entry} = {f'm{entry} + ' if number else ''}w * tensor[{at}]")
    return _function("tensor, x, y, z, order", "tensor", [*lines, "return m0, m1, m2, m3, m4, m5"])


def unrolled_slope(lmax: int) -> Callable[..., Any]:
    """Write `slope_of` out for one degree."""
    lines = ["x, y, z = direction", "u, v, w = along", *_powers(lmax - 1)]
    lines += [
        f"m{place(exponent)} = {_monomial(exponent, lmax * multiplicity(exponent))}"
        for exponent in exponents(lmax - 1)
    ]
    for a, b, c in exponents(lmax):
        fewer = (("u", (a - 1, b, c)), ("v", (a, b - 1, c)), ("w", (a, b, c - 1)))
        terms = [f"m{place(less)} * {name}" for name, less in fewer if min(less) >= 0]
        lines.append(f"result[{place((a, b, c))}] = {' + '.join(terms)}")
    return _function("direction, along, order, result", "result", lines)


def unrolled_power(lmax: int) -> Callable[..., Any]:
    """Write `power_of` out for one degree."""
    lines = _powers(lmax)
    lines += [
        f"result[{place(exponent)}] += scale * {_monomial(exponent, multiplicity(exponent))}"
        for exponent in exponents(lmax)
    ]
    return _function("x, y, z, order, scale, result", "result", lines)
