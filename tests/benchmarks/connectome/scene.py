"""Streamlines of the brain that tracking is timed on, and a cortex made of patches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tracking.scene import prepare as prepare_tracking

from connectome import FEW, N_NODES
from difftract_bids.core import TrackingConfig, random_seeds, track
from difftract_bids.io.images import save_volume
from difftract_bids.io.streamline_arrays import StreamlineArrays
from difftract_bids.io.tractogram_writer import TractogramWriter

#: Voxels from the edge of the mask inwards that are cortex.
_THICKNESS = 2
#: Seeds that are tracked at a time.
_CHUNK = 20_000


def prepare(folder: Path, data: Path | None, n_seeds: int, *, phantom: bool) -> dict[str, Any]:
    """Write ``nodes.nii``, ``tracks.tck`` and ``few.tck``, and describe them.

    Parameters
    ----------
    folder
        Where to; what is there already of as many seeds is kept.
    data, phantom
        As for the scene of tracking, whose fODF is tracked in: see :func:`brain_of`.
    n_seeds
        Seeds of the streamlines.
    """
    here = folder / f"seeds_{n_seeds}"
    described = here / "scene.json"
    if described.exists():
        return json.loads(described.read_text())
    brain = prepare_tracking(brain_of(folder), data, phantom=phantom)
    here.mkdir(parents=True, exist_ok=True)
    mask, affine = (np.load(brain_of(folder) / f"{name}.npy") for name in ("mask", "affine"))
    save_volume(patches(mask), affine, here / "nodes.nii")
    fodf = torch.from_numpy(np.load(brain_of(folder) / "fod.npy"))
    n_streamlines, n_vertices = _track(here, fodf, torch.from_numpy(mask), affine, n_seeds)
    scene = {
        "name": brain["name"],
        "folder": str(here),
        "streamlines": n_streamlines,
        "vertices": n_vertices,
        "mib": round((here / "tracks.tck").stat().st_size / 2**20, 1),
    }
    described.write_text(json.dumps(scene))
    return scene


def brain_of(folder: Path) -> Path:
    """Where the fODF is: of a real subject it takes a minute, so that all parts share it."""
    return folder.with_name("tracking")


def patches(mask: np.ndarray) -> np.ndarray:
    """Label the outer voxels of a mask by the nearest of so many of them, drawn at random."""
    core = mask.copy()
    for _ in range(_THICKNESS):
        inner = core.copy()
        for axis in range(3):
            for step in (-1, 1):
                inner &= np.roll(core, step, axis)
        core = inner
    voxel = np.argwhere(mask & ~core)
    seats = voxel[np.random.default_rng(0).choice(len(voxel), N_NODES, replace=False)]
    distance = np.linalg.norm(voxel[:, None] - seats[None], axis=2)
    labels = np.zeros(mask.shape, dtype=np.int32)
    labels[tuple(voxel.T)] = distance.argmin(axis=1) + 1
    return labels


def _track(
    here: Path, fodf: torch.Tensor, mask: torch.Tensor, affine: np.ndarray, n_seeds: int
) -> tuple[int, int]:
    vox2ras = torch.from_numpy(affine)
    seeds, starts = random_seeds(mask, vox2ras, n_seeds, random_seed=0, dtype=torch.float32)
    grid = {"vox2ras": affine, "shape": tuple(mask.shape)}
    with TractogramWriter(here / "tracks.tck", **grid) as writer:
        for at in range(0, n_seeds, _CHUNK):
            part = slice(at, at + _CHUNK)
            found = track(fodf, seeds[part], starts[part], vox2ras, TrackingConfig(), mask=mask)
            arrays = StreamlineArrays(found.points.numpy(), found.offsets.numpy())
            writer.append(arrays)
    with TractogramWriter(here / "few.tck", **grid) as few:
        offsets = arrays.offsets[: FEW + 1]
        few.append(StreamlineArrays(arrays.points[: offsets[-1]], offsets))
    return writer.n_streamlines, writer.n_points
