"""`matrix_of` by whole vector registers, for processors: half the time of one number at a time.

The sum over a tensor's components is written out row by row of one power of x: a row's weights are
one register, and what they weigh lies at six places in a row in memory. Compilers do not find this
by themselves in a triangle of numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from difftract_bids.core.kernels.contraction import multiplicity

_FLAGS = ("contract", "reassoc", "nsz")
_INT32, _INT64 = ir.IntType(32), ir.IntType(64)


def lanes_of(lmax: int) -> int:
    """Find a power of two of numbers that holds the longest row."""
    return 8 if lmax <= 8 else 16


@intrinsic
def vector_matrix(typing_context, tensor, x, y, z, order):  # noqa: ARG001 - numba's signature
    """Apply a tensor to a direction until two slots are left: xx, xy, xz, yy, yz, zz.

    ``tensor`` is read beyond its last component, by less than `lanes_of`; what is there must be
    finite.
    """
    signature = types.UniTuple(tensor.dtype, 6)(tensor, x, y, z, order)

    def generate(context, builder, signature, arguments):
        array = signature.args[0]
        data = context.make_array(array)(context, builder, arguments[0]).data
        vectors = _Vectors(builder, context.get_value_type(array.dtype), lanes_of(len(order)))
        size = array.dtype.bitwidth // 8
        sums = _row_sums(vectors, data, size, arguments[1:4], len(order))
        results = [vectors.total(one) for one in sums]
        return context.make_tuple(builder, signature.return_type, results)

    return signature, generate


class _Vectors:
    """Arithmetic on registers of ``lanes`` numbers, as LLVM's instructions."""

    def __init__(self, builder: Any, scalar: Any, lanes: int) -> None:  # noqa: ANN401 - llvmlite is untyped
        self.builder, self.scalar, self.lanes = builder, scalar, lanes
        self.type = ir.VectorType(scalar, lanes)

    def constant(self, values: Sequence[float]) -> Any:  # noqa: ANN401
        return ir.Constant(self.type, [ir.Constant(self.scalar, float(v)) for v in values])

    def multiply(self, a: Any, b: Any) -> Any:  # noqa: ANN401
        return self.builder.fmul(a, b, flags=_FLAGS)

    def add(self, a: Any, b: Any) -> Any:  # noqa: ANN401
        return self.builder.fadd(a, b, flags=_FLAGS)

    def choose(self, a: Any, b: Any, places: Sequence[int]) -> Any:  # noqa: ANN401
        """Take lanes of two registers, those of the second counted after those of the first."""
        mask = ir.VectorType(_INT32, len(places))
        indices = ir.Constant(mask, [ir.Constant(_INT32, place) for place in places])
        return self.builder.shuffle_vector(a, b, indices)

    def spread(self, number: Any) -> Any:  # noqa: ANN401
        """Fill a register with one number."""
        anything = ir.Constant(self.type, ir.Undefined)
        one = self.builder.insert_element(anything, number, ir.Constant(_INT32, 0))
        return self.choose(one, anything, [0] * self.lanes)

    def powers(self, number: Any, degrees: Sequence[int]) -> Any:  # noqa: ANN401
        """Raise a number to another power in each lane, by its powers of 2, 4 and 8."""
        ones = self.constant([1.0] * self.lanes)
        power, result, bit = self.spread(number), ones, 1
        while bit <= max(degrees):
            places = [self.lanes + i if degree & bit else i for i, degree in enumerate(degrees)]
            result = self.multiply(result, self.choose(ones, power, places))
            power, bit = self.multiply(power, power), 2 * bit
        return result

    def load(self, data: Any, place: int, size: int) -> Any:  # noqa: ANN401
        at = self.builder.gep(data, [ir.Constant(_INT64, place)])
        pointer = self.builder.bitcast(at, self.type.as_pointer())
        return self.builder.load(pointer, align=size)

    def total(self, vector: Any) -> Any:  # noqa: ANN401
        """Add all lanes up, halves first."""
        lanes = self.lanes
        while lanes > 1:
            lanes //= 2
            low = self.choose(vector, vector, range(lanes))
            high = self.choose(vector, vector, range(lanes, 2 * lanes))
            vector = self.add(low, high)
        return self.builder.extract_element(vector, ir.Constant(_INT32, 0))


def _row_sums(v: _Vectors, data: Any, size: int, direction: Sequence[Any], lmax: int) -> list[Any]:  # noqa: ANN401
    """Sum weights times components over the rows; row r has the r + 1 components of x^(m - r)."""
    x, y, z = direction
    m = lmax - 2
    z_powers = v.powers(z, [min(c, m) for c in range(v.lanes)])
    y_powers = v.powers(y, [max(m - c, 0) for c in range(v.lanes)])
    x_powers = v.powers(x, [max(m - r, 0) for r in range(v.lanes)])
    zeros = v.constant([0.0] * v.lanes)
    sums: list[Any] = [zeros] * 6
    for r in range(m + 1):
        # y^(r - c) in lane c: the powers moved down to end with y^0.
        y_row = v.choose(y_powers, zeros, [m - r + c for c in range(v.lanes)])
        counts = [multiplicity((m - r, r - c, c)) if c <= r else 0 for c in range(v.lanes)]
        x_row = v.choose(x_powers, x_powers, [r] * v.lanes)
        weights = v.multiply(v.multiply(v.multiply(y_row, z_powers), v.constant(counts)), x_row)
        # The components of one and two more y or z begin a row, or two, further on.
        row, next_row, second_row = (n * (n + 1) // 2 for n in (r, r + 1, r + 2))
        places = (row, next_row, next_row + 1, second_row, second_row + 1, second_row + 2)
        for entry, place in enumerate(places):
            term = v.multiply(weights, v.load(data, place, size))
            sums[entry] = v.add(sums[entry], term)
    return sums


def matrix_by_vectors(lmax: int) -> Callable[..., Any]:
    """Give `matrix_of` for one degree, as a function that can be compiled."""
    del lmax  # the tuple ``order`` says it again

    def matrix(tensor, x, y, z, order):
        return vector_matrix(tensor, x, y, z, order)

    return matrix
