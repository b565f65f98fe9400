"""Nipype's MultiProc, which would wait for ever for a worker that the system has killed."""

from __future__ import annotations

from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from nipype.pipeline.plugins.multiproc import MultiProcPlugin

_KILLED = (
    "A step's process was killed from outside, most often by the system for want of memory. Lower "
    "--nprocs or --omp-nthreads, or give the job more memory; the same command then continues."
)


class SafeMultiProcPlugin(MultiProcPlugin):  # type: ignore[misc]
    """MultiProc that ends with an error when its pool of workers is broken.

    Nipype learns of a finished step in a callback, where the exception of a broken pool is lost;
    here it is kept, and raised in the main loop.
    """

    def __init__(self, plugin_args: dict[str, Any] | None = None) -> None:
        super().__init__(plugin_args=plugin_args)
        self._broken = False

    def _async_callback(self, args: Future[Any]) -> None:
        if isinstance(args.exception(), BrokenProcessPool):
            self._broken = True
        else:
            super()._async_callback(args)

    def _wait(self) -> None:
        if self._broken:
            raise MemoryError(_KILLED)
        super()._wait()
