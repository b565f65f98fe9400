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
    name: str, scene: Path, threads: int, *, cache: Path | None = None, **options: object
) -> dict[str, Any]:
    """Run one job of `contenders` and give what it measured."""
    job = json.dumps({"name": name, "scene": str(scene), "threads": threads, **options})
    more = {} if cache is None else {"NUMBA_CACHE_DIR": str(cache)}
    done = subprocess.run(
        [sys.executable, str(HERE / "contenders.py"), job],
        env=environment(threads, **more),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RunFailedError(f"{name}: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def tckgen(scene: Path, threads: int, n_seeds: int) -> dict[str, Any]:
    """Run tckgen twice, once for a single seed: the difference is its tracking."""
    idle = _tckgen(scene, threads, 1)
    busy = _tckgen(scene, threads, n_seeds)
    return {
        "seconds": busy["wall"] - idle["wall"],
        "loading_seconds": idle["wall"],
        "n_seeds": n_seeds,
        "streamlines": busy["streamlines"],
        "vertices": busy["vertices"],
        "peak_mib": (busy["rss"] - idle["rss"]) / 2**20,
    }


def _tckgen(scene: Path, threads: int, n_seeds: int) -> dict[str, Any]:
    import nibabel as nib

    with tempfile.TemporaryDirectory(dir=_memory_folder()) as folder:
        tck = Path(folder) / "tracks.tck"
        words = ["tckgen", "-algorithm", "SD_STREAM", str(scene / "fod.nii.gz"), str(tck)]
        words += ["-seed_image", str(scene / "mask.nii.gz"), "-seeds", str(n_seeds)]
        # 0: one thread does everything; n: n threads track and the main thread writes.
        words += ["-select", "0", "-nthreads", str(threads if threads > 1 else 0), "-quiet"]
        start = time.perf_counter()
        process = subprocess.Popen(words, env=environment(threads))
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RunFailedError("tckgen failed")
        lines = nib.streamlines.load(tck).streamlines
        vertices = int(lines.total_nb_rows) if len(lines) else 0
    rss = usage.ru_maxrss * 1024
    return {"wall": wall, "rss": rss, "streamlines": len(lines), "vertices": vertices}


def _memory_folder() -> str | None:
    """Write to memory where possible: tckgen is not to wait for a disk."""
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
        "tckgen": _tckgen_version(),
    }


def _tckgen_version() -> str | None:
    if shutil.which("tckgen") is None:
        return None
    said = subprocess.run(
        ["tckgen", "-version"], capture_output=True, text=True, check=True
    ).stdout
    return said.splitlines()[0].strip("= ")


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text().splitlines() if file.exists() else []
