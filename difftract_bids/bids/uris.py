"""BIDS URIs: how sidecars name the files that something was made from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def raw_uri(path: Path, raw_dir: Path) -> str:
    """Name a file of the raw dataset: ``bids:raw:sub-01/dwi/...``."""
    return input_uri(path, {"raw": raw_dir})


def input_uri(path: Path, datasets: Mapping[str, Path]) -> str:
    """Name a file of one of several datasets: ``bids:qsiprep:sub-01/dwi/...``.

    Parameters
    ----------
    path
        The file; it and its participant's folder may be links to elsewhere.
    datasets
        Folders by the names that dataset_description.json links them under. Of several that hold
        the file the innermost is taken: derivatives lie in raw datasets.

    Raises
    ------
    ValueError
        If none holds it.
    """
    # As it is called first; folders are resolved where it is called by another way than they.
    for folder, roots in (
        (path.parent.absolute(), {name: root.absolute() for name, root in datasets.items()}),
        (path.parent.resolve(), {name: root.resolve() for name, root in datasets.items()}),
    ):
        holding = {name: root for name, root in roots.items() if folder.is_relative_to(root)}
        if holding:
            name = max(holding, key=lambda one: len(holding[one].parts))
            relative = folder.relative_to(holding[name]) / path.name
            return f"bids:{name}:{relative.as_posix()}"
    raise ValueError(f"{path} is in none of the datasets {', '.join(datasets)}.")


def derivative_uri(relative: str | Path) -> str:
    """Name a file of the derivatives dataset itself: ``bids::sub-01/dwi/...``."""
    return f"bids::{Path(relative).as_posix()}"
