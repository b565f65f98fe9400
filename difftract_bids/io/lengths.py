"""Whether a file is as long as its header promises, without reading all of it."""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from pathlib import Path

from difftract_bids.errors import InputError


def check_length(path: Path, n_bytes: int) -> None:
    """Check that a file, compressed or not, holds at least so many bytes.

    A gzip file ends with the length of its content (modulo 2³²), a truncated one with something
    else; only where the two differ, as they do in files of several parts, it is read whole.

    Parameters
    ----------
    path
        The file; compressed if its name ends in ``.gz`` or ``.mgz``.
    n_bytes
        Bytes needed, after decompression.

    Raises
    ------
    InputError
        If the file is shorter, or cannot be read.
    """
    try:
        size = (
            _unpacked_size(path, n_bytes)
            if path.suffix in {".gz", ".mgz"}
            else path.stat().st_size
        )
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"The image cannot be read: {error}.",
            where=path,
            remedy="Check that it was copied completely, or convert it again.",
        ) from error
    if size < n_bytes:
        raise InputError(
            f"The image is truncated: {size} of {n_bytes} bytes are there.",
            where=path,
            remedy="Copy or convert it again.",
        )


def _unpacked_size(path: Path, expected: int) -> int:
    with path.open("rb") as stream:
        stream.seek(-4, os.SEEK_END)
        (trailer,) = struct.unpack("<I", stream.read(4))
    if trailer == expected % 2**32:
        return expected
    total = 0
    with gzip.open(path) as unpacked:
        while chunk := unpacked.read(1 << 24):
            total += len(chunk)
    return total
