"""What of a plan is left to be done, and by this process."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from difftract_bids.bids.labels import participant_wf_name
from difftract_bids.bids.pages import page_path, report_sessions
from difftract_bids.bids.records import is_finished, void_record
from difftract_bids.cli.outcomes import Outcome
from difftract_bids.io.leftovers import sweep

if TYPE_CHECKING:
    from difftract_bids.bids.plan import Plan
    from difftract_bids.bids.runs import DWIRun
    from difftract_bids.io.locks import NameLocks

#: The file whose bytes are the locks of participants, relative to the derivatives folder.
LOCK_FILE = "logs/.participants.lock"
#: The graph of the app, and its folder in that of intermediate files.
GRAPH = "difftract_wf"
#: How the names of folders begin in which figures are drawn again.
REDRAWING = "redraw-"
_BUSY = (
    "Another process is at work on this participant. Wait for it; the same command then checks."
)


@dataclass(frozen=True)
class Work:
    """What of a plan is left to be done.

    Attributes
    ----------
    todo
        Runs to be done.
    outcomes
        What is known already of participants none of whose runs is.
    """

    todo: tuple[DWIRun, ...]
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    def owned(self, plan: Plan) -> Plan:
        """Give the part of a plan whose participants nothing else is at work on."""
        elsewhere = {"busy", "submitted"}
        busy = {label for label, known in self.outcomes.items() if known.status in elsewhere}
        return plan.restricted(run for run in plan.runs if run.participant not in busy)


def find_work(plan: Plan, *, force: bool = False, locks: NameLocks | None = None) -> Work:
    """Find what is left to be done.

    Parameters
    ----------
    plan
        What is wanted.
    force
        Do finished runs anew.
    locks
        Locks of participants, of which those taken here are held by this process from now on;
        only looked, not taken, if left out.
    """
    todo: list[DWIRun] = []
    outcomes = {label: Outcome("failed", str(error)) for label, error in plan.unusable.items()}
    for participant in plan.participants:
        if locks is not None and not locks.take(participant):
            outcomes[participant] = Outcome("busy", _BUSY)
            continue
        own = plan.of(participant)
        left = own if force else [run for run in own if not is_finished(plan, run)]
        todo += left
        if not left:
            reason = "Finished before with the same inputs and settings; --force does it anew."
            outcomes[participant] = Outcome("skipped", reason)
    return Work(tuple(todo), outcomes)


def make_way(plan: Plan, *, force: bool = False, is_alone: bool = True) -> None:
    """Take away what stands for something else than what is going to be done at once.

    That is the records of runs that are done again, their reports, files that a killed process
    was writing, and, if everything is to be done anew, their folders of intermediate files.

    Parameters
    ----------
    plan
        What is going to be done. The locks of its participants must be held.
    force
        Do finished steps anew.
    is_alone
        Whether the locks are real: otherwise somebody else may be writing.
    """
    for run in plan.runs:
        void_record(plan.output_dir, run.stem)
        if force:
            graph = plan.scratch_dir / GRAPH / participant_wf_name(run.participant)
            shutil.rmtree(graph / f"{run.node_name}_wf", ignore_errors=True)
    for participant in plan.participants:
        pages = [page_path(participant, session) for session in report_sessions(plan, participant)]
        for page in pages:
            (plan.output_dir / page).unlink(missing_ok=True)
        if is_alone:
            sweep(plan.output_dir / f"sub-{participant}", deep=True)
            for page in pages:
                sweep(plan.output_dir, beginning=page)


def clean_up(plan: Plan) -> None:
    """Remove the intermediate files of a plan's participants, and what is left if they were all.

    Other processes may have theirs in the same folder; and it may hold other people's work.

    Parameters
    ----------
    plan
        What was done. The locks of its participants must be held.
    """
    graphs = plan.scratch_dir / GRAPH
    for participant in plan.participants:
        shutil.rmtree(graphs / participant_wf_name(participant), ignore_errors=True)
    at_work = ("workers-*", f"{REDRAWING}*")
    others = [*graphs.glob("sub_*_wf")]
    others += [path for pattern in at_work for path in plan.scratch_dir.glob(pattern)]
    if not others:
        shutil.rmtree(plan.scratch_dir, ignore_errors=True)


def without_queued(plan: Plan, work: Work, *, cancels: bool = True) -> Work:
    """Cancel jobs that a killed run has left in a queue, and leave out whose are to stay there.

    Parameters
    ----------
    plan
        What is wanted.
    work
        What is left of it. The locks of its participants must be held.
    cancels
        Whether jobs are cancelled; otherwise all are left, of finished participants too.
    """
    if not (plan.scratch_dir / GRAPH / "batch").is_dir():
        return work  # nothing was ever submitted
    from difftract_bids.cli.plugins.slurm import clear_queue

    labels = {run.participant for run in work.todo} if cancels else set(plan.participants)
    queued = clear_queue(plan.scratch_dir, labels, cancels=cancels)
    told = {
        label: Outcome("submitted", f"{n} job(s) are still in the queue.")
        for label, n in queued.items()
    }
    left = tuple(run for run in work.todo if run.participant not in told)
    return Work(left, work.outcomes | told)
