"""BIDS URIs: how sidecars name the files that something was made from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def raw_uri(path: Path, raw_dir: Path) -> str:
    """Name a file of the raw dataset: ``bids:raw:sub-01/dwi/...``."""
    # The file itself may be a link into a store (DataLad); only the folders are resolved.
    folder = path.parent.resolve().relative_to(raw_dir.resolve())
    return f"bids:raw:{(folder / path.name).as_posix()}"


def input_uri(path: Path, datasets: Mapping[str, Path]) -> str:
    """Name a file of one of several datasets: ``bids:qsiprep:sub-01/dwi/...``.

    Parameters
    ----------
    path
        The file.
    datasets
        Folders by the names that dataset_description.json links them under. Of several that hold
        the file the innermost is taken: derivatives lie in raw datasets.

    Raises
    ------
    ValueError
        If none holds it.
    """
    folder = path.parent.resolve()
    holding = {
        name: root.resolve()
        for name, root in datasets.items()
        if folder.is_relative_to(root.resolve())
    }
    if not holding:
        raise ValueError(f"{path} is in none of the datasets {', '.join(datasets)}.")
    name = max(holding, key=lambda one: len(holding[one].parts))
    relative = folder.relative_to(holding[name]) / path.name
    return f"bids:{name}:{relative.as_posix()}"


def derivative_uri(relative: str | Path) -> str:
    """Name a file of the derivatives dataset itself: ``bids::sub-01/dwi/...``."""
    return f"bids::{Path(relative).as_posix()}"
