"""How the machine is shared between steps."""

from __future__ import annotations

from dataclasses import dataclass

from difftract_bids.machine import available_cpus, available_memory_gb


@dataclass(frozen=True)
class Resources:
    """What all steps together may take.

    Attributes
    ----------
    n_procs
        CPUs in all.
    omp_nthreads
        CPUs that one step may use.
    mem_gb
        Memory of all steps together, GB.
    one_at_a_time
        Whether steps run one after the other, whatever there is.
    """

    n_procs: int
    omp_nthreads: int
    mem_gb: float
    one_at_a_time: bool = False


def share(
    n_runs: int,
    n_procs: int | None = None,
    omp_nthreads: int | None = None,
    mem_gb: float | None = None,
    *,
    low_mem: bool = False,
) -> Resources:
    """Choose CPUs in all and CPUs a step: several runs at once before several CPUs a step.

    Parameters
    ----------
    n_runs
        Diffusion runs to be done.
    n_procs, omp_nthreads, mem_gb
        What the user says; what the machine has, if nothing.
    low_mem
        One step at a time.
    """
    total = n_procs or available_cpus()
    at_once = 1 if low_mem else max(1, n_runs)
    per_step = omp_nthreads or max(1, min(8, total // at_once))
    memory = mem_gb or available_memory_gb()
    return Resources(total, min(per_step, total), memory, low_mem)
