"""pybids' index of a raw dataset, in memory or kept in a folder: the images that are read here."""

from __future__ import annotations

import re
import sqlite3
import tempfile
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from bids import BIDSLayout
from bids.layout import BIDSLayoutIndexer
from sqlalchemy.exc import SQLAlchemyError

from difftract_bids.bids.labels import LABEL
from difftract_bids.bids.raw_dataset import DATATYPES, NIFTI, images_on_disk, is_image
from difftract_bids.errors import UsageError

#: What pybids calls the file in the folder of an index.
_FILE = "layout_index.sqlite"
#: Participants that a pattern names one by one; of more, all are indexed.
_NAMED_IN_PATTERN = 50


def index_images(root: Path, participants: Iterable[str]) -> list[Path]:
    """Index the images of some participants, in memory, and list them.

    Parameters
    ----------
    root
        Folder of the dataset, absolute.
    participants
        Their labels.
    """
    wanted = list(participants)
    # The pattern is tried on every path: a long one costs more than images that nobody asked for.
    few = len(wanted) <= _NAMED_IN_PATTERN
    return _images(_indexed(root, "|".join(map(re.escape, wanted)) if few else LABEL))


def kept_images(database_dir: Path, root: Path) -> list[Path]:
    """List the images of an index that is kept in a folder; make it if it is not there.

    It is of all participants. It is made aside and renamed: several runs may do so at once, and
    the index of one of them remains.

    Parameters
    ----------
    database_dir
        The folder of the index.
    root
        Folder of the dataset, absolute.

    Raises
    ------
    UsageError
        If it cannot be made, is no index, or is that of another dataset.
    """
    file = database_dir.absolute() / _FILE
    try:
        if not file.is_file():
            _make(file, root)
        indexed = _root_of(file)
        if not (indexed.is_dir() and indexed.samefile(root)):
            raise UsageError(
                f"The index is that of another dataset, {indexed}.",
                where=f"--bids-database-dir {file}",
                remedy="Remove it, or give another folder for the index of this dataset.",
            )
        found = _images(BIDSLayout(root, validate=False, database_path=file.parent))
        return [root / name for path in found if is_image(name := path.relative_to(indexed))]
    except (OSError, sqlite3.Error, SQLAlchemyError, ValueError) as error:
        raise UsageError(
            f"The index of the dataset cannot be used: {str(error).splitlines()[0]}.",
            where=f"--bids-database-dir {file}",
            remedy="Remove it, and see that the folder can be written to.",
        ) from error


def check_current(
    database_dir: Path, root: Path, participants: Iterable[str], indexed: Iterable[Path]
) -> None:
    """Check that an index tells of the wanted participants what is there.

    Parameters
    ----------
    database_dir
        The folder of the index.
    root
        Folder of the dataset, absolute.
    participants
        Labels of those that are wanted.
    indexed
        All images of the index.

    Raises
    ------
    UsageError
        If images came or went since it was made.
    """
    known: dict[str, set[Path]] = {}
    for path in indexed:
        known.setdefault(path.relative_to(root).parts[0], set()).add(path)
    for label in participants:
        there, told = images_on_disk(root, label), known.get(f"sub-{label}", set())
        if there != told:
            new, gone = sorted(there - told), sorted(told - there)
            raise UsageError(
                f"The index is not of the dataset as it is: of participant {label}, {len(new)} "
                f"image(s) are not in it and {len(gone)} of it are gone, first "
                f"{[*new, *gone][0].name}.",
                where=f"--bids-database-dir {database_dir.absolute() / _FILE}",
                remedy="Remove that file: the next run indexes the dataset anew.",
            )


def _make(file: Path, root: Path) -> None:
    folder = file.parent.resolve()
    if folder.is_relative_to(root.resolve()):
        raise UsageError(
            "The index would lie among the raw data, which are never written to.",
            where=f"--bids-database-dir {file.parent}",
            remedy="Choose another folder.",
        )
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".index-", dir=folder) as aside:
        _close(_indexed(root, LABEL, Path(aside)))
        (Path(aside) / _FILE).replace(file)


def _indexed(root: Path, labels: str, database_dir: Path | None = None) -> BIDSLayout:
    """Index images by their names, and nothing else: folders of other kinds are not even listed.

    Parameters
    ----------
    root
        Folder of the dataset.
    labels
        Regular expression of the participants.
    database_dir
        Where the index is written; kept in memory when ``None``.
    """
    others = re.compile(
        rf"^(?!/sub-(?:{labels})(?:/ses-{LABEL})?"
        rf"(?:/(?:{'|'.join(DATATYPES)})(?:/[^/.][^/]*\.nii(?:\.gz)?)?)?$)"
    )
    indexer = BIDSLayoutIndexer(validate=False, index_metadata=False, ignore=[others])
    return BIDSLayout(root, validate=False, indexer=indexer, database_path=database_dir)


def _images(layout: BIDSLayout) -> list[Path]:
    """List all images of an index, and close it."""
    found = layout.get(extension=list(NIFTI), return_type="filename")
    _close(layout)
    return [Path(name) for name in found]


def _root_of(file: Path) -> Path:
    """Read of which dataset an index is, before pybids takes its word for it."""
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as database:
        row = database.execute("SELECT root FROM layout_info").fetchone()
    if row is None:
        raise ValueError("it does not say of which dataset it is")
    return Path(row[0])


def _close(layout: BIDSLayout) -> None:
    layout.session.close()
    layout.connection_manager.engine.dispose()
