"""MRtrix3's tck2connectome: timed, and its matrix."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import measure
import numpy as np

from connectome import RULES


def tck2connectome(folder: Path, n_streamlines: int, rule: str, threads: int) -> dict[str, Any]:
    """Run it twice, once on a few streamlines: the difference is what the rest took."""
    with tempfile.TemporaryDirectory(dir=measure.memory_folder()) as aside:
        idle, idle_rss = measure.mrtrix(_words(folder, "few", rule, Path(aside)), threads)
        busy, busy_rss = measure.mrtrix(_words(folder, "tracks", rule, Path(aside)), threads)
    return {
        "seconds": busy - idle,
        "loading_seconds": idle,
        "streamlines": n_streamlines,
        "peak_mib": (busy_rss - idle_rss) / 2**20,
    }


def matrix(folder: Path, rule: str) -> np.ndarray:
    """Count streamlines."""
    with tempfile.TemporaryDirectory(dir=measure.memory_folder()) as aside:
        measure.mrtrix(_words(folder, "tracks", rule, Path(aside)), 1)
        return np.loadtxt(Path(aside) / "matrix.csv", delimiter=",")


def _words(folder: Path, name: str, rule: str, aside: Path) -> list[object]:
    files = (folder / f"{name}.tck", folder / "nodes.nii", aside / "matrix.csv")
    return ["tck2connectome", *files, "-symmetric", "-force", *RULES[rule]]
