"""Processes that end with the one that started them, even if that is killed."""

from __future__ import annotations

import ctypes
import signal
from contextlib import suppress

#: ``PR_SET_PDEATHSIG`` of Linux' prctl(2): a signal for when the parent ends.
_SET_PARENT_DEATH_SIGNAL = 1


def end_with_parent() -> None:
    """Let the system kill this process when its parent ends; nothing where it cannot.

    What was half done is done again by the next run; what goes on unasked would be in its way.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
