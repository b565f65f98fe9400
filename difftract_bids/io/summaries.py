"""Streamlines in short: seed, ends, length and means of each, in a Parquet file of any size."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType, TracebackType
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
    samples
        What images hold along each, by their names; NaN where a streamline is outside one.
    """

    seed_index: Int[np.ndarray, " n"]
    ends_mm: Float[np.ndarray, "n 2 3"]
    lengths_mm: Float[np.ndarray, " n"]
    samples: Mapping[str, Float[np.ndarray, " n"]] = MappingProxyType({})


class SummaryWriter:
    """Write a summary a chunk of streamlines at a time, in bounded memory.

    A context manager. The file has its name only once it is whole; an exception in the block
    leaves what had that name before, and no other file.

    Parameters
    ----------
    path
        Parquet file to write, with the columns ``seed_index``, ``first_x_mm`` to ``last_z_mm``
        and ``length_mm``; its folder is made if need be.
    samples
        Names of the images that streamlines were sampled in, each a column more.

    Raises
    ------
    DifftractError
        On entering, appending or leaving, if the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], samples: Sequence[str] = ()) -> None:
        self.path = Path(path).absolute()
        self._schema = pa.schema([*_SCHEMA, *((name, pa.float32()) for name in samples)])
        self._waiting: list[pa.RecordBatch] = []
        self._aside: AsideFile | None = None
        self._parquet: pq.ParquetWriter | None = None

    def __enter__(self) -> Self:
        try:
            with explained(self.path):
                self._aside = AsideFile(self.path)
                # Coordinates hardly repeat: dictionaries would only cost time.
                self._parquet = pq.ParquetWriter(
                    self._aside.stream, self._schema, compression="zstd", use_dictionary=False
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
            If the arrays are not of one length, or not of the images named at first.
        DifftractError
            If the disk is full or the like; the file is given up.
        """
        batch = _to_batch(summary, self._schema)
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
            rows = pa.Table.from_batches(self._waiting, self._schema).combine_chunks()
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
    samples: Mapping[str, Float[np.ndarray, " n"]] = MappingProxyType({}),
) -> Path:
    """Write a summary whole, see :class:`StreamlineSummary`.

    Returns
    -------
    Path
        The absolute path written.

    Raises
    ------
    ValueError
        If the arrays are not of one length.
    DifftractError
        If the file cannot be written.
    """
    with SummaryWriter(path, tuple(samples)) as writer:
        writer.append(StreamlineSummary(seed_index, ends_mm, lengths_mm, samples))
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
            for rows in source.iter_batches(batch):
                yield _from_batch(rows)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error


def lengths_of(path: str | os.PathLike[str]) -> Float[np.ndarray, " n"]:
    """Read the lengths of all streamlines of a summary, millimetres.

    Raises
    ------
    InputError
        If it is no such file.
    """
    batches = [batch.lengths_mm for batch in iter_summary(path)]
    return np.concatenate([np.zeros(0, dtype=np.float32), *batches])


def count_summary(path: str | os.PathLike[str]) -> tuple[int, tuple[str, ...]]:
    """Say how many streamlines a summary has, and the images they were sampled in.

    Raises
    ------
    InputError
        If the file is missing, truncated or not a summary.
    """
    try:
        with pq.ParquetFile(path) as source:
            names = [name for name in source.schema_arrow.names if name not in _SCHEMA.names]
            return source.metadata.num_rows, tuple(names)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str | os.PathLike[str], error: Exception) -> InputError:
    return InputError(
        f"The file of streamline ends cannot be read: {error}.", where=path, remedy="Track again."
    )


def join_summaries(parts: Sequence[StreamlineSummary]) -> StreamlineSummary:
    """Put summaries one after the other; those of one file."""
    if not parts:
        return StreamlineSummary(
            np.zeros(0, np.int64), np.zeros((0, 2, 3), np.float32), np.zeros(0, np.float32)
        )
    samples = {
        name: np.concatenate([part.samples[name] for part in parts]) for name in parts[0].samples
    }
    arrays = [np.concatenate([part[field] for part in parts]) for field in range(3)]
    return StreamlineSummary(arrays[0], arrays[1], arrays[2], samples)


def read_summary(path: str | os.PathLike[str]) -> StreamlineSummary:
    """Read a summary whole.

    Raises
    ------
    InputError
        If the file is missing, truncated or not a summary.
    """
    parts = list(iter_summary(path))
    if parts:
        return join_summaries(parts)
    return join_summaries([])._replace(
        samples={name: np.zeros(0, np.float32) for name in count_summary(path)[1]}
    )


def _to_batch(summary: StreamlineSummary, schema: pa.Schema) -> pa.RecordBatch:
    n = len(summary.seed_index)
    of_images = {name: np.shape(values) for name, values in summary.samples.items()}
    wanted = dict.fromkeys(schema.names[len(_SCHEMA) :], (n,))
    if (
        summary.ends_mm.shape != (n, 2, 3)
        or summary.lengths_mm.shape != (n,)
        or of_images != wanted
    ):
        raise ValueError(
            f"{n} seed numbers, ends {summary.ends_mm.shape}, lengths "
            f"{summary.lengths_mm.shape} and samples {of_images} do not belong together."
        )
    # Copied: rows may wait to be written while their arrays are used again.
    seeds = np.array(summary.seed_index, dtype=np.int64)
    coordinates = np.array(summary.ends_mm.reshape(n, 6).T, dtype=np.float32, order="C")
    lengths = np.array(summary.lengths_mm, dtype=np.float32)
    sampled = [np.array(summary.samples[name], dtype=np.float32) for name in wanted]
    return pa.record_batch([seeds, *coordinates, lengths, *sampled], schema=schema)


def _from_batch(rows: pa.RecordBatch) -> StreamlineSummary:
    columns = {name: rows.column(name).to_numpy() for name in rows.schema.names}
    ends_mm = np.stack([columns[name] for name in _ENDS_MM], axis=1).reshape(-1, 2, 3)
    samples = {name: values for name, values in columns.items() if name not in _SCHEMA.names}
    return StreamlineSummary(columns[_SEED], ends_mm, columns[_LENGTH], samples)
