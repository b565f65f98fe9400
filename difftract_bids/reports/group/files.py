"""What the page of a group shows, read from the files that the group level wrote."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from difftract_bids.errors import InputError
from difftract_bids.io.matrices import read_matrix

_REMEDY = "Run the group level again."


@dataclass(frozen=True)
class GroupMatrix:
    """A matrix of a group."""

    path: Path
    sidecar: dict[str, Any]

    def values(self) -> tuple[Float[np.ndarray, "node node"], list[str]]:
        """Read it, and the names of its nodes."""
        return read_matrix(self.path)


@dataclass
class GroupAtlas:
    """Matrices of one atlas.

    Attributes
    ----------
    overall
        Of all sessions together, by measure and statistic; ``mean-consistent`` and
        ``mask-consistent`` are those of a threshold.
    sessions
        Mean of the first measure, by session.
    """

    overall: dict[str, dict[str, GroupMatrix]] = field(default_factory=dict)
    sessions: dict[str, GroupMatrix] = field(default_factory=dict)

    @property
    def first(self) -> str:
        """The measure that the largest picture shows: counts, if there are any."""
        return "count" if "count" in self.overall else next(iter(self.overall))


@dataclass(frozen=True)
class QualityTable:
    """The table of quality measures.

    Attributes
    ----------
    rows
        A dictionary a run.
    dictionary
        Data dictionary, by column.
    """

    rows: list[dict[str, str]]
    dictionary: dict[str, Any]

    @property
    def measures(self) -> list[str]:
        """Columns of numbers, in their order."""
        first = self.rows[0] if self.rows else {}
        return [name for name in first if "Fault" in self.dictionary.get(name, {})]

    def values(self, measure: str) -> Float[np.ndarray, " run"]:
        """Read a column; NaN for ``n/a``."""
        texts = [row[measure] for row in self.rows]
        return np.array([math.nan if text == "n/a" else float(text) for text in texts])


def read_quality(table: Path, dictionary: Path) -> QualityTable:
    """Read the table of quality measures and its dictionary.

    Raises
    ------
    InputError
        If one cannot be read.
    """
    try:
        with table.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t"))
        return QualityTable(rows, json.loads(dictionary.read_text(encoding="utf-8")))
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(
            f"The table of quality cannot be read: {error}.", where=table, remedy=_REMEDY
        ) from error


@dataclass(frozen=True)
class RunSimilarity:
    """How much runs are like each other in one atlas.

    Attributes
    ----------
    runs
        Names, in the order of rows and columns.
    matrix
        Correlations, symmetric; NaN where there is none.
    """

    runs: list[str]
    matrix: Float[np.ndarray, "run run"]


def read_similarities(tables: Sequence[Path]) -> dict[str, RunSimilarity]:
    """Read the tables of runs by runs, by the atlas that their sidecars name.

    Raises
    ------
    InputError
        If one, or its sidecar, cannot be read, or is not square.
    """
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    found = {}
    for path in tables:
        try:
            atlas = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["Atlas"]
            with path.open(encoding="utf-8") as stream:
                _, *runs = stream.readline().rstrip("\n").split("\t")
            kinds = {"run": pa.string(), **dict.fromkeys(runs, pa.float32())}
            table = arrow_csv.read_csv(
                path,
                parse_options=arrow_csv.ParseOptions(delimiter="\t"),
                convert_options=arrow_csv.ConvertOptions(column_types=kinds, null_values=["n/a"]),
            )
            named = table["run"].to_pylist()
            columns = [table[run].to_numpy() for run in runs]
        except (OSError, ValueError, KeyError) as error:  # Arrow's are ValueErrors
            raise InputError(
                f"The similarity of runs cannot be read: {error}.", where=path, remedy=_REMEDY
            ) from error
        if named != runs:
            raise InputError(
                "Rows and columns of the similarity are not the same runs.",
                where=path,
                remedy=_REMEDY,
            )
        found[atlas] = RunSimilarity(runs, np.array(columns, np.float32).T)
    return found


def read_atlases(matrices: Sequence[Path]) -> dict[str, GroupAtlas]:
    """Sort the matrices of a group by what their sidecars say.

    Raises
    ------
    InputError
        If a sidecar is missing, or not of a group.
    """
    atlases: dict[str, GroupAtlas] = {}
    for path in matrices:
        sidecar_path = path.with_name(path.name.replace(".dense.tsv", ".json"))
        try:
            sidecar = json.loads(sidecar_path.read_text(encoding="utf-8"))
            atlas, measure = sidecar["Atlas"], sidecar["RelationshipMeasure"]
            statistic = sidecar["Statistic"]
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"The sidecar of a matrix cannot be read: {error}.",
                where=sidecar_path,
                remedy=_REMEDY,
            ) from error
        matrix = GroupMatrix(path, sidecar)
        own = atlases.setdefault(atlas, GroupAtlas())
        if "ConsistencyThreshold" in sidecar:
            statistic += "-consistent"
        if "Session" not in sidecar:
            own.overall.setdefault(measure, {})[statistic] = matrix
        elif statistic == "mean" and measure == "count":
            own.sessions[sidecar["Session"]] = matrix
    return {name: own for name, own in atlases.items() if own.overall}
