"""Each run is a process of its own: its time, its memory, and nothing left over from another."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


class RunFailedError(RuntimeError):
    """A contender ended with an error."""


def environment(threads: int, **more: str) -> dict[str, str]:
    """Hold every library to so many threads."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    return os.environ | dict.fromkeys(names, str(threads)) | {"MRTRIX_RNG_SEED": "1"} | more


def contender(
    part: str,
    name: str,
    scene: Path,
    threads: int,
    *,
    cache: Path | None = None,
    **options: object,
) -> dict[str, Any]:
    """Run one job of a part of the benchmark and give what it measured."""
    asked = {"part": part, "name": name, "scene": str(scene), "threads": threads, **options}
    more = {} if cache is None else {"NUMBA_CACHE_DIR": str(cache)}
    done = subprocess.run(
        [sys.executable, str(HERE / "contenders.py"), json.dumps(asked)],
        env=environment(threads, **more),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RunFailedError(f"{part}, {name}: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def first_call(part: str, name: str, label: str, scene: Path, **options: object) -> dict[str, Any]:
    """Time the first call in a new process without, then with, the cache on disk."""
    with tempfile.TemporaryDirectory() as folder:
        empty, filled = (
            contender(part, name, scene, 1, cache=Path(folder), **options) for _ in range(2)
        )
    return {
        "name": name,
        "label": label,
        "empty_cache": empty["first_call_seconds"],
        "filled_cache": filled["first_call_seconds"],
    }


def mrtrix(words: Sequence[object], threads: int) -> tuple[float, int]:
    """Run a program of MRtrix3: seconds by the clock on the wall, and bytes of memory it had."""
    # 0: one thread does everything; n: n threads work and the main thread waits or writes.
    asked = [*map(str, words), "-nthreads", str(threads if threads > 1 else 0), "-quiet"]
    start = time.perf_counter()
    process = subprocess.Popen(asked, env=environment(threads))
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RunFailedError(f"{asked[0]} failed")
    return wall, usage.ru_maxrss * 1024


def memory_folder() -> str | None:
    """Write to memory where possible: programs are not to wait for a disk."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108


def machine() -> dict[str, object]:
    """Describe what the figures were measured on, and with."""
    packages = ("torch", "numba", "numpy", "dipy")
    cpu = [line for line in _lines("/proc/cpuinfo") if line.startswith(("model name", "flags"))]
    fields = dict(line.split(":", 1) for line in reversed(cpu))
    fields = {name.strip(): value.strip() for name, value in fields.items()}
    flags = set(fields.get("flags", "").split())
    return {
        "processor": fields.get("model name", platform.processor()),
        "vector_units": [name for name in ("avx", "avx2", "fma", "avx512f") if name in flags],
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_before": round(os.getloadavg()[0], 2),
        "system": platform.system(),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "mrtrix": _mrtrix_version(),
    }


def _mrtrix_version() -> str | None:
    """Give the version without the program's name."""
    if shutil.which("tckgen") is None:
        return None
    said = subprocess.run(
        ["tckgen", "-version"], capture_output=True, text=True, check=True
    ).stdout
    return said.splitlines()[0].strip("= ").removeprefix("tckgen ")


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text().splitlines() if file.exists() else []
