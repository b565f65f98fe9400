"""Jobs of SLURM: submitted, looked at and cancelled, without a shell in between."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

#: How long SLURM's programs may take; they wait themselves for a controller that is busy.
_ANSWER_S = 120
_LAST_LINES = 5
_MORE_MEMORY = "Give it more with --mem in sbatch_args"
#: Ends that SLURM itself decided on, and what to do then.
_ENDS = {
    "OUT_OF_MEMORY": _MORE_MEMORY,
    "TIMEOUT": "Give it longer with --time in sbatch_args",
    "DEADLINE": "Give it a later --deadline in sbatch_args",
    "CANCELLED": "Somebody cancelled it",
    "NODE_FAIL": "The machine that it ran on failed",
    "BOOT_FAIL": "The machine that it was to run on did not start",
    "PREEMPTED": "Others' jobs took its place",
}
#: What the job had of what it lacked, in the words of scontrol.
_LACKED = {"OUT_OF_MEMORY": ("memory", "MinMemoryNode"), "TIMEOUT": ("time", "TimeLimit")}
#: What scontrol gives a line of its own.
_PATHS = ("Command=", "WorkDir=", "StdErr=", "StdIn=", "StdOut=")
#: Reasons for which jobs wait until somebody changes something.
_NEVER = re.compile(
    r"Partition(Time|Node)Limit|BadConstraints|InvalidAccount|InvalidQOS|AccountNotAllowed|"
    r"\w+PerJob(Limit)?"
)
_CONTINUES = "the same command then continues."
_KILLED_CODES = ("0:9", "137:0")


@dataclass(frozen=True)
class QueuedJob:
    """A job that waits or runs.

    Attributes
    ----------
    number
        SLURM's.
    name
        ``<step>.<its workflows, inmost first>``.
    script
        What it runs.
    """

    number: int
    name: str
    script: Path


def submit(
    script: Path,
    arguments: Sequence[str],
    *,
    jobid_re: str = r"Submitted batch job ([0-9]+)",
    tries: int = 3,
    pause_s: float = 2.0,
) -> int:
    """Submit a job.

    Parameters
    ----------
    script
        What it runs.
    arguments
        sbatch's.
    jobid_re
        How sbatch tells the number of the job.
    tries, pause_s
        How often, and after how many seconds.

    Returns
    -------
    int
        The number of the job.

    Raises
    ------
    RuntimeError
        If SLURM refuses it, with its reason.
    """
    said = ""
    for attempt in range(tries):
        if attempt:
            time.sleep(pause_s)
        done = _ask("sbatch", *arguments, str(script), check=False)
        number = re.search(jobid_re, done.stdout)
        if done.returncode == 0 and number:
            return int(number[1])
        said = " ".join((done.stderr or done.stdout).split())
    raise RuntimeError(f"{said} (sbatch was asked for {' '.join(arguments)})")


def live_jobs() -> dict[int, str]:
    """List the user's jobs that wait or run: their numbers, and why they wait."""
    said = _ask("squeue", "--noheader", f"--user={os.getuid()}", "--format=%A %r").stdout
    words = (line.split(maxsplit=1) for line in said.splitlines())
    return {int(word[0]): word[-1].strip() for word in words if word and word[0].isdigit()}


def queued_jobs(folders: Iterable[Path]) -> list[QueuedJob]:
    """List the user's jobs that wait or run, and whose scripts lie in one of some folders.

    Nothing where there is no such folder, or no SLURM that answers.

    Parameters
    ----------
    folders
        Folders of scripts.
    """
    wanted = {folder for folder in folders if folder.is_dir()}
    if not wanted or shutil.which("squeue") is None:
        return []
    jobs = []
    listing = ("--noheader", f"--user={os.getuid()}", "--format=%A|%j|%o")
    for line in _ask("squeue", *listing, check=False).stdout.splitlines():
        number, _, rest = line.strip().partition("|")
        name, _, script = rest.partition("|")
        if number.isdigit() and Path(script).parent in wanted:
            jobs.append(QueuedJob(int(number), name, Path(script)))
    return jobs


def cancel(numbers: Iterable[int]) -> None:
    """Cancel jobs, and wait until none of them can write any more."""
    left = set(numbers)
    if not left:
        return
    with suppress(subprocess.SubprocessError, OSError):
        _ask("scancel", *map(str, sorted(left)), check=False)
        end = time.monotonic() + _ANSWER_S
        while left & set(live_jobs()) and time.monotonic() < end:
            time.sleep(0.5)


def job_state(number: int) -> dict[str, str]:
    """Tell what SLURM remembers of a job, in the words of ``scontrol show job``.

    Nothing but the number, if it has forgotten the job or does not answer.
    """
    said = ""
    with suppress(subprocess.SubprocessError, OSError):
        said = _ask("scontrol", "show", "job", str(number), check=False).stdout
    # Several to a line, but for those that may have spaces in them.
    words = [word for line in said.splitlines() for word in line.split()]
    words += [line.strip() for line in said.splitlines() if line.strip().startswith(_PATHS)]
    split = (word.partition("=") for word in words)
    return {"JobId": str(number)} | {name: value for name, _, value in split}


def waits_in_vain(reason: str) -> bool:
    """Say whether a job waits for something that time does not bring, by SLURM's reason."""
    return _NEVER.fullmatch(reason) is not None


def is_lost(state: dict[str, str]) -> bool:
    """Say whether a job did not come to its own end: no use in waiting for its result."""
    return state.get("JobState") in {*_ENDS, "FAILED"}


def ended_because(state: dict[str, str]) -> str:
    """Say why a job left no result, and what to do.

    Parameters
    ----------
    state
        What SLURM remembers of it.
    """
    job, ended = f"job {state['JobId']}", state.get("JobState", "")
    memory = state.get("MinMemoryNode", "?")
    if ended in _ENDS:
        what, key = _LACKED.get(ended, ("", ""))
        had = f" It had {state.get(key, '?')} of {what}." if what else ""
        return f"RuntimeError: SLURM ended {job} ({ended}).{had} {_ENDS[ended]}; {_CONTINUES}"
    if state.get("ExitCode") in _KILLED_CODES:
        return (
            f"RuntimeError: The process of {job} was killed, most often for want of memory. It "
            f"had {memory} of memory. {_MORE_MEMORY}; {_CONTINUES}"
        )
    last = _last_lines(state.get("StdOut", ""))
    if ended == "COMPLETED":
        return (
            f"RuntimeError: SLURM says that {job} ended well, but its result cannot be seen from "
            "here. The working folder must be on a file system that all machines share, under the "
            f"same path.{last}"
        )
    code = state.get("ExitCode", "?").partition(":")[0]
    how = f"{ended}, exit code {code}" if ended else "SLURM no longer knows how"
    return f"RuntimeError: SLURM's {job} ended without a result ({how}).{last}"


def _last_lines(path: str) -> str:
    """Quote the end of what a job said."""
    with suppress(OSError):
        text = Path(path).read_text(encoding="utf-8", errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if lines:
            return f" It said: {' '.join(lines[-_LAST_LINES:])} (see {path})"
    return ""


def _ask(*command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run one of SLURM's programs, deaf to what the user's environment wants squeue to hide."""
    shown = {name: text for name, text in os.environ.items() if not name.startswith("SQUEUE_")}
    return subprocess.run(  # noqa: S603
        command, capture_output=True, text=True, check=check, timeout=_ANSWER_S, env=shown
    )
