"""Tractogram files of any size, read a block of streamlines at a time."""

from __future__ import annotations

import os
import struct
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol
from zipfile import BadZipFile

import nibabel as nib
import numpy as np
import torch
from jaxtyping import Float
from nibabel.streamlines import Field
from nibabel.streamlines.tractogram_file import DataError, HeaderError
from numpy.typing import NDArray

from difftract_bids.core.kernels.delimited import ODD, split
from difftract_bids.errors import InputError
from difftract_bids.io.read_ahead import read_ahead
from difftract_bids.io.streamline_arrays import StreamlineArrays
from difftract_bids.io.trx_members import TrxMembers

#: What the readers raise on files that are truncated or of another format.
_UNREADABLE = (
    *(OSError, ValueError, TypeError, KeyError, EOFError, IndexError, struct.error),
    *(BadZipFile, HeaderError, DataError, NotImplementedError),
)
_REMEDY = "Give a complete .trx, .tck or .trk file."
#: TCK headers are text; one that is longer than this is none.
_LONGEST_HEADER = 1 << 20
#: Rows of a TCK file that are read at a time: they stay in the processor's cache.
_TCK_ROWS = 1 << 15
_TCK_TYPES = {
    "float32le": "<f4",
    "float32be": ">f4",
    "float64le": "<f8",
    "float64be": ">f8",
    "float32": "=f4",
    "float64": "=f8",
}


def iter_tractogram(
    path: str | os.PathLike[str], *, max_points: int = 1_000_000
) -> Iterator[StreamlineArrays]:
    """Read a TRX, TCK or TRK file a block of streamlines at a time, in bounded memory.

    Parameters
    ----------
    path
        File ending in ``.trx`` (a folder of that name is one, too), ``.tck`` or ``.trk``.
    max_points
        Vertices in a block; more only where a single streamline has more. Where PyTorch may use
        several threads, the next block is read while one is worked on.

    Yields
    ------
    StreamlineArrays
        Streamlines in the file's order, vertices in RAS+ millimetres and float32; from a
        tractogram without streamlines, nothing.

    Raises
    ------
    InputError
        If the file is missing, truncated or of another format, or a streamline has no vertex or
        one that is not finite.
    """
    source = Path(path)
    blocks = _checked(_reader(source), source, max(int(max_points), 1))
    yield from read_ahead(blocks) if torch.get_num_threads() > 1 else blocks


def _checked(
    read: _Read, source: Path, max_points: int
) -> Generator[StreamlineArrays, None, None]:
    n_before = 0
    with _readable(source):
        for block in read(source, max_points):
            _check(block, n_before, source)
            n_before += block.n_streamlines
            yield block


def count_streamlines(path: str | os.PathLike[str]) -> int:
    """Count the streamlines of a TRX, TCK or TRK file, by its header where that says so.

    Raises
    ------
    InputError
        If the file is missing, truncated or of another format.
    """
    source = Path(path)
    read = _reader(source)
    with _readable(source):
        promised = _promised(source)
        if promised:
            return promised
        return sum(block.n_streamlines for block in read(source, 1_000_000))


class _Read(Protocol):
    def __call__(self, source: Path, max_points: int) -> Iterator[StreamlineArrays]: ...


def _reader(source: Path) -> _Read:
    readers: dict[str, _Read] = {".trx": _read_trx, ".tck": _read_tck, ".trk": _read_trk}
    if source.suffix not in readers:
        raise InputError(
            f"{source.suffix or 'No extension'} is not a tractogram format that can be read.",
            where=source,
            remedy=_REMEDY,
        )
    return readers[source.suffix]


def _promised(source: Path) -> int | None:
    """Look up the number of streamlines in the header; 0 and none say nothing."""
    if source.suffix == ".tck":
        return _tck_header(source).n_streamlines
    if source.suffix == ".trx":
        with TrxMembers(source) as members:
            return members.n_streamlines
    return _trk_count(source)


@contextmanager
def _readable(source: Path) -> Iterator[None]:
    try:
        yield
    except _UNREADABLE as error:
        raise InputError(
            f"The tractogram cannot be read: {error}.", where=source, remedy=_REMEDY
        ) from error


