"""BIDS URIs: how sidecars name the files that something was made from."""

from __future__ import annotations

from pathlib import Path


def raw_uri(path: Path, raw_dir: Path) -> str:
    """Name a file of the raw dataset: ``bids:raw:sub-01/dwi/...``."""
    # The file itself may be a link into a store (DataLad); only the folders are resolved.
    folder = path.parent.resolve().relative_to(raw_dir.resolve())
    return f"bids:raw:{(folder / path.name).as_posix()}"


def derivative_uri(relative: str | Path) -> str:
    """Name a file of the derivatives dataset itself: ``bids::sub-01/dwi/...``."""
    return f"bids::{Path(relative).as_posix()}"
