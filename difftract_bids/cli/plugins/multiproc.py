"""Nipype's MultiProc, where a killed worker fails its own step and nothing else.

Nipype alone would wait for ever for such a step, as the exception of a broken pool is lost in a
callback. And a pool that loses one process ends all others, with the steps of other participants.
"""

from __future__ import annotations

import gc
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from traceback import format_exception
from typing import Any

from nipype.pipeline.plugins.multiproc import MultiProcPlugin, process_initializer, run_node
from nipype.utils import subprocess as nipype_subprocess

from difftract_bids.cli.memory import MEMORY_REMEDY
from difftract_bids.cli.stopping import Stopping
from difftract_bids.cli.tether import end_with_parent
from difftract_bids.cost import Meter
from difftract_bids.machine import n_killed_for_memory

#: Enough for the system to say how a process ended.
_SECONDS_TO_END = 10.0


def prepare_worker(cwd: str) -> None:
    """Set a worker process up: it ends with the app, and leaves Ctrl-C to it."""
    end_with_parent()
    # The app, and the server with it, may have been killed since this process was forked: nobody
    # would end it any more, and it would begin to work.
    server = getattr(sys.modules.get("difftract_bids.cli.tethered"), "SERVER", os.getppid())
    if os.getppid() != server:
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # FSL's programs, which are processes of a worker's own, end with it.
    nipype_subprocess.Popen = _tethered_program
    process_initializer(cwd)


def _tethered_program(command: str, **options: Any) -> subprocess.Popen[Any]:  # noqa: ANN401
    """Start a program as Nipype does, by a shell, which steps aside and hands on the tether."""
    alone = not re.search(r"[;&|<>()`]", command)
    return subprocess.Popen(  # noqa: S603 - the command is Nipype's
        f"exec {command}" if alone and options.get("shell") else command,
        preexec_fn=end_with_parent,  # noqa: PLW1509 - one call of the system, found before
        **options,
    )


def run_noted(node: Any, updatehash: bool, taskid: int, note: Path) -> dict[str, Any]:  # noqa: ANN401, FBT001
    """Run a node; note which process does, and what it took in the node's folder."""
    note.write_text(str(os.getpid()), encoding="ascii")
    before, meter = _state_of_result(node), Meter()
    result: dict[str, Any] = run_node(node, updatehash, taskid)
    # Otherwise an earlier result was good, and what that one took is still there; or it failed.
    if _state_of_result(node) not in (before, None):
        with suppress(OSError):
            meter.read(node.n_procs).save(Path(node.output_dir()))
    return result


def _state_of_result(node: Any) -> tuple[int, int] | None:  # noqa: ANN401
    """Give what changes whenever a node's result is written; ``None`` if there is none."""
    try:
        state = (Path(node.output_dir()) / f"result_{node.name}.pklz").stat()
    except OSError:
        return None
    return state.st_ino, state.st_mtime_ns


