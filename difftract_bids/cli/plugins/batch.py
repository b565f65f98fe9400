"""Nipype's plugins for batch systems, in which one failed job fails its own step and nothing else.

What is mended here of Nipype 1.11, each tried:

- A job that was killed, or that the system refused, ended the whole run with an error about lists,
  and left all other jobs in the queue.
- Where a step had been done before with other settings and its new job was killed before it began,
  the old result was taken for the new one.
- The queue was asked as often as local processes are, once for every job.
"""

from __future__ import annotations

import os
import re
import time
import uuid
from pathlib import Path
from typing import Any

import nipype.pipeline.plugins as nipype_plugins
from nipype.utils.filemanip import crash2txt

from difftract_bids.cli.plugins.plugin_file import PluginChoice
from difftract_bids.cli.stopping import Stopping

#: How often the queue is asked, and how long a result may take to be seen on a file system that
#: another machine has written to (NFS keeps what it knows of a folder for up to a minute).
POLL_S = 5.0
RESULT_S = 60.0


def make_plugin(
    choice: PluginChoice,
    *,
    status_callback: Any = None,  # noqa: ANN401
    stopping: Stopping | None = None,
) -> Any:  # noqa: ANN401
    """Make the plugin that runs steps elsewhere, for ``workflow.run(plugin=...)``.

    Parameters
    ----------
    choice
        What the user wants; not a local plugin.
    status_callback
        Told of every step that begins and ends.
    stopping
        Tells whether a signal has asked for an end.
    """
    from difftract_bids.cli.plugins.slurm import SafeSLURMPlugin
    from difftract_bids.cli.plugins.slurm_graph import SafeSLURMGraphPlugin

    kind: Any = {"SLURM": SafeSLURMPlugin, "SLURMGraph": SafeSLURMGraphPlugin}.get(choice.name)
    if kind is None:
        # They put it into the names of jobs, on a shell's command line; containers have none.
        user = os.environ.get("LOGNAME") or "difftract"
        os.environ["LOGNAME"] = re.sub(r"[^\w.-]", "_", user)
        theirs = getattr(nipype_plugins, f"{choice.name}Plugin")
        kind = type(f"Safe{choice.name}Plugin", (SafeBatch, theirs), {})
    plugin = kind(plugin_args={**choice.args, "status_callback": status_callback})
    plugin.stopping = stopping or Stopping()
    return plugin


class SafeBatch:
    """What is added to a plugin of Nipype that submits jobs and waits for them.

    Attributes
    ----------
    stopping
        Tells whether a signal has asked for an end.
    """

    plugin_args: dict[str, Any]
    stopping: Stopping = Stopping()

    def run(self, graph: Any, config: Any, updatehash: bool = False) -> None:  # noqa: ANN401, FBT001, FBT002
        """Run all steps of a graph."""
        self._not_submitted: dict[int, list[str]] = {}
        wait_for(config, self.plugin_args)
        super().run(graph, config, updatehash=updatehash)  # type: ignore[misc]

    def end(self) -> None:
        """Take back what was submitted; Nipype has no way to."""

    def _send_procs_to_workers(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        self.stopping.check()
        super()._send_procs_to_workers(*args, **kwargs)  # type: ignore[misc]
        self.stopping.check()

    def _submit_job(self, node: Any, updatehash: bool = False) -> Any:  # noqa: ANN401, FBT001, FBT002
        for stale in Path(node.output_dir()).glob("result_*.pklz"):
            stale.unlink()
        try:
            return super()._submit_job(node, updatehash=updatehash)  # type: ignore[misc]
        except Exception as error:  # noqa: BLE001
            taskid = -1 - len(self._not_submitted)
            said = f"RuntimeError: The step could not be submitted. {error}"
            self._not_submitted[taskid] = [said]
            return taskid

    def _get_result(self, taskid: Any) -> dict[str, Any] | None:  # noqa: ANN401
        if taskid in self._not_submitted:
            return {"result": None, "traceback": self._not_submitted[taskid]}
        result: dict[str, Any] | None = super()._get_result(taskid)  # type: ignore[misc]
        return result

    def _clear_task(self, taskid: Any) -> None:  # noqa: ANN401
        if taskid not in self._not_submitted:
            super()._clear_task(taskid)  # type: ignore[misc]

    def _report_crash(self, node: Any, result: dict[str, Any] | None = None) -> str:  # noqa: ANN401
        told = (result or {}).get("traceback") or "RuntimeError: No reason is known."
        lines = told.splitlines(keepends=True) if isinstance(told, str) else told
        return str(write_crash(node, lines))


def wait_for(config: Any, plugin_args: dict[str, Any]) -> None:  # noqa: ANN401
    """Let Nipype wait as a batch system wants it, or as the user says.

    Parameters
    ----------
    config
        Nipype's settings of a workflow; changed.
    plugin_args
        The plugin's arguments.
    """
    waiting = {"poll_sleep_duration": POLL_S, "job_finished_timeout": RESULT_S}
    for name, seconds in waiting.items():
        config["execution"][name] = str(plugin_args.get(name, seconds))


def crash_folder(config: Any) -> Path:  # noqa: ANN401
    """Find the folder of crash files in Nipype's settings, where %% stands for %."""
    return Path(str(config["execution"]["crashdump_dir"]).replace("%%", "%"))


def write_crash(node: Any, lines: list[str]) -> Path:  # noqa: ANN401
    """Write a crash file, as Nipype does where the step has left a result.

    Parameters
    ----------
    node
        The step.
    lines
        Why it failed; the last ones name the error.
    """
    folder = crash_folder(node.config)
    folder.mkdir(parents=True, exist_ok=True)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    path = folder / f"crash-{stamp}-{node.name}-{uuid.uuid4()}.txt"
    crash2txt(str(path), {"node": node, "traceback": lines})
    return path
