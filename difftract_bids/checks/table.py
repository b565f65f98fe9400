"""The checks of a run as a table that people and programs read."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from difftract_bids.checks.verdict import LIGHTS, Check
from difftract_bids.errors import InputError
from difftract_bids.io.atomic import write_text_atomic

_NONE = "n/a"
_COLUMNS = {
    "check": "What was looked at",
    "of": "Atlas or template that it is of; n/a for the run as a whole",
    "light": "good: as it should be; look: unusual, look at the figure; bad: wrong more often "
    "than not; unknown: not judged",
    "value": "The figure that the verdict rests on, where one says it all",
    "unit": "Its unit",
    "title": "What was looked at, in words",
    "found": "What was found",
    "remedy": "What to do about it",
    "figure": "The figure of the report to look at, by the desc- of its name",
}


def write_checks(checks: Sequence[Check], path: Path) -> Path:
    """Write a tab-separated table, a row a check."""
    file = io.StringIO()
    writer = csv.writer(file, delimiter="\t", lineterminator="\n")
    writer.writerow(_COLUMNS)
    for check in checks:
        cells = {**check.to_dict(), "check": check.name}
        row = [_NONE if cells[key] in (None, "") else cells[key] for key in _COLUMNS]
        writer.writerow([" ".join(str(cell).split()) for cell in row])
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
            rows = list(csv.DictReader(file, delimiter="\t"))
        return [_check_of({k: "" if v == _NONE else v for k, v in row.items()}) for row in rows]
    except (OSError, ValueError, KeyError, AttributeError, csv.Error) as error:
        raise InputError(
            f"This is no table of checks: {error!r}.", where=path, remedy="Run the app again."
        ) from error


def checks_metadata(notes: Sequence[str] = ()) -> dict[str, Any]:
    """Describe the columns, and keep what the stages wanted to be known."""
    levels = {"Levels": {light: light for light in LIGHTS}}
    return {
        "Description": "What was checked by itself, a row a check; it replaces no look at images",
        **{
            name: {"Description": said, **(levels if name == "light" else {})}
            for name, said in _COLUMNS.items()
        },
        "Notes": list(notes),
    }


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