def _check(block: StreamlineArrays, n_before: int, source: Path) -> None:
    """Refuse streamlines that nothing can be made of, and tell which they are."""
    empty = np.flatnonzero(np.diff(block.offsets) == 0)
    if len(empty):
        raise _unusable(source, empty + n_before, "no vertex")
    # TCK has none of these: in it they are marks.
    if source.suffix != ".tck" and not np.isfinite(block.points).all():
        bad = np.flatnonzero(~np.isfinite(block.points).all(axis=1))
        lines = np.unique(np.searchsorted(block.offsets, bad, side="right")) - 1
        raise _unusable(source, lines + n_before, "a vertex that is not finite")


def _unusable(source: Path, lines: NDArray[np.integer[Any]], what: str) -> InputError:
    return InputError(
        f"{len(lines)} or more streamlines have {what}; the first is number {lines[0]}, counted "
        "from 0.",
        where=source,
        remedy="Write the tractogram again without them, and its weights with it.",
    )


def _truncated(source: Path, what: str) -> InputError:
    return InputError(
        f"The tractogram is truncated: {what}.", where=source, remedy="Copy or make it again."
    )


class _TckHeader(NamedTuple):
    """Where vertices start and how they are written; the count of streamlines if it is there."""

    start: int
    dtype: np.dtype[Any]
    n_streamlines: int | None


def _tck_header(source: Path) -> _TckHeader:
    entries: dict[str, str] = {}
    with source.open("rb") as stream:
        if stream.readline(64).strip() != b"mrtrix tracks":
            raise ValueError("its first line is not 'mrtrix tracks'")
        while (line := stream.readline(_LONGEST_HEADER).decode(errors="replace").strip()) != "END":
            if not line or stream.tell() > _LONGEST_HEADER:
                raise ValueError("its header has no END")
            name, _, value = line.partition(":")
            entries[name.strip().lower()] = value.strip()
    place = entries.get("file", ". ").split()
    if len(place) != 2 or place[0] != ".":
        raise ValueError("its vertices are not in the same file")
    kind = entries.get("datatype", "float32le").lower()
    if kind not in _TCK_TYPES:
        raise ValueError(f"its datatype is {kind}, none of {', '.join(_TCK_TYPES)}")
    count = entries.get("count", "")
    return _TckHeader(
        int(place[1]), np.dtype(_TCK_TYPES[kind]), int(count) if count.isdigit() else None
    )


def _read_tck(source: Path, max_points: int) -> Iterator[StreamlineArrays]:
    """Read TCK of MRtrix3: vertices, NaN after each streamline, infinity at the end."""
    header = _tck_header(source)
    n_rows = (source.stat().st_size - header.start) // (3 * header.dtype.itemsize)
    rows = np.empty((min(_TCK_ROWS, max_points), 3), dtype=header.dtype)
    size = max(min(max_points, n_rows), len(rows))
    block = _TckBlock(size, np.zeros((0, 3), np.float32))
    n_read, state = 0, 0
    with source.open("rb") as stream:
        stream.seek(header.start)
        while state == 0:
            n_filled = _fill(stream, rows) // rows[0].nbytes
            state = block.take(rows[:n_filled])
            if state == ODD:
                number = np.array([n_read + block.n_streamlines])
                raise _unusable(source, number, "a vertex that is not finite")
            if state == 0 and n_filled < len(rows):
                n_read += block.n_streamlines
                raise _truncated(source, f"it has no end mark after {n_read} streamlines")
            if state or block.is_full:
                n_read += block.n_streamlines
                if block.n_streamlines:
                    yield block.streamlines()
                block = _TckBlock(size, block.rest())
    promised = header.n_streamlines
    if len(block.rest()) or (promised and n_read < promised):
        of = f" of {promised}" if promised else ""
        raise _truncated(source, f"{n_read}{of} streamlines are whole")


