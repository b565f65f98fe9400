"""What a group run made, put where it belongs: each file whole, and all of one run."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from difftract_bids.io.aside import AsideFile, explained

#: Name of the folder beside the participants', and of the page there.
GROUP, PAGE = "group", "group.html"
#: What statistics write: an earlier run's must not lie among this one's.
_STATISTICS = re.compile(
    r"(ses-[a-zA-Z0-9+]+_)?atlas-[a-zA-Z0-9+]+_meas-[a-zA-Z0-9+]+_stat-[a-z]+"
    r"(_desc-consistent)?_relmat\.(dense\.tsv|json)"
)
_FIGURES = "figures"


def publish(scratch: Path, derivatives_dir: Path) -> list[Path]:
    """Move what was made to the derivatives, a file at a time, each under its name at once.

    Runs at the same time take turns, so that what is there is of one of them. Matrices and figures
    of an earlier run that this one did not make (of other sessions, of a threshold) are removed;
    if this one made no matrix, they stay.

    Parameters
    ----------
    scratch
        Folder with ``group/`` and, if it was made, ``group.html``.
    derivatives_dir
        Where they belong.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    DifftractError
        If a file cannot be written.
    """
    target = derivatives_dir / GROUP
    with explained(target):
        target.mkdir(parents=True, exist_ok=True)
    made = sorted(
        path.relative_to(scratch)
        for folder in (scratch / GROUP, scratch / GROUP / _FIGURES)
        for path in (folder.iterdir() if folder.is_dir() else ())
        if path.is_file()
    )
    with _turn(target):
        if any(_STATISTICS.fullmatch(path.name) for path in made):
            _remove_stale(target, {path.name for path in made})
        page = [Path(PAGE)] if (scratch / PAGE).is_file() else []  # last: it shows the others
        for relative in [*made, *page]:
            _move(scratch / relative, derivatives_dir / relative)
    return [derivatives_dir / relative for relative in [*made, *page]]


def _remove_stale(target: Path, made: set[str]) -> None:
    figures = target / _FIGURES
    old = [path for path in target.iterdir() if _STATISTICS.fullmatch(path.name)]
    old += list(figures.glob("*.svg")) if figures.is_dir() else []
    for path in old:
        if path.name not in made:
            path.unlink(missing_ok=True)


def _move(source: Path, target: Path) -> None:
    with explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with source.open("rb") as stream:  # a rename may reach the disk before the content does
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
def _turn(folder: Path) -> Iterator[None]:
    """Hold a lock on a folder, where the file system has locks (some network ones have none)."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        # Without a lock every file is still whole; only whose it is, is left to chance.
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
