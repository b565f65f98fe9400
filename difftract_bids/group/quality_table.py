"""The table of quality measures of all runs, with what stands apart, and its data dictionary."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from difftract_bids.errors import InputError
from difftract_bids.group.outliers import LEAST_RUNS, Spread, spread_of
from difftract_bids.group.quality_columns import quality_columns
from difftract_bids.group.similarity import similarity_with_others
from difftract_bids.io.aside import explained
from difftract_bids.io.atomic import write_json
from difftract_bids.io.matrices import write_table

KEYS = ("participant_id", "session_id", "run")
_UNKNOWN, _NONE = "n/a", "none"
_REMEDY = "Run the group level again."
_DICTIONARY: dict[str, Any] = {
    "participant_id": {"Description": "Participant"},
    "session_id": {"Description": "Session; n/a where there are none"},
    "run": {"Description": "What the names of the run's files begin with"},
}
_FLAGS = (
    "Measures of this run that stand apart from those of all runs of the table, with commas "
    "between them; none if none does. n/a where no measure is known of {least} runs: the median "
    "absolute deviation of fewer rests on one or two of them. Of 5 values that are normally "
    "distributed one in 20 stands apart by chance at a threshold of 3.5, of 10 one in 60, of 50 "
    "one in 500"
)
_METHOD = (
    "A value stands apart beyond OutlierThreshold robust standard deviations from the median, on "
    "the side that is a fault: 1.4826 times the median absolute deviation or, where more than "
    "half of the values are the same, 1.2533 times the mean absolute deviation (Iglewicz and "
    "Hoaglin 1993, ISBN 978-0-87389-247-6). It is a hint where to look first, not a verdict"
)


def write_runs(rows: Sequence[Mapping[str, Any]], atlases: Sequence[str], path: Path) -> Path:
    """Write the measures of runs as TSV, a row each; what is not known is ``n/a``.

    Parameters
    ----------
    rows
        ``participant_id``, ``session_id``, ``run`` and measures by their names.
    atlases
        Those whose measures have columns.
    path
        File to write.
    """
    names = [name for name, _, _ in quality_columns(list(atlases))]
    columns: dict[str, list[Any]] = {key: [row[key] or _UNKNOWN for row in rows] for key in KEYS}
    columns |= {name: [_text(row.get(name)) for row in rows] for name in names}
    return write_table(columns, path)


def read_runs(path: Path) -> dict[str, list[str]]:
    """Read a table of runs: columns of text, by name.

    Raises
    ------
    InputError
        If it cannot be read, or is no such table.
    """
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            header, *rows = list(csv.reader(stream, delimiter="\t"))
        columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in header]
        table = dict(zip(header, columns, strict=True))
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(
            f"The table of runs cannot be read: {error}.", where=path, remedy=_REMEDY
        ) from error
    if not set(KEYS) <= set(table):
        raise InputError(
            f"The table of runs lacks columns: {', '.join(sorted(set(KEYS) - set(table)))}.",
            where=path,
            remedy=_REMEDY,
        )
    return table


def numbers(texts: Sequence[str]) -> Float[np.ndarray, " run"]:
    """Read a column of numbers; NaN for ``n/a``."""
    return np.array([math.nan if text == _UNKNOWN else float(text) for text in texts])


def assess_quality(runs: Path, edges: Path, threshold: float, folder: Path) -> tuple[Path, Path]:
    """Compare runs with each other, and say which stand apart.

    Parameters
    ----------
    runs
        What :func:`write_runs` wrote.
    edges
        Table of edges, for the similarity of connectomes.
    threshold
        Robust standard deviations from the median beyond which a measure is flagged.
    folder
        Where ``quality.tsv`` and ``quality.json`` are written.

    Returns
    -------
    table, dictionary
        Both files. The dictionary has median, robust standard deviation and limits of each
        measure.

    Raises
    ------
    InputError
        If a table cannot be read.
    """
    columns = read_runs(runs)
    atlases = [name.removeprefix("density_") for name in columns if name.startswith("density_")]
    row_of = {run: row for row, run in enumerate(columns["run"])}
    for (run, atlas), r in similarity_with_others(edges).items():
        if run in row_of and atlas in atlases:
            columns[f"similarity_{atlas}"][row_of[run]] = _text(r)
    spreads: dict[str, Spread | None] = {}
    flags: list[list[str]] = [[] for _ in columns["run"]]
    for name, column, _ in quality_columns(atlases):
        values = numbers(columns[name])
        spreads[name] = spread_of(values, threshold, column.fault)
        if spread := spreads[name]:
            for place in np.flatnonzero(spread.flagged(values)):
                flags[place].append(name)
    assessed = any(spreads.values())
    columns["outliers"] = [(",".join(own) or _NONE) if assessed else _UNKNOWN for own in flags]
    dictionary = folder / "quality.json"
    with explained(folder):
        table = write_table(columns, folder / "quality.tsv")
        write_json(dictionary, _dictionary(atlases, spreads, threshold))
    return table, dictionary


def _dictionary(
    atlases: list[str], spreads: Mapping[str, Spread | None], threshold: float
) -> dict[str, Any]:
    said: dict[str, Any] = {
        "Description": "Quality of each diffusion run, a row each; n/a where no file tells it",
        "OutlierThreshold": threshold,
        "OutlierMethod": _METHOD,
        **_DICTIONARY,
    }
    for name, column, atlas in quality_columns(atlases):
        entry: dict[str, Any] = {
            "LongName": column.title + (f", {atlas}" if atlas else ""),
            "Description": column.description,
            **({"Units": column.units} if column.units else {}),
            **({"Atlas": atlas} if atlas else {}),
            "Fault": column.fault,
            "Good": column.good,
        }
        if spread := spreads[name]:
            entry |= {"Median": spread.median, "RobustSD": spread.robust_sd}
            entry |= {
                key: value
                for key, value in (("LowerLimit", spread.low), ("UpperLimit", spread.high))
                if value is not None
            }
        said[name] = entry
    said["outliers"] = {"Description": _FLAGS.format(least=LEAST_RUNS)}
    return said


def _text(value: Any) -> str:  # noqa: ANN401 - a number or nothing
    if value is None or not math.isfinite(value):
        return _UNKNOWN
    if value == round(value):
        return f"{value:.0f}"
    return f"{value:.6g}" if abs(value) < 1e5 else f"{value:.1f}"
