"""MRtrix3's tcksift2: timed, and its weights."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import measure
import numpy as np

from difftract_bids.io.weights import read_weights


def tcksift2(folder: Path, fod: Path, n_streamlines: int, threads: int) -> dict[str, Any]:
    """Run it from its start to its end."""
    with tempfile.TemporaryDirectory(dir=measure.memory_folder()) as aside:
        seconds, rss = _run(folder, fod, Path(aside) / "weights.txt", threads)
    return {"seconds": seconds, "streamlines": n_streamlines, "peak_mib": rss / 2**20}


def weights(folder: Path, fod: Path) -> np.ndarray:
    """Weigh the streamlines."""
    with tempfile.TemporaryDirectory(dir=measure.memory_folder()) as aside:
        path = Path(aside) / "weights.txt"
        _run(folder, fod, path, 2)
        return read_weights(path)


def _run(folder: Path, fod: Path, to: Path, threads: int) -> tuple[float, int]:
    words = ["tcksift2", folder / "tracks.tck", fod, to, "-force"]
    if threads == 1:
        # With one thread version 3.0.3 leaves out all fixels and does not fit at all.
        words = ["taskset", "-c", min(os.sched_getaffinity(0)), *words]
    return measure.mrtrix(words, max(threads, 2))
