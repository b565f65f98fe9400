"""One training in a folder at a time."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from difftract_bids.errors import UsageError
from difftract_bids.io.aside import explained


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep others from training in a folder; the lock ends with the process, however it does.

    Parameters
    ----------
    folder
        Folder of a training; made if need be.

    Raises
    ------
    UsageError
        If another process trains there.
    DifftractError
        If the folder cannot be written to.
    """
    path = folder / ".lock"
    with explained(path):
        folder.mkdir(parents=True, exist_ok=True)
        stream = path.open("w")
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                "Another training writes to this folder.",
                where=folder,
                remedy="Wait for it to end, or train in another folder.",
            ) from error
        yield
