"""Processes that end with the one that started them, even if that is killed."""

from __future__ import annotations

import ctypes
import signal
from collections.abc import Callable
from contextlib import suppress
from functools import cache

#: ``PR_SET_PDEATHSIG`` of Linux' prctl(2): a signal for when the parent ends.
_SET_PARENT_DEATH_SIGNAL = 1


def end_with_parent() -> None:
    """Let the system kill this process when its parent ends; nothing where it cannot.

    What was half done is done again by the next run; what goes on unasked would be in its way.
    """
    with suppress(AttributeError, OSError):
        _prctl()(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)


@cache
def _prctl() -> Callable[[int, int], int]:
    """Find the system's call once: between a fork and what it starts there is no safe way to."""
    return ctypes.CDLL(None).prctl