class _TckBlock:
    """Streamlines of a TCK file, and the beginning of one.

    Parameters
    ----------
    size
        Vertices that there is room for, besides those that are there.
    begun
        Vertices of a streamline that has begun.
    """

    def __init__(self, size: int, begun: Float[np.ndarray, "k 3"]) -> None:
        self._points = np.empty((len(begun) + size, 3), dtype=np.float32)
        self._points[: len(begun)] = begun
        self._ends = np.zeros(size + 1, dtype=np.int64)
        self._n_points, self._n_ends = len(begun), 1
        self._n_rows, self._size = 0, size

    @property
    def n_streamlines(self) -> int:
        return self._n_ends - 1

    def take(self, rows: NDArray[Any]) -> int:
        """Take rows; say whether they ended with a mark, as `split` does."""
        native = rows.astype(rows.dtype.newbyteorder("="), copy=False)
        self._n_rows += len(rows)
        self._n_points, self._n_ends, state = split(
            native, self._points, self._n_points, self._ends, self._n_ends
        )
        return state

    @property
    def is_full(self) -> bool:
        """There may be no room for as many rows again."""
        return self._n_rows + min(_TCK_ROWS, self._size) > self._size

    def streamlines(self) -> StreamlineArrays:
        """Give those that are whole."""
        offsets = self._ends[: self._n_ends].copy()
        return StreamlineArrays(self._points[: offsets[-1]], offsets)

    def rest(self) -> Float[np.ndarray, "k 3"]:
        """Give the beginning of the next."""
        return self._points[self._ends[self._n_ends - 1] : self._n_points]


def _fill(stream: IO[bytes], buffer: NDArray[Any]) -> int:
    """Read as much as there is room for; give the number of bytes."""
    view = buffer.data.cast("B")
    n_bytes = 0
    while n_bytes < len(view) and (n_more := stream.readinto(view[n_bytes:])):  # type: ignore[attr-defined]
        n_bytes += n_more
    return n_bytes


def _read_trx(source: Path, max_points: int) -> Iterator[StreamlineArrays]:
    """Read TRX: as many offsets as fit a block, then their vertices."""
    with TrxMembers(source) as members:
        at = 0  # vertices read
        left = np.zeros(0, dtype=np.int64)  # ends of streamlines that are still to be read
        for ends in members.ends():
            left = np.concatenate([left, ends])
            if (np.diff(left, prepend=at) < 0).any():
                raise ValueError("its offsets do not rise")
            while len(left) and left[-1] - at >= max_points:
                block, left = _next_of(members, at, left, max_points)
                at += len(block.points)
                yield block
        while len(left):
            block, left = _next_of(members, at, left, max_points)
            at += len(block.points)
            yield block
        if at != members.n_vertices:
            raise _truncated(source, f"{at} of {members.n_vertices} vertices are in streamlines")


def _next_of(
    members: TrxMembers, at: int, left: NDArray[Any], max_points: int
) -> tuple[StreamlineArrays, NDArray[Any]]:
    n = max(int(np.searchsorted(left, at + max_points, side="right")), 1)
    offsets = np.concatenate([[0], left[:n] - at]).astype(np.int64)
    return StreamlineArrays(members.vertices(int(offsets[-1])), offsets), left[n:]


def _read_trk(source: Path, max_points: int) -> Iterator[StreamlineArrays]:
    """Read TRK of TrackVis, a streamline at a time, as nibabel does."""
    promised = _trk_count(source)
    n_read = 0
    for block in _blocks(_lazy_trk(source), max_points):
        n_read += block.n_streamlines
        yield block
    if promised and n_read < promised:
        raise _truncated(source, f"{n_read} of {promised} streamlines are there")


def _lazy_trk(source: Path) -> Iterator[Float[np.ndarray, "vertex 3"]]:
    tractogram = nib.streamlines.load(source, lazy_load=True).tractogram.to_world(lazy=True)
    for streamline in tractogram.streamlines:
        yield np.asarray(streamline, dtype=np.float32)


def _trk_count(source: Path) -> int | None:
    header = nib.streamlines.load(source, lazy_load=True).header
    return int(header[Field.NB_STREAMLINES]) or None


def _blocks(
    streamlines: Iterator[Float[np.ndarray, "vertex 3"]], max_points: int
) -> Iterator[StreamlineArrays]:
    waiting: list[Float[np.ndarray, "vertex 3"]] = []
    n_points = 0
    for streamline in streamlines:
        if waiting and n_points + len(streamline) > max_points:
            yield _joined(waiting)
            waiting, n_points = [], 0
        waiting.append(streamline)
        n_points += len(streamline)
    if waiting:
        yield _joined(waiting)


def _joined(streamlines: list[Float[np.ndarray, "vertex 3"]]) -> StreamlineArrays:
    counts = [len(streamline) for streamline in streamlines]
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return StreamlineArrays(np.concatenate(streamlines), offsets)
