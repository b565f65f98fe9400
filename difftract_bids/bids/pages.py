"""Which reports a participant has, and what each of them shows."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING

from difftract_bids.bids.records import records_of

if TYPE_CHECKING:
    from difftract_bids.bids.plan import Plan

#: Parts of a report that are no figures of a run.
_SNIPPETS = ("about", "failure", "methods")


def report_sessions(plan: Plan, participant: str) -> list[str | None]:
    """List the sessions that a participant has a report for; ``None`` is one of everything."""
    if plan.report_level == "subject":
        return [None]
    return sorted({run.session for run in plan.of(participant)}, key=lambda label: label or "")


def page_path(participant: str, session: str | None = None) -> str:
    """Path of a report, relative to the derivatives folder."""
    return f"sub-{participant}" + (f"_ses-{session}" if session else "") + ".html"


def snippet_path(desc: str, participant: str, session: str | None = None) -> str:
    """Path of a part of a report that is no figure, relative to the derivatives folder."""
    folder = f"sub-{participant}/" + (f"ses-{session}/" if session else "")
    stem = page_path(participant, session).removesuffix(".html")
    return f"{folder}figures/{stem}_desc-{desc}_dwi.html"


def shown_figures(plan: Plan, participant: str) -> list[str]:
    """Name the figures of a participant: of the runs planned, and of those finished before.

    Others that an earlier run with other settings left in the folder are not shown.
    """
    promised = {path for run in plan.of(participant) for path in plan.promised(run)}
    promised |= {
        path for record in records_of(plan.output_dir, participant) for path in record.outputs
    }
    figures = {PurePath(path).name for path in promised if "/figures/" in path}
    snippets = {
        PurePath(snippet_path(desc, participant, session)).name
        for desc in _SNIPPETS
        for session in report_sessions(plan, participant)
    }
    return sorted(figures | snippets)
