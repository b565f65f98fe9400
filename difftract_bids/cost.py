"""What one step took: measured around it by the process that runs it, and kept in its folder."""

from __future__ import annotations

import json
import math
import os
import resource
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

#: Name of the file in a step's working folder.
COST_FILE = "cost.json"
_CLEAR_REFS, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
#: What asks Linux to begin anew with the peak of the resident set (proc(5)).
_FORGET_PEAK = "5"
_GB_PER_KIB = 1024 / 1e9


@dataclass(frozen=True)
class Cost:
    """What one step took.

    Attributes
    ----------
    began
        Date and time, with its zone.
    seconds
        How long it took.
    cpu_seconds
        Time of all of its CPUs, programs that it started included; ``None`` if not measured.
    peak_memory_gb
        Largest resident set of its process, or of a program that it started if that was larger,
        GB. ``None`` if not measured.
    held_memory_gb
        How much of that its process held already when the step began: libraries, and what earlier
        steps have left; 0 if a program was larger. ``None`` if not measured.
    n_cpus
        CPUs that it might use; ``None`` if not known.
    """

    began: datetime
    seconds: float
    cpu_seconds: float | None = None
    peak_memory_gb: float | None = None
    held_memory_gb: float | None = None
    n_cpus: int | None = None

    @property
    def ended(self) -> datetime:
        """Date and time of its end."""
        return self.began + timedelta(seconds=self.seconds)

    def save(self, folder: Path) -> None:
        """Write it into a step's folder; what was not measured is left out.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        content = {
            "Began": self.began.isoformat(timespec="milliseconds"),
            "Seconds": self.seconds,
            "CPUSeconds": self.cpu_seconds,
            "PeakMemoryGB": self.peak_memory_gb,
            "HeldMemoryGB": self.held_memory_gb,
            "CPUs": self.n_cpus,
        }
        known = {
            key: round(value, 4) if isinstance(value, float) else value
            for key, value in content.items()
            if value is not None
        }
        aside = folder / f".{COST_FILE}.{os.getpid()}"
        try:
            # Not waiting for the disk: a step should not, and nothing depends on this file.
            aside.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
            aside.replace(folder / COST_FILE)
        finally:
            aside.unlink(missing_ok=True)

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """Read it from a step's folder; ``None`` if there is none that can be read."""
        try:
            content = json.loads((folder / COST_FILE).read_text(encoding="utf-8"))
            began = datetime.fromisoformat(content["Began"])
            seconds = _amount(content, "Seconds")
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if seconds is None or began.tzinfo is None:
            return None
        n_cpus = _amount(content, "CPUs")
        return cls(
            began,
            seconds,
            _amount(content, "CPUSeconds"),
            _amount(content, "PeakMemoryGB"),
            _amount(content, "HeldMemoryGB"),
            None if n_cpus is None else int(n_cpus),
        )


class Meter:
    """Measures what this process takes from now on, and the programs that it starts."""

    def __init__(self) -> None:
        self._held_gb = _resident_gb("VmRSS") if _forget_peak() else None
        self._own = resource.getrusage(resource.RUSAGE_SELF)
        self._programs = resource.getrusage(resource.RUSAGE_CHILDREN)
        self._began, self._clock_s = datetime.now(UTC), time.monotonic()

    def read(self, n_cpus: int | None = None) -> Cost:
        """Tell what was taken since the meter was made.

        Parameters
        ----------
        n_cpus
            CPUs that might be used.
        """
        seconds = time.monotonic() - self._clock_s
        own = resource.getrusage(resource.RUSAGE_SELF)
        programs = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_seconds = _cpu_seconds(self._own, own) + _cpu_seconds(self._programs, programs)
        peak_gb, held_gb = self._memory_gb(programs)
        return Cost(self._began, seconds, cpu_seconds, peak_gb, held_gb, n_cpus)

    def _memory_gb(self, programs: resource.struct_rusage) -> tuple[float | None, float | None]:
        """Tell the peak, and what of it was held before."""
        own_gb = None if self._held_gb is None else _resident_gb("VmHWM")
        if own_gb is None:
            return None, None
        # Of all programs that this process has ever waited for.
        largest_gb = programs.ru_maxrss * _GB_PER_KIB
        if programs.ru_minflt == self._programs.ru_minflt or own_gb >= largest_gb:
            return own_gb, self._held_gb  # none was run, or none that matters
        if programs.ru_maxrss > self._programs.ru_maxrss:
            return largest_gb, 0.0
        return None, None  # they took less than some program did before: nobody knows how much


def _forget_peak() -> bool:
    """Let the peak of the resident set begin anew; tell whether the system did."""
    try:
        _CLEAR_REFS.write_text(_FORGET_PEAK, encoding="ascii")
    except OSError:
        return False
    return True


def _resident_gb(which: str) -> float | None:
    """Tell the resident set of this process now (``VmRSS``) or its peak (``VmHWM``)."""
    with suppress(OSError, ValueError, IndexError):
        for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith(f"{which}:"):
                return int(line.split()[1]) * _GB_PER_KIB
    return None


def _cpu_seconds(before: resource.struct_rusage, after: resource.struct_rusage) -> float:
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def _amount(content: Mapping[str, Any], key: str) -> float | None:
    """Take a number that makes sense from a file."""
    value = content.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if math.isfinite(value) and value >= 0 else None
