"""The checks of a run as a table that people and programs read."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from difftract_bids.checks.verdict import LIGHTS, Check, Light
from difftract_bids.errors import InputError
from difftract_bids.io.atomic import write_text_atomic

_NONE = "n/a"
_COLUMNS = {
    "check": "What was looked at",
    "of": "Atlas or template that it is of; n/a for the run as a whole",
    "light": "The verdict",
    "value": "The figure that the verdict rests on, where one says it all",
    "unit": "Its unit",
    "title": "What was looked at, in words",
    "found": "What was found",
    "remedy": "What to do about it",
    "figure": "The figure of the report to look at, by the desc- of its name",
}
_LEVELS: dict[Light, str] = {
    "unknown": "not judged",
    "good": "as it should be",
    "look": "unusual: look at the figure",
    "bad": "wrong more often than not",
}


def write_checks(checks: Sequence[Check], path: Path) -> Path:
    """Write a tab-separated table, a row a check."""
    file = io.StringIO()
    writer = csv.writer(file, delimiter="\t", lineterminator="\n")
    writer.writerow(_COLUMNS)
    for check in checks:
        cells = {**check.to_dict(), "check": check.name}
        writer.writerow([_cell(cells[key]) for key in _COLUMNS])
    write_text_atomic(path, file.getvalue())
    return path


def read_checks(path: Path) -> list[Check]:
    """Read a table of checks.

    Raises
    ------
    InputError
        If it is no such table.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [_check_of(row) for row in _rows(file)]
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(
            f"This is no table of checks: {error!r}.", where=path, remedy="Run the app again."
        ) from error


def checks_metadata(notes: Sequence[str] = ()) -> dict[str, Any]:
    """Describe the columns, and keep what the stages wanted to be known."""
    levels = {"Levels": _LEVELS}
    return {
        "Description": "What was checked by itself, a row a check; it replaces no look at images",
        **{
            name: {"Description": said, **(levels if name == "light" else {})}
            for name, said in _COLUMNS.items()
        },
        "Notes": list(notes),
    }


def _cell(value: object) -> str:
    """Give a value as one cell: no tabs or new lines, and nothing that UTF-8 has no letter for."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return _NONE
    if isinstance(value, float):  # more digits than any limit was chosen with say nothing
        value = float(f"{value:.6g}")
    letters = "".join(letter if letter.isprintable() else " " for letter in str(value))
    return " ".join(letters.split()) or _NONE


def _rows(file: TextIO) -> Iterator[dict[str, str]]:
    reader = csv.DictReader(file, delimiter="\t")
    # An empty file must not pass for a run in which nothing was found.
    missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise ValueError(f"it lacks the column {missing[0]}")
    for row in reader:
        if None in row or None in row.values():
            raise ValueError(
                f"row {reader.line_num} has more or fewer cells than there are columns"
            )
        yield {name: "" if cell == _NONE else cell for name, cell in row.items()}


def _check_of(row: dict[str, str]) -> Check:
    light = next((known for known in LIGHTS if known == row["light"]), None)
    if light is None:
        raise ValueError(f"there is no light {row['light']!r}")
    return Check(
        name=row["check"],
        title=row["title"],
        light=light,
        found=row["found"],
        remedy=row["remedy"],
        figure=row["figure"],
        of=row["of"],
        value=float(row["value"]) if row["value"] else None,
        unit=row["unit"],
    )
