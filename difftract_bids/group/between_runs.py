"""How much the connectome of each run is like that of each other: a matrix of runs by atlas."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import numpy as np
from jaxtyping import Float

from difftract_bids import __version__
from difftract_bids.group.correlations import correlations
from difftract_bids.group.edge_table import RunEdges, iter_runs, measures_in
from difftract_bids.io.aside import AsideFile, explained
from difftract_bids.io.atomic import write_json

#: Of more runs, pairs are too many for a file that anybody opens, and a picture of them.
MOST_RUNS = 5000
#: Of so many bytes, or so many runs if these are more, one block of runs is.
_BLOCK_BYTES, _LEAST_ROWS = 1 << 22, 32
_UNKNOWN = "n/a"
_DESCRIPTION = (
    "Similarity of connectomes: Pearson's correlation of log(1 + count) between each run and each "
    "other, over the pairs of different nodes that both have; symmetric. n/a where a matrix is "
    "empty or the same everywhere, and where two have fewer than two such pairs in common"
)


def compare_runs(edges: Path, folder: Path) -> tuple[list[Path], list[str]]:
    """Correlate the connectome of each run with that of each other, atlas by atlas.

    The measure is that of the table of quality, but between two runs rather than with the mean of
    others. Memory does not grow with runs but by a number for each pair: counts wait in a file
    without a name, and are read from it in blocks.

    Parameters
    ----------
    edges
        Table of edges. Without counts there is nothing to compare.
    folder
        Where ``atlas-X_meas-count_similarity.tsv`` is written, with a sidecar: runs as header and
        first column, in the order of the table. Of a single run, there is none.

    Returns
    -------
    files
        The tables.
    notes
        Atlases of more than :data:`MOST_RUNS` runs, which are left out.

    Raises
    ------
    InputError
        If the table of edges cannot be read.
    DifftractError
        If a file cannot be written.
    """
    files: list[Path] = []
    notes: list[str] = []
    if "count" not in measures_in(edges):
        return files, notes
    with ExitStack() as stack:
        atlases: dict[str, _Waiting] = {}
        for run in iter_runs(edges, "count"):
            if run.atlas not in atlases:
                atlases[run.atlas] = stack.enter_context(_Waiting(folder))
            atlases[run.atlas].add(run)
        for atlas, waiting in atlases.items():
            n_runs = len(waiting.runs)
            if n_runs > MOST_RUNS:
                notes.append(
                    f"{n_runs:,} runs of atlas {atlas} are not compared with each other, which is "
                    f"done of up to {MOST_RUNS:,}. Similarity with the mean of the others is in "
                    "the table of quality."
                )
            elif n_runs > 1:
                path = folder / f"atlas-{atlas}_meas-count_similarity.tsv"
                write_similarity(waiting.correlations(), waiting.runs, path)
                with explained(folder):
                    write_json(path.with_suffix(".json"), _sidecar(atlas, n_runs))
                files.append(path)
    return files, notes


def write_similarity(
    similarity: Float[np.ndarray, "run run"], runs: list[str], path: Path
) -> Path:
    """Write a table of runs by runs, their names as header and first column.

    Parameters
    ----------
    similarity
        Symmetric; NaN, which is not known, is written as ``n/a``.
    runs
        Names, in the order of rows and columns.
    path
        TSV file; it has its name only once it is whole.

    Raises
    ------
    DifftractError
        If it cannot be written.
    """
    pattern = "\t".join(["%.5g"] * len(runs))
    with explained(path):
        aside = AsideFile(path)
        try:
            aside.stream.write(("\t".join(["run", *runs]) + "\n").encode())
            for name, row in zip(runs, similarity, strict=True):
                cells = (pattern % tuple(row)).replace("nan", _UNKNOWN)
                aside.stream.write(f"{name}\t{cells}\n".encode())
            aside.commit()
        finally:
            aside.discard()
    return path


class _Waiting:
    """log(1 + count) of all runs of one atlas, in a file that goes when this ends.

    A row holds the pairs of different nodes that were known when it came. In the order of pairs,
    new nodes only add to the end: later runs may have longer rows.
    """

    def __init__(self, folder: Path) -> None:
        self.runs: list[str] = []
        self._folder = folder
        self._index: dict[str, int] = {}
        self._starts = [0]

    def __enter__(self) -> Self:
        with explained(self._folder):
            self._file = tempfile.TemporaryFile(dir=self._folder)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, run: RunEdges) -> None:
        self.runs.append(run.run)
        if len(self.runs) > MOST_RUNS:  # counted, and no more
            return
        # Names of a row group may be of several atlases: only those of this run's edges count.
        index = np.full(len(run.names), -1)
        for i in np.flatnonzero(np.bincount(run.nodes.ravel())):
            index[i] = self._index.setdefault(run.names[i], len(self._index))
        first, second = index[run.nodes]
        high, low = np.maximum(first, second), np.minimum(first, second)
        apart = high > low
        n_nodes = len(self._index)
        row = np.full(n_nodes * (n_nodes - 1) // 2, np.nan, np.float32)
        row[(high * (high - 1) // 2 + low)[apart]] = np.log1p(run.values[apart])
        with explained(self._folder):
            self._file.write(row.tobytes())
        self._starts.append(self._starts[-1] + len(row))

    def correlations(self) -> Float[np.ndarray, "run run"]:
        """Correlate all runs, two blocks of them at a time."""
        n_runs, n_nodes = len(self.runs), len(self._index)
        n_pairs = n_nodes * (n_nodes - 1) // 2
        n_rows = max(_BLOCK_BYTES // (4 * max(n_pairs, 1)), _LEAST_ROWS)
        blocks = [slice(i, min(i + n_rows, n_runs)) for i in range(0, n_runs, n_rows)]
        found = np.full((n_runs, n_runs), np.nan, np.float32)
        for i, rows in enumerate(blocks):
            own = self._read(rows, n_pairs)
            for columns in blocks[i:]:
                other = own if columns == rows else self._read(columns, n_pairs)
                found[rows, columns] = correlations(own, other)
                found[columns, rows] = found[rows, columns].T
        known = np.isfinite(found.diagonal())
        found[known, known] = 1.0  # but for rounding
        return found

    def _read(self, rows: slice, n_pairs: int) -> Float[np.ndarray, "run pair"]:
        block = np.full((rows.stop - rows.start, n_pairs), np.nan, np.float32)
        self._file.seek(4 * self._starts[rows.start])
        for row, run in zip(block, range(rows.start, rows.stop), strict=True):
            n_own = self._starts[run + 1] - self._starts[run]
            row[:n_own] = np.frombuffer(self._file.read(4 * n_own), np.float32)
        return block


def _sidecar(atlas: str, n_runs: int) -> dict[str, Any]:
    return {
        "Description": _DESCRIPTION,
        "Atlas": atlas,
        "RelationshipMeasure": "count",
        "Units": "arbitrary",
        "RunCount": n_runs,
        "run": {
            "Description": "What the names of the run's files begin with; the other columns have "
            "the same names, in the same order"
        },
        "GeneratedBy": [{"Name": "difftract_bids", "Version": __version__}],
    }