class SafeMultiProcPlugin(MultiProcPlugin):  # type: ignore[misc]
    """MultiProc in which a killed worker fails its step, and the others begin again in a new pool.

    Parameters
    ----------
    plugin_args
        As for MultiProc.
    stopping
        Tells whether a signal has asked for an end.
    folder
        Where it is noted which process runs which step; one for temporary files, if left out.
    """

    def __init__(
        self,
        plugin_args: dict[str, Any] | None = None,
        stopping: Stopping | None = None,
        folder: Path | None = None,
    ) -> None:
        super().__init__(plugin_args=plugin_args)
        self._stopping = stopping or Stopping()
        self._notes = tempfile.TemporaryDirectory(prefix="workers-", dir=folder)
        self._jobs: dict[int, tuple[Any, bool]] = {}
        self._killed_before = n_killed_for_memory()
        self._begun_again: set[int] = set()
        self._new_pool()

    def run(self, graph: Any, config: Any, updatehash: bool = False) -> None:  # noqa: ANN401, FBT001, FBT002
        """Run all steps of a graph."""
        # Nipype collects garbage after each step of this process and whenever it looks for steps
        # to start. Over a graph of a thousand nodes that took four fifths of all of its time.
        gc.freeze()
        try:
            super().run(graph, config, updatehash=updatehash)
        finally:
            gc.unfreeze()

    def end(self) -> None:
        """Kill the workers, and forget what they were doing."""
        processes = list((self.pool._processes or {}).values())  # noqa: SLF001 - no other way
        for process in processes:
            process.kill()
        self.pool.shutdown(wait=True, cancel_futures=True)
        self._notes.cleanup()

    def _new_pool(self) -> None:
        self.pool = ProcessPoolExecutor(
            max_workers=self.processors,
            initializer=prepare_worker,
            initargs=(self._cwd,),
            mp_context=get_context(self.plugin_args.get("mp_context")),
        )
        self._processes: Mapping[int, Any] = {}

    def _send_procs_to_workers(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        self._stopping.check()
        try:
            super()._send_procs_to_workers(*args, **kwargs)
        finally:  # whatever Nipype makes of a signal within a step of this process
            self._stopping.check()

    def _async_callback(self, args: Future[Any]) -> None:
        if not args.cancelled() and args.exception() is None:
            super()._async_callback(args)

    def _submit_job(self, node: Any, updatehash: bool = False) -> int:  # noqa: ANN401, FBT001, FBT002
        self._taskid += 1
        if getattr(node.interface, "terminal_output", "") == "stream":
            node.interface.terminal_output = "allatonce"
        self._jobs[self._taskid] = node, updatehash
        self._submit(self._taskid)
        return int(self._taskid)

    def _submit(self, taskid: int) -> None:
        node, updatehash = self._jobs[taskid]
        note = self._note(taskid)
        note.unlink(missing_ok=True)
        try:
            task = self.pool.submit(run_noted, node, updatehash, taskid, note)
        except BrokenProcessPool:
            self._settle()
            task = self.pool.submit(run_noted, node, updatehash, taskid, note)
        _watch_every_process(self.pool)
        # A pool forgets its processes when it breaks; they know how they ended.
        self._processes = self.pool._processes  # noqa: SLF001
        task.add_done_callback(self._async_callback)
        self._task_obj[taskid] = task

    def _get_result(self, taskid: int) -> dict[str, Any] | None:
        task = self._task_obj[taskid]
        if _is_broken(task):
            self._settle()
        elif task.done() and (error := task.exception()) is not None:
            # Not the step itself failed but what is around it, on a full disk for one; Nipype
            # would go on waiting for it.
            return {"taskid": taskid, "result": None, "traceback": format_exception(error)}
        result: dict[str, Any] | None = super()._get_result(taskid)
        return result

    def _settle(self) -> None:
        """Fail the steps whose processes were killed, and begin the others again in a new pool."""
        self.pool.shutdown(wait=True)  # until it has told all tasks, and its processes have ended
        broken = [taskid for taskid, task in self._task_obj.items() if _is_broken(task)]
        deadly = self._exit_codes()
        ran_in = {taskid: self._process_of(taskid) for taskid in broken}
        failed = [taskid for taskid in broken if ran_in[taskid] in deadly]
        if not failed:  # nobody knows whose it was: once more, but not for ever
            failed = [taskid for taskid in broken if taskid in self._begun_again]
            self._begun_again.update(broken)
        for taskid in failed:
            node = self._jobs[taskid][0]
            said = self._said_of(deadly.get(ran_in[taskid], -signal.SIGKILL), node.mem_gb)
            self._taskresult[taskid] = {"taskid": taskid, "result": None, "traceback": [said]}
            self._task_obj[taskid] = Future()  # what it was is told
        self._new_pool()
        for taskid in broken:
            if taskid not in failed:
                self._submit(taskid)

    def _exit_codes(self) -> dict[int | None, int]:
        """Tell how the processes of the pool ended that it did not end itself, by their ids."""
        for process in self._processes.values():
            process.join(_SECONDS_TO_END)
        codes = {pid: process.exitcode for pid, process in self._processes.items()}
        return {pid: code for pid, code in codes.items() if code not in (None, 0, -signal.SIGTERM)}

    def _process_of(self, taskid: int) -> int | None:
        with suppress(OSError, ValueError):
            return int(self._note(taskid).read_text(encoding="ascii"))
        return None

    def _said_of(self, code: int, mem_gb: float) -> str:
        if code != -signal.SIGKILL:
            return f"RuntimeError: A step's process ended by itself (exit code {code})."
        killed = n_killed_for_memory()
        certain, self._killed_before = killed > self._killed_before, killed
        why = "for want of memory" if certain else "most often by the system for want of memory"
        return (
            f"MemoryError: A step's process was killed from outside, {why}; it was expected to "
            f"take {mem_gb:.1f} GB. {MEMORY_REMEDY}"
        )

    def _clear_task(self, taskid: int) -> None:
        super()._clear_task(taskid)
        del self._jobs[taskid]
        self._taskresult.pop(taskid, None)
        self._note(taskid).unlink(missing_ok=True)

    def _note(self, taskid: int) -> Path:
        return Path(self._notes.name) / str(taskid)


def _watch_every_process(pool: ProcessPoolExecutor) -> None:
    """Have a pool's thread look for the end of the process, too, that it has just started.

    ``submit`` wakes that thread before it starts a process, as Python 3.11 to 3.14 have it. On a
    busy machine the thread waits again before the process is there, and does not learn that it
    was killed until another step ends, perhaps hours later.
    """
    with pool._shutdown_lock:  # noqa: SLF001 - no other way
        pool._executor_manager_thread_wakeup.wakeup()  # noqa: SLF001


def _is_broken(task: Future[Any]) -> bool:
    return task.done() and isinstance(task.exception(), BrokenProcessPool)
