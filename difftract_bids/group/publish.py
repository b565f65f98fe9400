"""What a group run made, put where it belongs: each file whole, and all of one run."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from difftract_bids.bids.describe import LOCK_FILE
from difftract_bids.bids.labels import LABEL
from difftract_bids.io.aside import explained, move_into_place
from difftract_bids.io.locks import taking_turns

#: Name of the folder beside the participants', and of the page there.
GROUP, PAGE = "group", "group.html"
# What a group run writes, and nothing else: an earlier run's must not lie among this one's, while
# files that users put there are theirs.
_STATISTICS = re.compile(
    f"(ses-{LABEL}_)?atlas-{LABEL}_meas-{LABEL}_"
    r"stat-(mean|sd|cv|consistency|mean_desc-consistent|mask_desc-consistent)"
    r"_relmat\.(dense\.tsv|json)"
)
_SIMILARITY = re.compile(f"atlas-{LABEL}_meas-{LABEL}_similarity\\.(tsv|json)")
_RESPONSE = re.compile(f"model-{LABEL}_label-{LABEL}_response\\.(txt|json)")
_FIGURE = re.compile(
    f"(quality|atlas-{LABEL}_(mean|spread|consistency|measures|sessions|similarity))\\.svg"
)
_FIGURES = "figures"


def publish(scratch: Path, derivatives_dir: Path) -> list[Path]:
    """Move what was made to the derivatives, a file at a time, each under its name at once.

    Runs at the same time take turns, so that what is there is of one of them. Matrices,
    similarities, figures and average responses of an earlier run that this one did not make (of
    other sessions, of a threshold, of a model) are removed. If this one made no matrix,
    matrices and figures stay.

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
    with taking_turns(derivatives_dir / LOCK_FILE):
        if any(_STATISTICS.fullmatch(path.name) for path in made):
            _remove_stale(target, _STATISTICS, made)
            _remove_stale(target, _SIMILARITY, made)
            _remove_stale(target / _FIGURES, _FIGURE, made)
        _remove_stale(target, _RESPONSE, made)
        page = [Path(PAGE)] if (scratch / PAGE).is_file() else []  # last: it shows the others
        for relative in [*made, *page]:
            _move(scratch / relative, derivatives_dir / relative)
    return [derivatives_dir / relative for relative in [*made, *page]]


def _remove_stale(folder: Path, own: re.Pattern[str], made: Collection[Path]) -> None:
    keep = {path.name for path in made}
    for path in list(folder.iterdir()) if folder.is_dir() else ():
        if own.fullmatch(path.name) and path.name not in keep:
            path.unlink(missing_ok=True)


def _move(source: Path, target: Path) -> None:
    with explained(target):
        move_into_place(source, target)
