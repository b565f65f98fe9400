"""Nipype's SLURM plugin, without shell strings, which says why SLURM ended a job."""

from __future__ import annotations

import re
import subprocess
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from nipype.pipeline.plugins.slurm import SLURMPlugin
from nipype.utils.filemanip import loadpkl

from difftract_bids.bids.labels import labels_of_nodes
from difftract_bids.cli.plugins.batch import SafeBatch
from difftract_bids.cli.plugins.sbatch_options import sbatch_options, split_arguments
from difftract_bids.cli.plugins.slurm_jobs import (
    cancel,
    ended_because,
    is_lost,
    job_state,
    live_jobs,
    queued_jobs,
    submit,
    waits_in_vain,
)

#: Where SLURMGraph's scripts lie, in Nipype's folder of scripts: its jobs outlive the app.
GRAPH_FOLDER = "graph"
_PARTICIPANT = re.compile(r"\bsub_(\w+?)_wf\b")
#: One listing serves all the jobs of a look.
_FRESH_S = 1.0


class SafeSLURMPlugin(SafeBatch, SLURMPlugin):  # type: ignore[misc]
    """SLURM, where a job that ends badly fails its own step, with the reason."""

    def __init__(self, plugin_args: dict[str, Any] | None = None) -> None:
        super().__init__(plugin_args=plugin_args)
        self._live: dict[int, str] = {}
        self._listed_at: float | None = None
        self._crashdumps: dict[int, Path] = {}

    def end(self) -> None:
        """Cancel the jobs that still wait or run."""
        cancel(self._pending)
        self._pending.clear()

    def _submit_batchtask(self, scriptfile: str, node: Any) -> int:  # noqa: ANN401
        number = submit(
            Path(scriptfile),
            job_arguments(node, self._sbatch_args or "", self._template),
            jobid_re=self._jobid_re,
            tries=1 + self._max_tries,
            pause_s=self._retry_timeout,
        )
        self._pending[number] = node.output_dir()
        # Where a job says why it could not even load its step.
        when_and_what = Path(scriptfile).stem.removeprefix("batchscript_pyscript_")
        self._crashdumps[number] = Path(scriptfile).with_name(f"crashdump_{when_and_what}.pklz")
        self._listed_at = None
        return number

    def _is_pending(self, taskid: int) -> bool:
        """Ask for all jobs at once; a controller that does not answer has ended none."""
        now = time.monotonic()
        if self._listed_at is None or now - self._listed_at > _FRESH_S:
            self._listed_at = None
            with suppress(subprocess.SubprocessError, OSError):
                self._live = live_jobs()
                self._listed_at = now
        return self._listed_at is None or taskid in self._live

    def _get_result(self, taskid: int) -> dict[str, Any] | None:
        if taskid in self._not_submitted:
            return super()._get_result(taskid)
        if self._is_pending(taskid):
            reason = self._live.get(taskid, "")
            if not waits_in_vain(reason):
                return None
            cancel([taskid])
            said = f"SLURM would never have begun job {taskid} ({reason}), which was cancelled."
            remedy = "Change sbatch_args in the plugin file, or ask who runs the cluster"
            return {"result": None, "traceback": [f"RuntimeError: {said} {remedy}."]}
        state = job_state(taskid)
        has_result = any(Path(self._pending[taskid]).glob("result_*.pklz"))
        if not has_result and self._crashdumps[taskid].is_file():
            return {"result": None, "traceback": loadpkl(self._crashdumps[taskid])["traceback"]}
        if not has_result and is_lost(state):
            return {"result": None, "traceback": [ended_because(state)]}
        result = super()._get_result(taskid)
        if result and result["traceback"] and "results file does not exist" in result["traceback"]:
            result["traceback"] = [ended_because(state)]
        return result


def clear_queue(
    scratch_dir: Path, participants: Iterable[str], *, cancels: bool = True
) -> dict[str, int]:
    """Cancel what a killed run has left in the queue, which would write where a new one does.

    Jobs of SLURMGraph stay, as they outlive the app that submits them on purpose; all of them do
    if nothing is to be cancelled.

    Parameters
    ----------
    scratch_dir
        Folder of intermediate files.
    participants
        Labels; no other process may be at work on them.

    Returns
    -------
    dict
        The jobs that stay, counted by participants' labels; nobody else may be at work on those
        participants.
    """
    folder = scratch_dir / "difftract_wf" / "batch"
    wanted = set(participants)
    jobs = [
        (participant_of(job.name), job) for job in queued_jobs([folder, folder / GRAPH_FOLDER])
    ]
    own = [(label, job) for label, job in jobs if label in wanted]
    left = [(label, job) for label, job in own if not cancels or job.script.parent != folder]
    cancel(job.number for label, job in own if (label, job) not in left)
    return dict(Counter(label for label, _ in left))


def participant_of(name: str) -> str:
    """Find a participant's label in the name of a step or of a job."""
    found = _PARTICIPANT.search(name)
    return labels_of_nodes(found[1]) if found else ""


def job_name(node: Any) -> str:  # noqa: ANN401
    """Name a job as Nipype does, the step first: queues show the first letters."""
    return ".".join(reversed(node.fullname.split(".")))


def batch_folder(node: Any) -> Path:  # noqa: ANN401
    """Give the folder that Nipype puts the scripts of a graph into."""
    return Path(node.base_dir) / node.fullname.split(".")[0] / "batch"


def job_arguments(node: Any, sbatch_args: str, template: str) -> list[str]:  # noqa: ANN401
    """Put together what sbatch is told of a step: by the user, and for the step itself.

    Parameters
    ----------
    node
        The step.
    sbatch_args, template
        The user's.
    """
    own = node.plugin_args.get("sbatch_args", "")
    said = own if node.plugin_args.get("overwrite") else f"{sbatch_args} {own}"
    arguments = [*split_arguments(said, "sbatch_args"), f"--job-name={job_name(node)}"]
    if "output" not in sbatch_options(said, template):
        # Or the job would write where the app was started, which nobody may be allowed to. A % in
        # the folder's path is none of SLURM's patterns.
        folder = str(batch_folder(node)).replace("%", "%%")
        arguments.append(f"--output={folder}/slurm-%j.out")
    return arguments
