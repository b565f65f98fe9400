"""The parts of a TRX file, read as streams: positions and offsets, a slice at a time."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
from jaxtyping import Float, Int

#: Offsets that are read at a time.
_OFFSETS = 1 << 18
_TYPES = {
    "float16": "<f2",
    "float32": "<f4",
    "float64": "<f8",
    "uint32": "<u4",
    "uint64": "<u8",
    "int64": "<i8",
}


class TrxMembers:
    """Read a TRX file from its beginning, from the archive itself or from a folder.

    trx-python would unpack the archive on disk first, and map it into memory.

    Parameters
    ----------
    source
        A ZIP archive, or a folder with the same content.

    Attributes
    ----------
    n_streamlines, n_vertices
        What the header says.

    Raises
    ------
    OSError, ValueError, KeyError, zipfile.BadZipFile
        On entering or reading, if it is not a whole TRX file.

    References
    ----------
    https://github.com/tee-ar-ex/trx-spec/blob/master/specifications.md
    """

    def __init__(self, source: Path) -> None:
        self._source = source
        self._files = ExitStack()
        self.n_streamlines = self.n_vertices = 0

    def __enter__(self) -> Self:
        with self._files:
            self._zip = None
            if not self._source.is_dir():
                self._zip = self._files.enter_context(zipfile.ZipFile(self._source))
            header = json.loads(self._open("header.json").read())
            self.n_streamlines = int(header["NB_STREAMLINES"])
            self.n_vertices = int(header["NB_VERTICES"])
            if self.n_streamlines:
                self._positions, self._position_type = self._find("positions.3.")
                self._offsets, self._offset_type = self._find("offsets.")
            self._files = self._files.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._files.close()

    def ends(self) -> Iterator[Int[np.ndarray, " m"]]:
        """Yield, some at a time, how many vertices there are up to the end of each streamline."""
        left = self.n_streamlines
        if not left:
            return
        self._numbers(self._offsets, self._offset_type, 1)  # the first streamline starts at 0
        while left:
            # Older files lack the last end: it is the number of vertices.
            given = self._numbers(
                self._offsets, self._offset_type, min(left, _OFFSETS), may_end=True
            )
            missing = min(left, _OFFSETS) - len(given)
            if missing and (missing > 1 or left > _OFFSETS):
                raise ValueError(f"{left - len(given)} of {self.n_streamlines} offsets lack")
            yield np.append(given.astype(np.int64), [self.n_vertices] * missing)
            left -= len(given) + missing

    def vertices(self, n: int) -> Float[np.ndarray, "n 3"]:
        """Read the next so many vertices, RAS+ millimetres, in float32."""
        found = self._numbers(self._positions, self._position_type, 3 * n)
        return found.reshape(n, 3).astype(np.float32)

    def _numbers(
        self, member: IO[bytes], dtype: np.dtype[Any], n: int, *, may_end: bool = False
    ) -> np.ndarray[Any, Any]:
        content = member.read(n * dtype.itemsize)
        if len(content) < n * dtype.itemsize and not may_end:
            raise ValueError(f"{len(content)} of {n * dtype.itemsize} bytes are there")
        return np.frombuffer(content[: len(content) // dtype.itemsize * dtype.itemsize], dtype)

    def _find(self, prefix: str) -> tuple[IO[bytes], np.dtype[Any]]:
        for name in self._names():
            kind = name.removeprefix(prefix)
            if kind != name and kind in _TYPES:
                return self._open(name), np.dtype(_TYPES[kind])
        raise ValueError(f"it has no {prefix}*")

    def _names(self) -> list[str]:
        if self._zip is None:
            return sorted(path.name for path in self._source.iterdir())
        return self._zip.namelist()

    def _open(self, name: str) -> IO[bytes]:
        if self._zip is None:
            return self._files.enter_context((self._source / name).open("rb"))
        return self._files.enter_context(self._zip.open(name))
