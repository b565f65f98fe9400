"""What this process may use of the machine: CPUs and memory, as containers and schedulers say."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")
#: What is left to the system and to others when nobody says how much memory there is.
_SHARE = 0.9


def available_cpus() -> int:
    """Count the CPUs that this process may use: its affinity, within quota and SLURM job.

    ``docker run --cpus 2`` and the like set a quota of time and leave the affinity as it is, as
    SLURM does where it does not bind tasks.
    """
    cpus = min(len(os.sched_getaffinity(0)), _given("SLURM_CPUS_ON_NODE") or sys.maxsize)
    for folder in _cgroup_folders():
        quota, period = _words(folder / "cpu.max", 2) or (
            *_words(folder / "cpu.cfs_quota_us", 1),
            *_words(folder / "cpu.cfs_period_us", 1),
        ) or ("max", "")  # fmt: skip
        with suppress(ValueError, ZeroDivisionError):
            if int(quota) > 0:
                cpus = min(cpus, max(1, math.ceil(int(quota) / int(period))))
    return cpus


def available_memory_gb() -> float:
    """Tell how much memory all steps together may take, GB.

    90% of the least of the machine's memory, the container's limit, and what SLURM gave the job.
    """
    limits = [_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9]
    for folder in _cgroup_folders():
        for name in ("memory.max", "memory.limit_in_bytes"):
            with suppress(ValueError):
                limits += [_SHARE * int(word) / 1e9 for word in _words(folder / name, 1)]
    by_cpu = _given("SLURM_MEM_PER_CPU") * _given("SLURM_CPUS_ON_NODE")
    limits += [_SHARE * mb * 1024**2 / 1e9 for mb in (_given("SLURM_MEM_PER_NODE"), by_cpu)]
    return min(limit for limit in limits if limit > 0)


def n_killed_for_memory() -> int:
    """Count the processes of this control group that the system has killed for want of memory."""
    for folder in _cgroup_folders():
        with suppress(OSError, ValueError, KeyError):
            lines = (folder / "memory.events").read_text(encoding="ascii").split("\n")
            return int(dict(line.split() for line in lines if line)["oom_kill"])
    return 0


def _given(variable: str) -> int:
    """Read a number that SLURM gives a job; 0 if there is none."""
    with suppress(ValueError):
        return int(os.environ.get(variable, "0"))
    return 0


def _cgroup_folders() -> Iterator[Path]:
    """List the folders whose limits apply, innermost first; within containers it is the root."""
    try:
        lines = _OWN_CGROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        roots = [_CGROUPS / name for name in controllers.split(",")] if controllers else [_CGROUPS]
        for root in roots:
            own = root / path.lstrip("/")
            for folder in (own, *own.parents):
                if folder.is_relative_to(root) and folder.is_dir():
                    yield folder


def _words(path: Path, n: int) -> tuple[str, ...]:
    """Read the words of a small file; none if it is not there, or has another number of them."""
    try:
        words = tuple(path.read_text(encoding="ascii").split())
    except (OSError, UnicodeDecodeError):
        return ()
    return words if len(words) == n else ()
