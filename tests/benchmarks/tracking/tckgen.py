"""MRtrix3's tracker, timed."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import measure


def tckgen(scene: Path, threads: int, n_seeds: int) -> dict[str, Any]:
    """Run tckgen twice, once for a single seed: the difference is its tracking."""
    idle = _tckgen(scene, threads, 1)
    busy = _tckgen(scene, threads, n_seeds)
    return {
        "seconds": busy["wall"] - idle["wall"],
        "loading_seconds": idle["wall"],
        "n_seeds": n_seeds,
        "streamlines": busy["streamlines"],
        "vertices": busy["vertices"],
        "peak_mib": (busy["rss"] - idle["rss"]) / 2**20,
    }


def _tckgen(scene: Path, threads: int, n_seeds: int) -> dict[str, Any]:
    import nibabel as nib

    with tempfile.TemporaryDirectory(dir=measure.memory_folder()) as folder:
        tck = Path(folder) / "tracks.tck"
        words = ["tckgen", "-algorithm", "SD_STREAM", scene / "fod.nii.gz", tck]
        words += ["-seed_image", scene / "mask.nii.gz", "-seeds", n_seeds, "-select", 0]
        wall, rss = measure.mrtrix(words, threads)
        lines = nib.streamlines.load(tck).streamlines
        vertices = int(lines.total_nb_rows) if len(lines) else 0
    return {"wall": wall, "rss": rss, "streamlines": len(lines), "vertices": vertices}
