"""Sums of outer products by whole vector registers: what small dense algebra spends its time on.

A tile of `HEIGHT` rows and `BLOCK` columns of the sum stays in registers while all products are
added to it. Compilers do not find this by themselves: they load and store the sum each time.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

#: Columns of a tile: the numbers in the widest register.
BLOCK = 8
#: Rows of a tile.
HEIGHT = 4

_FLAGS = ("contract", "reassoc", "nsz")
_INT64 = ir.IntType(64)


def padded(n: int) -> int:
    """Round a number of columns, and one more, up to whole tiles."""
    return -(-(n + 1) // BLOCK) * BLOCK


@intrinsic
def add_products(typing_context, matrix, i, j, rows, chosen, weights, count):  # noqa: ARG001 - numba's signature
    """Add weighted outer products of rows with themselves to one tile of a matrix.

    ``matrix[i:i+4, j:j+8] += sum over r < count of weights[r] * outer(row[i:i+4], row[j:j+8])``
    with ``row = rows[chosen[r]]``. All arrays are contiguous, and all of the tile exists.
    """
    signature = types.none(matrix, i, j, rows, chosen, weights, count)

    def generate(context, builder, signature, arguments):
        arrays = {}
        for name, place in (("matrix", 0), ("rows", 3), ("chosen", 4), ("weights", 5)):
            made = context.make_array(signature.args[place])
            arrays[name] = made(context, builder, arguments[place])
        size = context.get_value_type(signature.args[0].dtype)
        _Tile(builder, size, arrays, arguments[1], arguments[2]).emit(arguments[6])
        return context.get_dummy_value()

    return signature, generate


class _Tile:
    """LLVM's instructions for one tile."""

    def __init__(self, builder: Any, scalar: Any, arrays: dict[str, Any], i: Any, j: Any) -> None:  # noqa: ANN401 - llvmlite is untyped
        self.builder, self.scalar = builder, scalar
        self.vector = ir.VectorType(scalar, BLOCK)
        self.arrays, self.i, self.j = arrays, i, j
        self.size = 8 if isinstance(scalar, ir.DoubleType) else 4

    def emit(self, count: Any) -> None:  # noqa: ANN401
        build = self.builder
        lines = [build.add(self.i, _INT64(k)) for k in range(HEIGHT)]
        places = [self._vector_at("matrix", line, self.j) for line in lines]
        sums = [cgutils.alloca_once(build, self.vector) for _ in range(HEIGHT)]
        for total, place in zip(sums, places, strict=True):
            build.store(build.load(place, align=self.size), total)
        with cgutils.for_range(build, count) as loop:
            weight = build.load(build.gep(self.arrays["weights"].data, [loop.index]))
            row = build.load(build.gep(self.arrays["chosen"].data, [loop.index]))
            across = build.load(self._vector_at("rows", row, self.j), align=self.size)
            across = build.fmul(across, self._spread(weight), flags=_FLAGS)
            for line, total in zip(lines, sums, strict=True):
                down = build.load(self._element("rows", row, line))
                product = build.fmul(self._spread(down), across, flags=_FLAGS)
                build.store(build.fadd(build.load(total), product, flags=_FLAGS), total)
        for total, place in zip(sums, places, strict=True):
            build.store(build.load(total), place, align=self.size)

    def _element(self, name: str, row: Any, column: Any) -> Any:  # noqa: ANN401
        width = self.builder.extract_value(self.arrays[name].shape, 1)
        place = self.builder.add(self.builder.mul(row, width), column)
        return self.builder.gep(self.arrays[name].data, [place])

    def _vector_at(self, name: str, row: Any, column: Any) -> Any:  # noqa: ANN401
        return self.builder.bitcast(self._element(name, row, column), self.vector.as_pointer())

    def _spread(self, number: Any) -> Any:  # noqa: ANN401
        anything = ir.Constant(self.vector, ir.Undefined)
        one = self.builder.insert_element(anything, number, ir.IntType(32)(0))
        mask = ir.Constant(ir.VectorType(ir.IntType(32), BLOCK), [ir.IntType(32)(0)] * BLOCK)
        return self.builder.shuffle_vector(one, anything, mask)
