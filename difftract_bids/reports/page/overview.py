"""The traffic lights of all runs of a participant on one table, at the top of the page."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from difftract_bids.checks.table import read_checks
from difftract_bids.checks.verdict import LIGHTS, Check
from difftract_bids.errors import InputError
from difftract_bids.reports.page.summary import SIGNS, full_title
from difftract_bids.reports.templates import render

_TABLE, _SUMMARY = "_desc-checks_quality.tsv", "_desc-summary_dwi"


def overview_html(
    out_dir: Path,
    subject: str,
    session: str | None = None,
    *,
    shown: Collection[str] | None = None,
) -> str:
    """Write a table with a row a run and a column a check; nothing for a single run.

    Parameters
    ----------
    out_dir
        Derivatives folder.
    subject
        Label with ``sub-``.
    session
        Label without ``ses-``: runs of this session alone.
    shown
        Names of the figures of the page: a run whose summary is not among them is no part of it.
        All runs, if left out.
    """
    folder = f"ses-{session}/dwi" if session else "**/dwi"
    runs: dict[str, list[Check]] = {}
    for path in sorted((out_dir / subject).glob(f"{folder}/*{_TABLE}")):
        name = path.name.removesuffix(_TABLE)
        if shown is None or f"{name}{_SUMMARY}.html" in shown:
            with suppress(InputError):
                runs[name] = read_checks(path)
    if len(runs) < 2:
        return ""
    columns = list(
        dict.fromkeys(full_title(check) for checks in runs.values() for check in checks)
    )
    rows = [
        (name, f"{name}{_SUMMARY}", [_cell(checks, column) for column in columns])
        for name, checks in runs.items()
    ]
    return render("overview.html.jinja", columns=columns, rows=rows, signs=SIGNS)


def _cell(checks: list[Check], column: str) -> Check | None:
    own = [check for check in checks if full_title(check) == column]
    return max(own, key=lambda check: LIGHTS.index(check.light)) if own else None
