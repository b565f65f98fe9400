"""How the functions of this folder are compiled: one source for processors and for GPUs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.extending import overload

#: Sums may be reordered and contracted into fused operations; NaN and infinity keep their meaning.
_OPTIONS: dict[str, Any] = {
    "fastmath": {"contract", "reassoc", "nsz"},
    "error_model": "numpy",
    "nogil": True,
    # No array is made inside, so none needs counting: the counting took two thirds of the time.
    "_nrt": False,
}


def device_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a function that kernels call; CUDA kernels compile it again for their own target."""
    return numba.njit(**_OPTIONS)(function)


def exact_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a function that kernels call, and whose operations are made one by one as written."""
    return numba.njit(**{**_OPTIONS, "fastmath": False})(function)


def add_to(array, i, j, value):
    """Add to an entry: plainly where each thread has an array of its own, else atomically."""
    array[i, j] += value


@overload(add_to, target="cpu")
def _add_alone(array, i, j, value):  # noqa: ARG001 - the compiler looks at the names
    def add(array, i, j, value):
        array[i, j] += value

    return add


def compile_as(
    function: Callable[..., Any],
    write: Callable[[int], Callable[..., Any]],
    *,
    target: str,
    inline: str = "never",
) -> None:
    """Let a target compile another form in place of a function, written for its degree.

    Parameters
    ----------
    function
        One with an argument ``order``, a tuple as long as the degree.
    write
        Gives the form for a degree, with the same arguments.
    target
        ``"cpu"`` or ``"cuda"``.
    """
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    namespace: dict[str, Any] = {"write": write}
    # The compiler wants the same argument names as the function's.
    exec(f"def choose({', '.join(names)}): return write(len(order))", namespace)  # noqa: S102
    overload(function, target=target, inline=inline)(namespace["choose"])


def host_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function that Python calls, and keep the result on disk where that is possible."""
    try:
        return numba.njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # there is nowhere to write to: a read-only container, no home
        return numba.njit(**_OPTIONS)(function)


@cache
def source_digest() -> str:
    """Digest everything that kernels are made of.

    Numba's cache on disk looks only at the file of the function that Python calls. A kernel that
    closes over this digest has another name there when any other part of it changes.
    """
    core = Path(__file__).parents[1]
    sources = [*sorted(Path(__file__).parent.glob("*.py"))]
    sources += [
        core / name
        for name in ("anatomy.py", "peaks.py", "regions.py", "streamlines.py", "tensor_form.py")
    ]
    content = b"".join(source.read_bytes() for source in sources)
    return hashlib.sha256(content).hexdigest()
