"""Files that a killed process left behind under names of its own."""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from pathlib import Path

from difftract_bids.io.aside import ASIDE_FOLDER

#: `AsideFile`'s names: the final one between a dot and eight random characters.
_ASIDE = re.compile(r"\.(?P<name>.+)\.[a-z0-9_]{8}$")


def sweep(folder: Path, *, beginning: str = "", deep: bool = False) -> int:
    """Remove what was being written when a process was killed.

    Only for places where nobody else writes: their lock must be held.

    Parameters
    ----------
    folder
        Where to look.
    beginning
        How the final names begin.
    deep
        Look in its folders as well, in which all names count.

    Returns
    -------
    int
        Files and folders that were removed.
    """
    n_removed = 0
    for path in sorted(folder.rglob(".*") if deep else folder.glob(".*")):
        aside = _ASIDE.match(path.name)
        with suppress(OSError):
            if path.name.startswith(ASIDE_FOLDER) and path.is_dir() and deep:
                shutil.rmtree(path)
                n_removed += 1
            elif aside and aside["name"].startswith(beginning) and path.is_file():
                path.unlink()
                n_removed += 1
    return n_removed
