"""Files written a piece at a time: under another name until they are whole."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from difftract_bids.errors import DifftractError

#: How the names of folders begin in which something is written that moves elsewhere.
ASIDE_FOLDER = ".writing-"


class AsideFile:
    """A hidden file beside its final name, renamed to it when it is whole.

    Its name begins with a dot and ends in random letters, so that nobody takes it for the file.

    Parameters
    ----------
    path
        Final name; its folder is made if need be.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        self.path = path
        self.stream: BinaryIO = os.fdopen(descriptor, "w+b", buffering=1 << 20)
        self._aside = Path(name)

    def commit(self) -> None:
        """Give the file its final name, replacing what was there."""
        self.stream.flush()
        # A rename may reach the disk before the content does, and then the power goes.
        os.fsync(self.stream.fileno())
        self.stream.close()
        mask = os.umask(0)
        os.umask(mask)
        # mkstemp makes private files; derivatives are for the lab.
        self._aside.chmod(0o666 & ~mask)
        self._aside.replace(self.path)

    def discard(self) -> None:
        """Close and remove the file; harmless after ``commit``."""
        with suppress(OSError):  # on a full disk, closing fails as writing did
            self.stream.close()
        with suppress(OSError):
            self._aside.unlink(missing_ok=True)


def move_into_place(source: Path, target: Path) -> None:
    """Give a finished file its final name, which may be on another file system.

    Parameters
    ----------
    source
        The file; it is no longer there afterwards, or may go.
    target
        Final name; its folder is made if need be.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as stream:
        # A rename may reach the disk before the content does, and then the power goes.
        os.fsync(stream.fileno())
    try:
        source.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        aside = AsideFile(target)
        try:
            with source.open("rb") as stream:
                shutil.copyfileobj(stream, aside.stream, 1 << 20)
            aside.commit()
        finally:
            aside.discard()


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write into an error that names the file.

    Raises
    ------
    DifftractError
        If the disk is full, the folder cannot be written to, or the like.
    """
    try:
        yield
    except OSError as error:
        raise DifftractError(
            f"The file cannot be written: {error.strerror or error}.",
            where=path,
            remedy="Make room, or choose a folder that can be written to.",
        ) from error
