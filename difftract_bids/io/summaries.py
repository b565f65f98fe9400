"""Streamlines in short: seed, ends and length of each, in a Parquet file of any size."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int

from difftract_bids.errors import DifftractError, InputError
from difftract_bids.io.aside import AsideFile, explained

_SEED = "seed_index"
_ENDS_MM = [f"{end}_{axis}_mm" for end in ("first", "last") for axis in "xyz"]
_LENGTH = "length_mm"
_SCHEMA = pa.schema(
    [(_SEED, pa.int64()), *((name, pa.float32()) for name in [*_ENDS_MM, _LENGTH])]
)
#: Rows of a row group: enough to be read fast, few enough to be kept in memory (36 bytes each).
_GROUP_ROWS = 1 << 18


class StreamlineSummary(NamedTuple):
    """What a connectome needs of streamlines, before any thinning.

    Attributes
    ----------
    seed_index
        Number of the seed each streamline came from.
    ends_mm
        First and last vertex, RAS+ millimetres.
    lengths_mm
        Arc length, millimetres.
    """

    seed_index: Int[np.ndarray, " n"]
    ends_mm: Float[np.ndarray, "n 2 3"]
    lengths_mm: Float[np.ndarray, " n"]


class SummaryWriter:
    """Write a summary a chunk of streamlines at a time, in bounded memory.

    A context manager. The file has its name only once it is whole; an exception in the block
    leaves what had that name before, and no other file.

    Parameters
    ----------
    path
        Parquet file to write, with the columns ``seed_index``, ``first_x_mm`` to ``last_z_mm``
        and ``length_mm``; its folder is made if need be.

    Raises
    ------
    DifftractError
        On entering, appending or leaving, if the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        self._waiting: list[pa.RecordBatch] = []
        self._aside: AsideFile | None = None
        self._parquet: pq.ParquetWriter | None = None

    def __enter__(self) -> Self:
        try:
            with explained(self.path):
                self._aside = AsideFile(self.path)
                # Coordinates hardly repeat: dictionaries would only cost time.
                self._parquet = pq.ParquetWriter(
                    self._aside.stream, _SCHEMA, compression="zstd", use_dictionary=False
                )
        except BaseException:
            self._discard()
            raise
        return self

    def append(self, summary: StreamlineSummary) -> None:
        """Write rows after those already there; coordinates and lengths are stored as float32.

        Raises
        ------
        ValueError
            If the three arrays are not of one length.
        DifftractError
            If the disk is full or the like; the file is given up.
        """
        batch = _to_batch(summary)
        parquet = self._open_parquet()
        try:
            self._waiting.append(batch)
            if sum(part.num_rows for part in self._waiting) >= _GROUP_ROWS:
                with explained(self.path):
                    self._flush(parquet)
        except BaseException:
            self._discard()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                parquet = self._open_parquet()
                with explained(self.path):
                    self._flush(parquet)
                    parquet.close()
                    if self._aside is not None:
                        self._aside.commit()
        finally:
            self._discard()

    def _open_parquet(self) -> pq.ParquetWriter:
        if self._parquet is None:
            raise DifftractError(
                "The summary is not open: it was not entered, or was given up when writing "
                "failed.",
                where=self.path,
                remedy="Append within the 'with' block, and let its errors end the block.",
            )
        return self._parquet

    def _flush(self, parquet: pq.ParquetWriter) -> None:
        if self._waiting:
            rows = pa.Table.from_batches(self._waiting, _SCHEMA).combine_chunks()
            parquet.write_table(rows, row_group_size=_GROUP_ROWS)
            self._waiting = []

    def _discard(self) -> None:
        if self._parquet is not None:
            with suppress(OSError, pa.ArrowException):
                self._parquet.close()
        if self._aside is not None:
            self._aside.discard()
        self._parquet = self._aside = None
        self._waiting = []


def write_summary(
    path: str | os.PathLike[str],
    seed_index: Int[np.ndarray, " n"],
    ends_mm: Float[np.ndarray, "n 2 3"],
    lengths_mm: Float[np.ndarray, " n"],
) -> Path:
    """Write a summary whole, see :class:`StreamlineSummary`.

    Returns
    -------
    Path
        The absolute path written.

    Raises
    ------
    ValueError
        If the three arrays are not of one length.
    DifftractError
        If the file cannot be written.
    """
    with SummaryWriter(path) as writer:
        writer.append(StreamlineSummary(seed_index, ends_mm, lengths_mm))
    return writer.path


def iter_summary(
    path: str | os.PathLike[str], batch: int = _GROUP_ROWS
) -> Iterator[StreamlineSummary]:
    """Read a summary at most ``batch`` streamlines at a time, in the order they were written.

    Raises
    ------
    InputError
        If the file is missing, truncated or not a summary.
    """
    try:
        with pq.ParquetFile(path) as source:
            missing = set(_SCHEMA.names) - set(source.schema_arrow.names)
            if missing:
                raise InputError(
                    f"The file lacks the columns {', '.join(sorted(missing))}.",
                    where=path,
                    remedy="Give a file of streamline ends that tracking wrote.",
                )
            for rows in source.iter_batches(batch, columns=_SCHEMA.names):
                yield _from_batch(rows)
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"The file of streamline ends cannot be read: {error}.",
            where=path,
            remedy="Track again.",
        ) from error


def read_summary(path: str | os.PathLike[str]) -> StreamlineSummary:
    """Read a summary whole.

    Raises
    ------
    InputError
        If the file is missing, truncated or not a summary.
    """
    nothing = StreamlineSummary(
        np.zeros(0, np.int64), np.zeros((0, 2, 3), np.float32), np.zeros(0, np.float32)
    )
    parts = [nothing, *iter_summary(path)]
    return StreamlineSummary(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _to_batch(summary: StreamlineSummary) -> pa.RecordBatch:
    n = len(summary.seed_index)
    if summary.ends_mm.shape != (n, 2, 3) or summary.lengths_mm.shape != (n,):
        raise ValueError(
            f"{n} seed numbers, ends {summary.ends_mm.shape} and lengths "
            f"{summary.lengths_mm.shape} do not belong together."
        )
    # Copied: rows may wait to be written while their arrays are used again.
    seeds = np.array(summary.seed_index, dtype=np.int64)
    coordinates = np.array(summary.ends_mm.reshape(n, 6).T, dtype=np.float32, order="C")
    lengths = np.array(summary.lengths_mm, dtype=np.float32)
    return pa.record_batch([seeds, *coordinates, lengths], schema=_SCHEMA)


def _from_batch(rows: pa.RecordBatch) -> StreamlineSummary:
    columns = [rows.column(name).to_numpy() for name in _SCHEMA.names]
    ends_mm = np.stack(columns[1:7], axis=1).reshape(-1, 2, 3)
    return StreamlineSummary(columns[0], ends_mm, columns[7])
