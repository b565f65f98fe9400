"""Keeping a step to the CPUs it was given."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from nipype.interfaces.base import BaseInterfaceInputSpec, traits


class ThreadedSpec(BaseInterfaceInputSpec):
    """Inputs of a step that computes; a Nipype node sets ``num_threads`` from its ``n_procs``."""

    # Left out of the hash: another number of CPUs must not make a finished step run again.
    num_threads = traits.Int(1, usedefault=True, nohash=True, desc="CPUs that the step may use.")


@contextmanager
def limited_threads(num_threads: int) -> Iterator[None]:
    """Hold torch, numba and BLAS to a number of threads; each has a switch of its own.

    ``OMP_NUM_THREADS`` alone is read once, by some of them, when they are imported.
    """
    import numba
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads(), numba.get_num_threads()
    torch.set_num_threads(num_threads)
    numba.set_num_threads(min(num_threads, numba.config.NUMBA_NUM_THREADS))
    try:
        with threadpool_limits(num_threads):
            yield
    finally:
        torch.set_num_threads(before[0])
        numba.set_num_threads(before[1])
