"""The part of a group's page that shows the quality of the runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from difftract_bids.reports.group.files import QualityTable
from difftract_bids.reports.group.items import Item, filled, in_words, inline, item
from difftract_bids.reports.group.quality import Distribution, plot_quality

#: Of more runs, the table of all is left to the TSV file.
_MOST_ROWS = 200
_BAND = (
    "A point a run; the line is the median. Good: one cloud within the shaded band. A run outside "
    "of it (diamond, by name) differs from the others more than they differ among themselves: "
    "look at its report first. The band says what is usual in this group, not what is good."
)
_NO_BAND = "A point a run. Good: all close together, but of so few runs nobody can say how close."


def quality_items(table: QualityTable, links: list[str], figures: Path) -> list[Item]:
    """Show how each measure is spread, which runs stand apart, and all numbers.

    Parameters
    ----------
    table
        Quality of all runs.
    links
        Address of the report of each run; empty for none.
    figures
        Where the drawing goes.
    """
    runs = [row["run"] for row in table.rows]
    known = [name for name in table.measures if np.isfinite(table.values(name)).any()]
    if not known:
        return []
    distributions = [_distribution(table, name) for name in known]
    path = plot_quality(distributions, runs, figures / "quality.svg", pages=links)
    alternative = f"A panel for each of {len(known)} quality measures with a point for each run"
    small = len(runs) <= _MOST_ROWS
    assessed = is_assessed(table)
    return [
        item(
            "distributions",
            inline(path, alternative),
            subtitle="Distributions",
            description=_BAND if assessed else _NO_BAND,
        ),
        item(
            "outliers",
            filled("group_outliers.html.jinja", rows=_outliers(table, links), assessed=assessed),
            subtitle="Runs that stand apart",
        ),
        item(
            "measures",
            filled(
                "group_measures.html.jinja",
                measures=[(name, table.dictionary[name]) for name in known],
                rows=list(zip(table.rows, links, strict=True)) if small else [],
            ),
            subtitle="All measures",
        ),
    ]


def is_assessed(table: QualityTable) -> bool:
    """Say whether there were runs enough to tell which stand apart."""
    return any(row["outliers"] != "n/a" for row in table.rows)


def _distribution(table: QualityTable, name: str) -> Distribution:
    said = table.dictionary[name]
    return Distribution(
        said["LongName"],
        in_words(said.get("Units", "")),
        table.values(name),
        said.get("LowerLimit"),
        said.get("UpperLimit"),
        said.get("Median"),
    )


def _outliers(table: QualityTable, links: list[str]) -> list[dict[str, Any]]:
    """List every flag: run, measure, value, median, and how far away."""
    rows = []
    for row, link in zip(table.rows, links, strict=True):
        for name in row["outliers"].split(","):
            said = table.dictionary.get(name, {})
            if "RobustSD" not in said:
                continue
            distance = float(row[name]) - said["Median"]
            spread = said["RobustSD"]
            rows.append({
                "run": row["run"],
                "link": link,
                "title": said["LongName"],
                "value": f"{_short(float(row[name]))} {in_words(said.get('Units', ''))}".rstrip(),
                "median": _short(said["Median"]),
                "z": distance / spread if spread else math.copysign(math.inf, distance),
                "good": said["Good"],
            })  # fmt: skip
    return sorted(rows, key=lambda entry: -abs(entry["z"]))


def _short(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
