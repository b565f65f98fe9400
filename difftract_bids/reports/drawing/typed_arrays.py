"""Numbers inside a page: base64 of their bytes, which a script reads as a typed array."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TYPES = {
    "u1": "Uint8Array",
    "i2": "Int16Array",
    "u2": "Uint16Array",
    "u4": "Uint32Array",
    "f4": "Float32Array",
}


def coded(array: NDArray[Any]) -> dict[str, str]:
    """Write an array as the name of JavaScript's type and the bytes, first axis outermost.

    Parameters
    ----------
    array
        8, 16 or 32 bits unsigned, 16 bits signed, or float32.
    """
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    kind = f"{array.dtype.kind}{array.dtype.itemsize}"
    return {"type": _TYPES[kind], "base64": base64.b64encode(little.tobytes()).decode("ascii")}


def run_lengths(flags: NDArray[np.bool_]) -> NDArray[np.uint16]:
    """Tell how many are false, then true, then false, ... of flags in the order of memory (C)."""
    flat = np.concatenate([[False], flags.ravel()])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    lengths = np.diff(np.concatenate([[0], changes, [flags.size]]))
    longest = np.iinfo(np.uint16).max
    if lengths.max(initial=0) <= longest:
        return lengths.astype(np.uint16)
    parts: list[int] = []
    for length in lengths.tolist():
        # A run that is too long is interrupted by nothing of the other kind.
        whole, rest = divmod(length, longest)
        parts += [longest, 0] * whole + [rest]
    return np.array(parts, dtype=np.uint16)
