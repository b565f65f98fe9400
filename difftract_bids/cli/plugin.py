"""Nipype's MultiProc, which would wait for ever for a worker that the system has killed."""

from __future__ import annotations

from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any

from nipype.pipeline.plugins.multiproc import MultiProcPlugin, process_initializer

_KILLED = (
    "MemoryError: A step's process was killed from outside, most often by the system for want of "
    "memory. Lower --nprocs or --omp-nthreads, or give the job more memory; the same command then "
    "continues."
)


class SafeMultiProcPlugin(MultiProcPlugin):  # type: ignore[misc]
    """MultiProc in which a killed worker fails its step, and the others go on in a new pool.

    Nipype learns of a finished step in a callback, where the exception of a broken pool is lost.
    """

    def _async_callback(self, args: Future[Any]) -> None:
        if args.exception() is None:
            super()._async_callback(args)

    def _get_result(self, taskid: int) -> dict[str, Any] | None:
        task = self._task_obj[taskid]
        if task.done() and isinstance(task.exception(), BrokenProcessPool):
            return {"taskid": taskid, "result": None, "traceback": [_KILLED]}
        result: dict[str, Any] | None = super()._get_result(taskid)
        return result

    def _submit_job(self, node: Any, updatehash: bool = False) -> int:  # noqa: ANN401, FBT001, FBT002
        try:
            return int(super()._submit_job(node, updatehash=updatehash))
        except BrokenProcessPool:
            self.pool = ProcessPoolExecutor(
                max_workers=self.processors,
                initializer=process_initializer,
                initargs=(self._cwd,),
                mp_context=get_context(self.plugin_args.get("mp_context")),
            )
            return int(super()._submit_job(node, updatehash=updatehash))
