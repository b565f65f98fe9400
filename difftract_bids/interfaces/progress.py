"""How far a long step has come, told to whoever draws it: nodes run in processes of their own."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

#: Folder for the state of steps; set by the command line, absent elsewhere.
FOLDER_VARIABLE = "DIFFTRACT_PROGRESS_DIR"
_SECONDS_BETWEEN = 0.5


class ProgressFile:
    """A small file that says how far a step is, removed when it ends.

    A context manager. Nothing happens where no folder is named, and no failure to write is raised.

    Parameters
    ----------
    step
        Working folder of the step, which names it.
    total
        What will be done in all; ``None`` if not known.
    unit
        What is counted.
    """

    def __init__(self, step: str, total: int | None, unit: str) -> None:
        folder = os.environ.get(FOLDER_VARIABLE)
        self._path = Path(folder) / f"{os.getpid()}.json" if folder else None
        self._state = {"step": step, "total": total, "unit": unit, "pid": os.getpid()}
        self._written = float("-inf")

    def __enter__(self) -> Self:
        self.update(0)
        return self

    def update(self, done: int) -> None:
        """Say how much is done; most calls do nothing."""
        now = time.monotonic()
        if self._path is None or now - self._written < _SECONDS_BETWEEN:
            return
        self._written = now
        with suppress(OSError):
            aside = self._path.with_suffix(".part")
            aside.write_text(json.dumps({**self._state, "done": done}), encoding="utf-8")
            aside.replace(self._path)

    def __exit__(self, *_: object) -> None:
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)
