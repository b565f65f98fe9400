"""Opening BIDS datasets: index what is asked for, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from bids import BIDSLayout
from bids.layout import BIDSLayoutIndexer
from bids.layout.writing import build_path

from difftract_bids.bids.filters import Filters
from difftract_bids.bids.labels import labelled_folders, no_label
from difftract_bids.bids.raw_dataset import RawDataset, by_participant
from difftract_bids.bids.raw_index import check_current, index_images, kept_images
from difftract_bids.bids.runs import KEYS
from difftract_bids.errors import DifftractError, InputError, UsageError


def participant_labels(bids_dir: Path) -> list[str]:
    """List the participants of a dataset by their folders, without the ``sub-``."""
    return labelled_folders(bids_dir, "sub")[0]


def mislabelled(bids_dir: Path) -> dict[str, DifftractError]:
    """List the folders ``sub-*`` that are no participant's: by the rest of their names, and why.

    The texts can be printed; they are no labels, and must not become parts of names.
    """
    others = labelled_folders(bids_dir, "sub")[1]
    return {text: no_label(bids_dir / f"sub-{text}", "sub", text) for text in others}


def choose_participants(bids_dir: Path, wanted: list[str] | None) -> list[str]:
    """Check a dataset and the participants asked for; all of them when none is named.

    Raises
    ------
    InputError
        If there is no such dataset, or it has no participant, or one that is asked for cannot be
        the label of any.
    UsageError
        If a participant asked for is not in it.
    """
    if not bids_dir.is_dir():
        raise InputError(
            "There is no such dataset folder.", where=bids_dir, remedy="Check the path."
        )
    if not (bids_dir / "dataset_description.json").is_file():
        raise InputError(
            "This is not a BIDS dataset: dataset_description.json is missing.",
            where=bids_dir,
            remedy="Give the root folder of the dataset, the one that holds sub-*.",
        )
    present, others = participant_labels(bids_dir), mislabelled(bids_dir)
    asked = [label.removeprefix("sub-") for label in wanted or ([] if present else others)]
    for label in asked:
        if label in others:
            raise others[label]
    if not present:
        raise InputError(
            "The dataset has no participant: no sub-* folder.",
            where=bids_dir,
            remedy="Give the root folder of the dataset, the one that holds sub-*.",
        )
    return choose_among(present, wanted, bids_dir, "dataset") if wanted else present


def choose_among(present: list[str], wanted: Iterable[str], where: Path, holder: str) -> list[str]:
    """Give the labels of participants that are wanted, sorted, without ``sub-``.

    Parameters
    ----------
    present
        Labels of those that are there.
    wanted
        Labels, with or without ``sub-``.
    where, holder
        The folder, and what errors call it.

    Raises
    ------
    UsageError
        If one is not there.
    """
    labels = sorted({label.removeprefix("sub-") for label in wanted})
    missing = [label for label in labels if label not in present]
    if missing:
        shown = ", ".join(present[:12]) + (", ..." if len(present) > 12 else "")
        raise UsageError(
            f"{len(missing)} of {len(labels)} participants are not in the {holder}: "
            f"{', '.join(missing)}.",
            where=where,
            remedy=f"Present are: {shown}.",
        )
    return labels


def open_raw(
    bids_dir: Path,
    participants: list[str],
    filters: Filters | None = None,
    *,
    database_dir: Path | None = None,
) -> RawDataset:
    """Index the images of a raw dataset by their names: no sidecars, no files of other kinds.

    Reading the sidecars of a whole dataset takes hours on cluster storage; those needed are read
    one by one when a run is planned.

    Parameters
    ----------
    bids_dir
        Its folder.
    participants
        Labels of those that are wanted.
    filters
        Which images count as inputs.
    database_dir
        Folder of an index of all participants, which is used if it is there and made if not.

    Raises
    ------
    UsageError
        If the index cannot be used, or is not of the dataset as it is.
    """
    root = bids_dir.absolute()
    if database_dir is None:
        images = index_images(root, participants)
    else:
        images = kept_images(database_dir, root)
        check_current(database_dir, root, participants, images)
    return RawDataset(root, by_participant(root, images), filters or Filters())


def open_derivatives(derivatives_dir: Path) -> BIDSLayout:
    """Index a folder of our own derivatives, with the entities that stock pybids drops."""
    indexer = BIDSLayoutIndexer(validate=False, index_metadata=False)
    config = str(files("difftract_bids.data") / "bids_entities.json")
    return BIDSLayout(
        derivatives_dir, validate=False, is_derivative=True, config=[config], indexer=indexer
    )


def entity_table() -> list[dict[str, Any]]:
    """Entities of our file names, as pybids wants them."""
    return list(
        json.loads((files("difftract_bids.data") / "bids_entities.json").read_text())["entities"]
    )


def path_patterns() -> list[str]:
    """Patterns of our file names, as pybids' ``build_path`` wants them."""
    return list(_patterns())


def derivative_path(entities: Mapping[str, Any]) -> str:
    """Name a derivative by its entities, relative to the derivatives folder.

    pybids goes through all patterns for a name, and a dataset has many thousands: each is made
    once for all runs, whose own entities stand in the patterns as they are.

    Parameters
    ----------
    entities
        By pybids' long names, with ``datatype``, ``suffix`` and ``extension``.

    Raises
    ------
    ValueError
        If no pattern takes all of them.
    """
    own = {key: str(value) for key, value in entities.items() if key in KEYS}
    others = {key: str(value) for key, value in entities.items() if key not in KEYS}
    path = _path_of_any_run(frozenset(own), frozenset(others.items()))
    for key, value in own.items():
        path = path.replace(_blank(key), value)
    return path


@lru_cache(maxsize=4096)
def _path_of_any_run(own: frozenset[str], others: frozenset[tuple[str, str]]) -> str:
    entities = {key: _blank(key) for key in own} | dict(others)
    path = build_path(entities, list(_patterns()), strict=True)
    if path is None:
        raise ValueError(f"no pattern of file names takes {sorted(entities)}")
    return str(path)


def _blank(key: str) -> str:
    """Give what stands for an entity of a run: no label holds such a sign."""
    return f"@{key}@"


@lru_cache(maxsize=1)
def _patterns() -> tuple[str, ...]:
    return tuple(json.loads((files("difftract_bids.data") / "bids_patterns.json").read_text()))
