"""Labels of participants and sessions: which names of folders hold one, and which do not."""

from __future__ import annotations

import os
import re
from pathlib import Path

from difftract_bids.errors import InputError

#: https://bids-specification.readthedocs.io, common principles; ``+`` since BIDS 1.10.
LABEL = r"[0-9a-zA-Z+]+"


def is_label(text: str) -> bool:
    """Say whether a text can be the label of a participant, a session or any other entity."""
    return re.fullmatch(LABEL, text) is not None


def labelled_folders(folder: Path, key: str) -> tuple[list[str], list[str]]:
    """List the folders ``<key>-*`` in a folder: by their labels, and those without a label.

    Parameters
    ----------
    folder
        A dataset's, or a participant's.
    key
        ``sub`` or ``ses``.

    Returns
    -------
    tuple of list
        Labels, sorted; and the rest of the names of folders that are none, ready to be printed.
    """
    with os.scandir(folder) as entries:  # which knows what is a folder without asking for each
        found = [
            entry.name for entry in entries if entry.name.startswith(f"{key}-") and entry.is_dir()
        ]
    texts = sorted(name.removeprefix(f"{key}-") for name in found)
    labels = [text for text in texts if is_label(text)]
    return labels, [printable(text) for text in texts if not is_label(text)]


def no_label(folder: Path, key: str, text: str) -> InputError:
    """Say that the name of a folder holds no label, and what to do about it."""
    kind = {"sub": "participant", "ses": "session"}[key]
    return InputError(
        f"{key}-{text} is no {kind}: labels are of letters, digits and + only.",
        where=folder,
        remedy="Rename the folder and the files in it, or move it out of the dataset; or name the "
        f"{kind}s that are wanted with --{kind}-label.",
    )


def printable(text: str) -> str:
    """Give a text with escapes for what cannot be printed, such as ends of lines."""
    return text if text.isprintable() else ascii(text)[1:-1]


def node_label(label: str) -> str:
    """Give a label as part of the name of a Nipype node, which may not hold a ``+``.

    Labels have no underscore of their own, so that no two give the same.
    """
    return label.replace("+", "_plus_")


def labels_of_nodes(text: str) -> str:
    """Give a text with names of Nipype nodes the labels that they were made of."""
    return text.replace("_plus_", "+")


def participant_wf_name(participant: str) -> str:
    """Name the graph of a participant, which is also that of its folder.

    Parameters
    ----------
    participant
        Label, without the ``sub-``.
    """
    return f"sub_{node_label(participant)}_wf"
