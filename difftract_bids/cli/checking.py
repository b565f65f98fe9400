"""After a run: whether what was promised is there, and a report of what went wrong if not."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from difftract_bids.bids.outputs import output_path
from difftract_bids.bids.pages import (
    page_path,
    report_sessions,
    shown_figures,
    snippet_path,
)
from difftract_bids.bids.promises import is_report_part, missing_outputs
from difftract_bids.bids.records import is_begun, is_finished
from difftract_bids.checks.table import read_checks
from difftract_bids.cli.outcomes import Outcome
from difftract_bids.cli.provenance import write_failure, write_provenance
from difftract_bids.errors import DifftractError

if TYPE_CHECKING:
    from pathlib import Path

    from difftract_bids.bids.plan import Plan


def check_participant(
    plan: Plan, participant: str, known: Outcome | None, *, run_uuid: str, rebuild: bool = False
) -> Outcome:
    """Say what became of a participant, and see to its reports.

    Reports of what went well were made on the way. Here they are made of what failed, so that it
    says so, or where one is missing.

    Parameters
    ----------
    plan
        What was wanted.
    participant
        Label, without the ``sub-``.
    known
        What is known of it.
    run_uuid
        Identifier of the run of the app.
    rebuild
        Make the reports whether or not there are any.
    """
    if known is not None and known.status in ("busy", "submitted"):
        return known
    pages = [page_path(participant, session) for session in report_sessions(plan, participant)]
    if known is not None and known.status == "failed":
        write_failure(_unfinished(plan, participant), participant, known.reason)
        _assemble(plan, participant, run_uuid)
        return known
    outcome = _outcome(plan, participant, known, rebuild=rebuild)
    told = [path for path in _failures(plan, participant) if path.is_file()]
    if outcome.status == "failed":
        write_failure(_unfinished(plan, participant), participant, outcome.reason)
    else:
        write_failure(plan, participant, None)
    if told or rebuild or outcome.status == "failed" or missing_outputs(plan.output_dir, pages):
        _assemble(plan, participant, run_uuid)
    missing = missing_outputs(plan.output_dir, pages)
    if missing and outcome.status != "failed":
        return Outcome("failed", f"The report could not be made: {missing[0]}.")
    is_new = outcome.status == "done" or (rebuild and outcome.status == "skipped")
    return Outcome("done", _lights(plan, participant)) if is_new else outcome


def _lights(plan: Plan, participant: str) -> str:
    """Name the checks of a participant that found something; nothing, if none did."""
    found: dict[str, list[str]] = {"bad": [], "look": []}
    for run in plan.of(participant):
        with suppress(DifftractError):
            for check in read_checks(plan.output_dir / output_path(run, "checks", plan.config)):
                if check.light in found and check.title not in found[check.light]:
                    found[check.light].append(check.title)
    words = {"bad": "Wrong", "look": "Look at"}
    return " ".join(
        f"{words[light]}: {', '.join(titles)}." for light, titles in found.items() if titles
    )


def _outcome(plan: Plan, participant: str, known: Outcome | None, *, rebuild: bool) -> Outcome:
    """Say what became of a participant of whom nothing is known to have failed."""
    left = [run for run in plan.of(participant) if not is_finished(plan, run)]
    promised = [path for run in left for path in plan.promised(run)]
    if rebuild:  # a report is put together of the figures and checks that there are
        promised = [path for path in promised if not is_report_part(path)]
    missing = missing_outputs(plan.output_dir, promised)
    if missing:
        reason = f"{len(missing)} promised output(s) missing, first: {missing[0]}."
        return Outcome("failed", reason)
    if rebuild:  # of other settings or versions is none of its business, half done is
        left = [run for run in left if is_begun(plan.output_dir, run.stem)]
    # Files of the same names may be those of earlier settings.
    if left:
        stems = ", ".join(run.stem for run in left)
        return Outcome("failed", f"Not finished, as the run ended before: {stems}.")
    return known or Outcome("done")


def _unfinished(plan: Plan, participant: str) -> Plan:
    """Give the part of a plan that a failure is told of: what is not finished, if anything."""
    own = plan.of(participant)
    return plan.restricted([run for run in own if not is_finished(plan, run)] or own)


def _failures(plan: Plan, participant: str) -> list[Path]:
    return [
        plan.output_dir / snippet_path("failure", participant, session)
        for session in report_sessions(plan, participant)
    ]


def _assemble(plan: Plan, participant: str, run_uuid: str) -> None:
    from difftract_bids.reports.page.assembly import assemble_report

    figures = shown_figures(plan, participant)
    if any(
        not (plan.output_dir / snippet_path("about", participant, session)).is_file()
        for session in report_sessions(plan, participant)
    ):
        write_provenance(plan, participant, run_uuid=run_uuid)
    for session in report_sessions(plan, participant):
        with suppress(DifftractError):  # without figures there is no page, which is then missed
            assemble_report(
                plan.output_dir, participant, session=session, run_uuid=run_uuid, figures=figures
            )
