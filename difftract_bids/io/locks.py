"""Locks that end with the process that holds them, however it ends."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from difftract_bids.io.aside import explained

#: What file systems without locks answer with; some network ones have none.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class NameLocks:
    """Locks by name, shared by all processes that use the same file.

    Each name is a byte of one file: a thousand locks need one open file, and they hold across
    machines that share a file system. Where that has no locks, everybody gets one.

    A context manager, which lets go of them all.

    Parameters
    ----------
    path
        The file; made if need be, and left empty. A process must not open it twice: closing
        either would let go of the locks of both.

    Attributes
    ----------
    are_real
        Whether the file system has locks, as far as is known.
    """

    def __init__(self, path: Path) -> None:
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._path = path
        self.are_real = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)

    def take(self, name: str) -> bool:
        """Take the lock of a name, without waiting.

        Returns
        -------
        bool
            Whether it is ours; another process has it if not.

        Raises
        ------
        DifftractError
            If the file system fails.
        """
        with explained(self._path):
            try:
                fcntl.lockf(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _byte_of(name))
            except OSError as error:
                if error.errno in (errno.EACCES, errno.EAGAIN):
                    return False
                if error.errno not in _NO_LOCKS:
                    raise
                self.are_real = False
        return True


@contextmanager
def taking_turns(path: Path) -> Iterator[bool]:
    """Wait for a lock and hold it; nobody waits where the file system has none.

    Gives whether nobody else has a turn meanwhile.

    Parameters
    ----------
    path
        File that all who take turns name; made if need be, and left empty.
    """
    # For writing, though nothing is: NFS makes locks of byte ranges, which readers cannot have.
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        is_alone = True
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            is_alone = False
        yield is_alone
    finally:
        os.close(handle)


def _byte_of(name: str) -> int:
    """Give a name its place in the file: two names share one once in 2⁵⁵ pairs."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big") >> 1
