"""A line on the terminal for each step that took time, and for each that failed."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

#: Steps faster than this (copying a file, drawing a table) are not worth a line.
_WORTH_SECONDS = 2.0


class Progress:
    """Nipype's status callback: tells when steps begin and end.

    Parameters
    ----------
    verbose
        Tell of every step, also of the quick ones.
    """

    def __init__(self, *, verbose: bool = False) -> None:
        self._started: dict[str, float] = {}
        self._least_seconds = 0.0 if verbose else _WORTH_SECONDS

    def __call__(self, node: Any, status: str) -> None:  # noqa: ANN401
        """Take note of a node's ``start``, ``end`` or ``exception``."""
        if status == "start":
            self._started[node.fullname] = time.monotonic()
            return
        seconds = time.monotonic() - self._started.pop(node.fullname, time.monotonic())
        if status == "exception" or seconds >= self._least_seconds:
            outcome = "FAILED" if status == "exception" else "done"
            clock = datetime.now().astimezone().strftime("%H:%M:%S")
            print(f"{clock}  {_title(node.fullname)}: {outcome} in {seconds:.0f} s", flush=True)


def _title(fullname: str) -> str:
    """Turn ``difftract_wf.sub_01_wf.ses1_wf.fodf_wf.fit`` into ``sub-01 ses1 fodf fit``."""
    parts = [part.removesuffix("_wf") for part in fullname.split(".")[1:]]
    return " ".join(part.replace("sub_", "sub-") for part in parts if part != "dwi")
