"""Nipype's SLURMGraph plugin: everything is submitted at once, and nobody waits for it.

Nipype's own writes a shell script of ``sbatch`` commands and does not look at what they say: where
SLURM refuses one, nothing is submitted that depends on it, and nobody is told. And where a job
fails, those that wait for it wait for ever.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from nipype.pipeline.plugins.slurmgraph import SLURMGraphPlugin, node_completed_status

from difftract_bids.bids.labels import participant_wf_name
from difftract_bids.cli.plugins.batch import crash_folder, write_crash
from difftract_bids.cli.plugins.slurm import (
    GRAPH_FOLDER,
    batch_folder,
    job_arguments,
    participant_of,
)
from difftract_bids.cli.plugins.slurm_jobs import cancel, ended_because, job_state, submit
from difftract_bids.cli.stopping import Stopping
from difftract_bids.io.atomic import write_json

_WELL = ("COMPLETED", "COMPLETING")


class SafeSLURMGraphPlugin(SLURMGraphPlugin):  # type: ignore[misc]
    """SLURMGraph, which knows what it has submitted, and what became of it the next time.

    Attributes
    ----------
    submitted
        Numbers of the jobs, by participants' labels.
    stopping
        Tells whether a signal has asked for an end.
    """

    stopping: Stopping = Stopping()

    def __init__(self, plugin_args: dict[str, Any]) -> None:
        # It would only warn that it cannot tell when steps begin and end.
        super().__init__(plugin_args={**plugin_args, "status_callback": None})
        self._dont_resubmit_completed_jobs = plugin_args.get("dont_resubmit_completed_jobs", True)
        self._jobid_re = plugin_args.get("jobid_re", r"Submitted batch job ([0-9]+)")
        self._tries = 1 + plugin_args.get("max_tries", 2)
        self._pause_s = plugin_args.get("retry_timeout", 2.0)
        self.submitted: dict[str, list[int]] = {}

    def run(self, graph: Any, config: Any, updatehash: bool = False) -> None:  # noqa: ANN401, FBT001, FBT002
        """Submit all steps of a graph, but of participants whose last submission failed.

        Of those crash files tell why; the next time they are submitted anew.
        """
        labels = {participant_of(node.fullname) for node in graph}
        failed = {label for label in labels if self._has_failed(label, list(graph), config)}
        left = [node for node in graph if participant_of(node.fullname) not in failed]
        if left:
            super().run(graph.subgraph(left).copy(), config, updatehash=updatehash)

    def end(self) -> None:
        """Do nothing: what is submitted stays so."""

    def _submit_graph(
        self, pyfiles: list[str], dependencies: dict[int, list[int]], nodes: list[Any]
    ) -> None:
        """Submit participant by participant: SLURM soon forgets the jobs that others wait for."""
        labels = [participant_of(node.fullname) for node in nodes]
        for label in sorted(set(labels)):
            own = [place for place, other in enumerate(labels) if other == label]
            numbers: dict[int, int] = {}
            try:
                self._submit_steps(own, numbers, pyfiles, dependencies, nodes)
            except BaseException:
                cancel(numbers.values())
                raise
            self._note(label, [nodes[place] for place in numbers], list(numbers.values()))

    def _submit_steps(
        self,
        own: list[int],
        numbers: dict[int, int],
        pyfiles: list[str],
        dependencies: dict[int, list[int]],
        nodes: list[Any],
    ) -> None:
        done: set[int] = set()
        for place in own:
            self.stopping.check()
            node, before = nodes[place], dependencies[place]
            is_cached = self._dont_resubmit_completed_jobs and done.issuperset(before)
            if is_cached and node_completed_status(node):
                done.add(place)
                continue
            waits_for = [str(numbers[other]) for other in before if other in numbers]
            try:
                numbers[place] = self._submit(node, Path(pyfiles[place]), waits_for)
            except RuntimeError as error:
                cancel(numbers.values())
                numbers.clear()
                said = f"RuntimeError: The step could not be submitted. {error}"
                write_crash(node, [said])
                return

    def _submit(self, node: Any, pyscript: Path, waits_for: list[str]) -> int:  # noqa: ANN401
        script = pyscript.parent / GRAPH_FOLDER / f"{pyscript.stem}.sh"
        script.parent.mkdir(exist_ok=True)
        command = shlex.join([sys.executable, str(pyscript)])
        template = self._template.rstrip("\n")
        script.write_text(f"{template}\n{command}\n", encoding="utf-8")
        arguments = job_arguments(node, self._sbatch_args, template)
        if waits_for:
            arguments += [
                f"--dependency=afterok:{':'.join(waits_for)}",
                "--kill-on-invalid-dep=yes",
            ]
        return submit(
            script, arguments, jobid_re=self._jobid_re, tries=self._tries, pause_s=self._pause_s
        )

    def _note(self, label: str, nodes: list[Any], numbers: list[int]) -> None:
        """Note what was submitted, for the next time."""
        if not numbers:
            return
        self.submitted[label] = numbers
        logs = str(crash_folder(nodes[0].config))
        steps = [node.fullname for node in nodes]
        content = {"Logs": logs, "Jobs": dict(zip(steps, numbers, strict=True))}
        write_json(_note_path(nodes[0], label), content)

    def _has_failed(self, label: str, nodes: Iterable[Any], config: Any) -> bool:  # noqa: ANN401
        """Look for what went wrong since a participant was submitted; tell it in crash files."""
        by_name = {n.fullname: n for n in nodes if participant_of(n.fullname) == label}
        path = _note_path(next(iter(by_name.values())), label)
        try:
            noted = json.loads(path.read_text(encoding="utf-8"))
            jobs, logs = dict(noted["Jobs"]), Path(noted["Logs"])
        except (OSError, ValueError, KeyError, TypeError):
            return False
        path.unlink()
        there = crash_folder(config)
        crashes = [one for one in logs.glob("crash-*.txt") if _is_of(label, one)]
        for crash in crashes:
            with suppress(shutil.SameFileError):
                shutil.copy2(crash, there)
        if crashes:
            return True
        for step, number in jobs.items():
            state = job_state(number)
            if state.get("JobState", "COMPLETED") not in _WELL and step in by_name:
                write_crash(by_name[step], [ended_because(state)])
                return True
        return False


def _note_path(node: Any, label: str) -> Path:  # noqa: ANN401
    return batch_folder(node) / GRAPH_FOLDER / f"sub-{label}.json"


def _is_of(label: str, crash: Path) -> bool:
    text = crash.read_text(encoding="utf-8", errors="replace")
    return f".{participant_wf_name(label)}." in text
