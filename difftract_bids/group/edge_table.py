"""All edges of all runs in one tidy table, written while runs come and read a run at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int

from difftract_bids.errors import InputError
from difftract_bids.group.files import Run
from difftract_bids.group.measures import rule_of
from difftract_bids.group.triangles import triangle
from difftract_bids.io.aside import AsideFile, explained

_NAMES = pa.dictionary(pa.int32(), pa.string())
#: What tells the rows apart, in this order.
KEYS = ("participant_id", "session_id", "run", "atlas", "node_1", "node_2")
#: Rows of a row group, at least: some tens of megabytes in memory. Runs are never split.
_GROUP_ROWS = 1 << 18


class EdgeTable:
    """Write a row for every edge of every run, in bounded memory.

    A context manager. The file has its name only once it is whole.

    Parameters
    ----------
    path
        Parquet file to write.
    measures
        Names of the columns of values.

    Raises
    ------
    DifftractError
        If the file cannot be written.
    """

    def __init__(self, path: Path, measures: Sequence[str]) -> None:
        self.path = path
        self._measures = tuple(measures)
        self._schema = pa.schema(
            [(name, _NAMES) for name in KEYS] + [(name, pa.float64()) for name in measures]
        )
        self._waiting: list[dict[str, pa.Array]] = []
        self._n_waiting = 0

    def __enter__(self) -> Self:
        with explained(self.path):
            self._aside = AsideFile(self.path)
            try:
                self._parquet = pq.ParquetWriter(
                    self._aside.stream,
                    self._schema,
                    compression="zstd",
                    compression_level=1,
                    use_dictionary=list(KEYS),
                    write_statistics=list(KEYS[:4]),
                )
            except BaseException:
                self._aside.discard()
                raise
        return self

    def append(
        self,
        run: Run,
        atlas: str,
        names: Sequence[str],
        values: Mapping[str, Float[np.ndarray, " edge"]],
    ) -> None:
        """Write the edges of one run and atlas.

        Parameters
        ----------
        run, atlas
            What they are of.
        names
            Nodes, in the order of the matrices.
        values
            Upper triangle with the diagonal, row after row, by measure. Where an edge has no
            value, there is none in the table: neither NaN, nor the 0 of a mean over nothing.
        """
        first, second = triangle(len(names))
        nodes = pa.array(names, pa.string())
        session = None if run.session is None else f"ses-{run.session}"
        said = {
            "participant_id": f"sub-{run.participant}",
            "session_id": session,
            "run": run.stem,
            "atlas": atlas,
        }
        rows: dict[str, pa.Array] = {
            name: _repeated(text, len(first)) for name, text in said.items()
        }
        for name, index in (("node_1", first), ("node_2", second)):
            rows[name] = pa.DictionaryArray.from_arrays(index.astype(np.int32), nodes)
        for measure in self._measures:
            rows[measure] = _column(measure, values.get(measure), len(first))
        self._waiting.append(rows)
        self._n_waiting += len(first)
        if self._n_waiting >= _GROUP_ROWS:
            self._flush()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._flush()
                with explained(self.path):
                    self._parquet.close()
                    self._aside.commit()
        finally:
            with suppress(OSError, pa.ArrowException):
                self._parquet.close()
            self._aside.discard()

    def _flush(self) -> None:
        if not self._waiting:
            return
        columns = [
            _joined([rows[name] for rows in self._waiting], name) for name in self._schema.names
        ]
        table = pa.Table.from_arrays(columns, schema=self._schema)
        with explained(self.path):
            self._parquet.write_table(table, row_group_size=table.num_rows)
        self._waiting, self._n_waiting = [], 0


class RunEdges(NamedTuple):
    """The edges of one run and atlas, as :func:`iter_runs` reads them.

    Attributes
    ----------
    participant, session, run, atlas
        Whose they are; ``sub-01``, ``ses-A`` or ``None``, ``sub-01_ses-A``, ``ICBM100``.
    nodes
        Names of both nodes of each edge: index into ``names``.
    names
        Names of nodes.
    values
        The measure; NaN where there is none.
    """

    participant: str
    session: str | None
    run: str
    atlas: str
    nodes: Int[np.ndarray, "2 edge"]
    names: list[str]
    values: Float[np.ndarray, " edge"]


def measures_in(path: Path) -> list[str]:
    """List the measures of a table of edges.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    with _readable(path), pq.ParquetFile(path) as table:
        return [name for name in table.schema_arrow.names if name not in KEYS]


def iter_runs(path: Path, measure: str) -> Iterator[RunEdges]:
    """Read one measure, a run and atlas at a time, in the order in which they were written.

    Raises
    ------
    InputError
        If the file is missing, truncated, or not such a table.
    """
    with _readable(path), pq.ParquetFile(path) as table:
        for group in range(table.num_row_groups):
            rows = table.read_row_group(group, columns=[*KEYS, measure]).combine_chunks()
            columns = {name: _first_chunk(rows.column(name)) for name in rows.schema.names}
            yield from _split(columns, measure)


class _readable:  # noqa: N801 - used as a function
    """Turn Arrow's refusals into an error that names the file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, OSError | pa.ArrowException | KeyError):
            raise InputError(
                f"The table of edges cannot be read: {error}.",
                where=self._path,
                remedy="Run the group level again.",
            ) from error


def _first_chunk(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def _split(columns: Mapping[str, Any], measure: str) -> Iterator[RunEdges]:
    """Cut rows where the run or the atlas changes."""
    codes = {name: np.asarray(columns[name].indices.fill_null(-1)) for name in KEYS}
    words = {name: columns[name].dictionary.to_pylist() for name in KEYS}
    values = columns[measure].to_numpy(zero_copy_only=False)
    changes = (np.diff(codes["run"]) != 0) | (np.diff(codes["atlas"]) != 0)
    bounds = [0, *(np.flatnonzero(changes) + 1), len(values)]
    # Nodes of both columns by one list of names.
    names = list(dict.fromkeys(words["node_1"] + words["node_2"]))
    index = {name: i for i, name in enumerate(names)}
    place = {k: np.array([index[name] for name in words[k]]) for k in ("node_1", "node_2")}
    for start, stop in pairwise(bounds):
        said = {
            name: words[name][codes[name][start]] if codes[name][start] >= 0 else None
            for name in KEYS[:4]
        }
        nodes = np.stack([place[k][codes[k][start:stop]] for k in ("node_1", "node_2")])
        yield RunEdges(
            said["participant_id"] or "",
            said["session_id"],
            said["run"] or "",
            said["atlas"] or "",
            nodes,
            names,
            values[start:stop],
        )


def _repeated(text: str | None, n: int) -> pa.Array:
    dictionary = pa.array([] if text is None else [text], pa.string())
    indices = pa.nulls(n, pa.int32()) if text is None else pa.array(np.zeros(n, np.int32))
    return pa.DictionaryArray.from_arrays(indices, dictionary)


def _column(measure: str, values: Float[np.ndarray, " edge"] | None, n: int) -> pa.Array:
    if values is None:
        return pa.nulls(n, pa.float64())
    there = np.isfinite(values)
    if not rule_of(measure).zero_is_a_value:
        there &= values != 0
    return pa.array(values, mask=~there)


def _joined(parts: list[pa.Array], name: str) -> pa.Array:
    column = pa.chunked_array(parts)
    if name in KEYS:
        column = column.unify_dictionaries()
    return column.combine_chunks()
