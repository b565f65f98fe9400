"""BIDS URIs: how sidecars name the files that something was made from."""

from __future__ import annotations

from pathlib import Path


def raw_uri(path: Path, raw_dir: Path) -> str:
    """Name a file of the raw dataset: ``bids:raw:sub-01/dwi/...``."""
    return f"bids:raw:{path.resolve().relative_to(raw_dir.resolve()).as_posix()}"


def derivative_uri(relative: str | Path) -> str:
    """Name a file of the derivatives dataset itself: ``bids::sub-01/dwi/...``."""
    return f"bids::{Path(relative).as_posix()}"
