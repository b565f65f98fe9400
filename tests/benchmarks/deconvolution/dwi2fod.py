"""MRtrix3's deconvolution: timed, and its coefficients."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import measure
import numpy as np

from deconvolution import LMAX
from deconvolution.voxels import as_image
from difftract_bids.io.images import load_volume

DIRECTIONS = files("difftract_bids.data") / "constraint_directions_300.txt"


def dwi2fod(
    algorithm: str, tissues: Sequence[str], scene: Path, threads: int, n_voxels: int
) -> dict[str, Any]:
    """Run dwi2fod twice, once in a mask of one voxel: the difference is its deconvolution."""
    image, one, n = as_image(scene, n_voxels)
    with tempfile.TemporaryDirectory(dir=measure.memory_folder()) as folder:
        words = _words(algorithm, tissues, scene, image, Path(folder))
        idle, idle_rss = measure.mrtrix([*words, "-mask", one], threads)
        busy, busy_rss = measure.mrtrix(words, threads)
    return {
        "seconds": busy - idle,
        "loading_seconds": idle,
        "voxels": n,
        "peak_mib": (busy_rss - idle_rss) / 2**20,
    }


def coefficients(algorithm: str, tissues: Sequence[str], scene: Path, n_voxels: int) -> np.ndarray:
    """Give the coefficients (voxel, coeff) of all tissues side by side."""
    image, _, n = as_image(scene, n_voxels)
    with tempfile.TemporaryDirectory(dir=measure.memory_folder()) as folder:
        measure.mrtrix(_words(algorithm, tissues, scene, image, Path(folder)), 1)
        parts = [load_volume(Path(folder) / f"{tissue}.nii").data for tissue in tissues]
        rows = [part.swapaxes(0, 1).reshape(n, -1) for part in parts]
        return np.concatenate(rows, axis=1)[:n_voxels]


def _words(
    algorithm: str, tissues: Sequence[str], scene: Path, image: Path, to: Path
) -> list[object]:
    words: list[object] = ["dwi2fod", algorithm, image]
    for tissue in tissues:
        words += [scene / f"{tissue}.txt", to / f"{tissue}.nii"]
    degrees = ",".join(str(LMAX if tissue == "WM" else 0) for tissue in tissues)
    words += ["-lmax", degrees, "-directions", DIRECTIONS, "-force"]
    return [*words, "-fslgrad", scene / "dwi.bvec", scene / "dwi.bval"]
