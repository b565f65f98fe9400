"""Opening BIDS datasets: index what is asked for, and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

from bids import BIDSLayout
from bids.layout import BIDSLayoutIndexer

from difftract_bids.errors import InputError, UsageError

_NOT_RAW = ("derivatives", "code", "sourcedata", "stimuli", "models", re.compile(r"/\."))


def participant_labels(bids_dir: Path) -> list[str]:
    """List the participants of a dataset by their folders, without the ``sub-``."""
    return sorted(
        path.name.removeprefix("sub-") for path in bids_dir.glob("sub-*") if path.is_dir()
    )


def choose_participants(bids_dir: Path, wanted: list[str] | None) -> list[str]:
    """Check a dataset and the participants asked for; all of them when none is named.

    Raises
    ------
    InputError
        If there is no such dataset, or it has no participant.
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
    present = participant_labels(bids_dir)
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


def open_raw(bids_dir: Path, participants: list[str]) -> BIDSLayout:
    """Index the given participants of a raw dataset, file names only.

    Reading the sidecars of a whole dataset takes hours on cluster storage; those needed are read
    one by one through the layout when a run is planned.
    """
    others = re.compile(rf"/sub-(?!(?:{'|'.join(map(re.escape, participants))})(?:/|_|$))")
    indexer = BIDSLayoutIndexer(validate=False, index_metadata=False, ignore=[*_NOT_RAW, others])
    return BIDSLayout(bids_dir, validate=False, indexer=indexer)


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
    return list(json.loads((files("difftract_bids.data") / "bids_patterns.json").read_text()))
