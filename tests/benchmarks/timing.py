"""Time and memory of one call, inside the process that makes it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Result = dict[str, Any]


def timed(call: Callable[[], Any]) -> tuple[Any, Result]:
    """Call once: seconds, and the peak of memory above what was in use."""
    before = _memory("VmRSS")
    _forget_peak()
    start = time.perf_counter()
    result = call()
    seconds = time.perf_counter() - start
    return result, {"seconds": seconds, "peak_mib": (_memory("VmHWM") - before) / 2**20}


def in_use_mib() -> float:
    """Memory that this process has now, freed memory that it keeps included."""
    return _memory("VmRSS") / 2**20


def _forget_peak() -> None:
    """Let Linux start the peak of memory anew."""
    Path("/proc/self/clear_refs").write_text("5")


def _memory(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    return 0
