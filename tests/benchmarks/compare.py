"""Contenders in alternation, medians of what they measured, and ratios of their rates."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

Row = dict[str, Any]
#: The least amount of work that a contender is given.
_LEAST = 100


@dataclass(frozen=True)
class Contender:
    """Something that is timed.

    Attributes
    ----------
    name, label
        What it is called in the report, and in its tables.
    run
        Called with the number of threads and the amount of work: what was measured, ``seconds``
        among it.
    share
        Part of the work that it is given: rates are compared, not times.
    once
        It is too slow to be run over and over.
    """

    name: str
    label: str
    run: Callable[[int, int], Row]
    share: float = 1.0
    once: bool = False


class Ratio(NamedTuple):
    """Which rates are compared, and what is hoped for."""

    what: str
    one: str
    other: str
    aim: str = ""


def alternate(
    contenders: Sequence[Contender],
    amount: int,
    *,
    repeats: int,
    threads: Sequence[int],
    rates: Mapping[str, str],
) -> list[Row]:
    """Run every contender in turn, over and over: what slows the machine slows all of them.

    Parameters
    ----------
    contenders
        Those compared.
    amount
        Of work.
    repeats
        Runs of each; their medians are taken.
    threads
        Core counts.
    rates
        Names of rates, and of what they count.
    """
    runs: dict[tuple[str, int], list[Row]] = {}
    for repeat in range(repeats):
        for n_threads in threads:
            for one in contenders:
                if repeat and one.once:
                    continue
                found = one.run(n_threads, max(int(amount * one.share), _LEAST))
                runs.setdefault((one.name, n_threads), []).append(found)
                said = f"{one.label}, {n_threads} cores: {found['seconds']:.3g} s"
                print(said, file=sys.stderr)  # noqa: T201
    labels = {one.name: one.label for one in contenders}
    return [
        {"name": name, "label": labels[name], "threads": n_threads} | _summary(found, rates)
        for (name, n_threads), found in runs.items()
    ]


def _summary(runs: list[Row], rates: Mapping[str, str]) -> Row:
    row: Row = {key: median(run[key] for run in runs) for key in runs[0]}
    row["all_seconds"] = [run["seconds"] for run in runs]
    return row | {rate: row[counted] / row["seconds"] for rate, counted in rates.items()}


def ratios(rows: list[Row], wanted: Sequence[Ratio], rate: str) -> list[Row]:
    """Compare rates of work, core count by core count, and each core count with one core."""
    rates = {(row["name"], row["threads"]): row[rate] for row in rows}
    found = [
        {"what": ratio.what, "threads": threads, "aim": ratio.aim}
        | {"value": rates[ratio.one, threads] / rates[ratio.other, threads]}
        for ratio in wanted
        for threads in sorted({row["threads"] for row in rows})
        if (ratio.one, threads) in rates and (ratio.other, threads) in rates
    ]
    return found + [
        {"what": f"{row['label']}: more cores / one", "threads": row["threads"]}
        | {"value": row[rate] / rates[row["name"], 1]}
        | {"aim": ">= 1.8" if row["threads"] == 2 else ""}
        for row in rows
        if row["threads"] > 1 and (row["name"], 1) in rates
    ]
