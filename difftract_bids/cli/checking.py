"""After a run: whether what was promised is there, and a report of what went wrong if not."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from difftract_bids.bids.pages import page_path, report_sessions, shown_figures
from difftract_bids.bids.promises import missing_outputs
from difftract_bids.cli.outcomes import Outcome
from difftract_bids.cli.provenance import write_failure
from difftract_bids.errors import DifftractError

if TYPE_CHECKING:
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
    failed = known is not None and known.status == "failed"
    if failed and known is not None:
        write_failure(plan, participant, known.reason)
    if failed or rebuild or missing_outputs(plan.output_dir, pages):
        _assemble(plan, participant, run_uuid)
    if failed and known is not None:
        return known
    promised = [path for run in plan.of(participant) for path in plan.promised(run)]
    missing = missing_outputs(plan.output_dir, [*promised, *pages])
    if missing:
        reason = f"{len(missing)} promised output(s) missing, first: {missing[0]}."
        return Outcome("failed", reason)
    return known or Outcome("done")


def _assemble(plan: Plan, participant: str, run_uuid: str) -> None:
    from difftract_bids.reports.assembly import assemble_report

    figures = shown_figures(plan, participant)
    for session in report_sessions(plan, participant):
        with suppress(DifftractError):  # without figures there is no page, which is then missed
            assemble_report(
                plan.output_dir, participant, session=session, run_uuid=run_uuid, figures=figures
            )
