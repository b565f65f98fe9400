"""Being told to stop: by Ctrl-C, by a scheduler, by a container engine."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """A signal asked for an end; no error, so that nothing on the way takes it for one."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number

    @property
    def exit_code(self) -> int:
        """What shells and schedulers know an end by a signal by."""
        return 128 + self.number


class Stopping:
    """What is known of a signal: Nipype swallows what is raised within a step of this process.

    Attributes
    ----------
    number
        The signal that came; ``None`` if none did.
    """

    def __init__(self) -> None:
        self.number: int | None = None

    def __call__(self, number: int, _: FrameType | None) -> None:
        """Take a signal; whoever sends two does not want to wait."""
        if self.number is not None:
            os._exit(128 + number)
        self.number = number
        raise Stopped(number)

    def check(self) -> None:
        """Raise again what was swallowed.

        Raises
        ------
        Stopped
            If a signal has come.
        """
        if self.number is not None:
            raise Stopped(self.number)


@contextmanager
def stopping() -> Iterator[Stopping]:
    """Turn signals that ask for an end into `Stopped`, raised in the main thread.

    Those that whoever started this has switched off, as ``nohup`` does, stay so.
    """
    state = Stopping()
    heeded = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, state) for number in heeded}
    try:
        yield state
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
