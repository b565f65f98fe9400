"""What became of each participant: on the terminal, in a table, and in the exit code."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from difftract_bids.bids.labels import participant_wf_name
from difftract_bids.cli.memory import MEMORY_REMEDY
from difftract_bids.io.atomic import write_text_atomic

#: The line of a traceback that names the error.
_ERROR = re.compile(r"[\w.]*(?:Error|Exception|Interrupt)\b")
_FOR_MEMORY = re.compile(r"\b(?:MemoryError|_ArrayMemoryError|Unable to allocate|out of memory)\b")
Status = Literal["done", "failed", "skipped", "busy", "submitted"]
#: In the order of the table.
_STATUSES: tuple[Status, ...] = ("skipped", "done", "submitted", "busy", "failed")


@dataclass(frozen=True)
class Outcome:
    """What became of a participant.

    Attributes
    ----------
    status
        ``skipped`` were those that an earlier run had finished, ``busy`` those that another
        process is at work on, ``submitted`` those that are left to a batch system.
    reason
        Why it failed, or was left alone: what, where and the remedy. Of what is done, which
        checks want a look.
    crash_file
        Nipype's account of the step that failed first.
    """

    status: Status
    reason: str = ""
    crash_file: Path | None = None


def crashes(participants: Iterable[str], logs: Path) -> dict[str, Outcome]:
    """Say of each participant with a crash file why the first of their steps failed.

    Parameters
    ----------
    participants
        Labels.
    logs
        Folder of the crash files.
    """
    failed: dict[str, Outcome] = {}
    for crash in sorted(logs.glob("crash-*.txt"), key=lambda path: path.stat().st_mtime):
        text = crash.read_text(encoding="utf-8", errors="replace")
        for participant in participants:
            if f".{participant_wf_name(participant)}." in text:
                reason = _with_hint(last_error(text))
                failed.setdefault(participant, Outcome("failed", reason, crash))
    return failed


def last_error(text: str) -> str:
    """Find the lines that name the error at the end of a traceback."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [i for i, line in enumerate(lines) if _ERROR.match(line)]
    said = " ".join(lines[errors[-1] :] if errors else lines[-1:])
    return said.removeprefix("difftract_bids.errors.")


def _with_hint(reason: str) -> str:
    """Say what to do about a lack of memory, which libraries only complain of."""
    if _FOR_MEMORY.search(reason) and MEMORY_REMEDY not in reason:
        return f"{reason} {MEMORY_REMEDY}"
    return reason


def table(outcomes: Mapping[str, Outcome], output_dir: Path) -> list[str]:
    """Write the table of participants for a terminal, a line each, those that failed last."""
    width = max((len(label) for label in outcomes), default=0) + len("sub-")
    lines = []
    for label, outcome in sorted(
        outcomes.items(), key=lambda item: (_STATUSES.index(item[1].status), item[0])
    ):
        report = f"Report: {output_dir / f'sub-{label}.html'}"
        found = f"{outcome.reason} " if outcome.reason else ""
        said = {"done": f"{found}{report}", "failed": f"Reason: {outcome.reason}"}.get(
            outcome.status, outcome.reason
        )
        where = f" (see {outcome.crash_file})" if outcome.crash_file else ""
        status = outcome.status.upper() if outcome.status == "failed" else outcome.status
        lines.append(f"{f'sub-{label}:':{width + 1}} {f'{status}.':8} {said}{where}")
    return lines


def count(outcomes: Mapping[str, Outcome]) -> str:
    """Say how many there are of each kind."""
    of = Counter(outcome.status for outcome in outcomes.values())
    skipped = f", {of['skipped']} finished before" if of["skipped"] else ""
    busy = f", {of['busy']} under way elsewhere" if of["busy"] else ""
    submitted = f", {of['submitted']} left to the batch system" if of["submitted"] else ""
    return f"{of['done']} done, {of['failed']} failed{skipped}{submitted}{busy}"


def is_all_well(outcomes: Mapping[str, Outcome]) -> bool:
    """Say whether every participant is done, now or before, or as well as submitted."""
    return all(o.status in ("done", "skipped", "submitted") for o in outcomes.values())


def write_table(outcomes: Mapping[str, Outcome], path: Path) -> None:
    """Write ``participant_id  status  reason  crash_file``, tab-separated."""
    rows = [("participant_id", "status", "reason", "crash_file")]
    rows += [
        (
            f"sub-{label}",
            outcome.status,
            " ".join(outcome.reason.split()) or "n/a",
            str(outcome.crash_file or "n/a"),
        )
        for label, outcome in sorted(outcomes.items())
    ]
    write_text_atomic(path, "".join("\t".join(row) + "\n" for row in rows))
