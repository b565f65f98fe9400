"""A human subject's streamlines and parcellation, as files that MRtrix3 reads, too."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from apps import run_app
from datasets import real_data
from mrtrix import human_scene, run_mrtrix

from difftract_bids.io.images import load_volume

DATASET = "ds-human-3mm"
ATLAS = "Schaefer100TianS1"


@dataclass(frozen=True)
class HumanStreamlines:
    """Streamlines that tckgen made, in a parcellation that the app made.

    Attributes
    ----------
    tck, nodes
        Their files.
    fod
        The fODF that was tracked in.
    labels, vox2ras
        The parcellation in memory.
    """

    tck: Path
    nodes: Path
    fod: Path
    labels: torch.Tensor
    vox2ras: torch.Tensor


#: What was made already in this session.
_MADE: dict[str, HumanStreamlines] = {}


def human_streamlines(folder: Path, n_seeds: int = 45_000) -> HumanStreamlines:
    """Track all of a real brain with SD_STREAM; skips the test where there are no real data."""
    if DATASET not in _MADE:
        nodes = _parcellation(folder)
        scene = human_scene(DATASET, folder / "fod")
        tck = folder / "theirs.tck"
        run_mrtrix(
            *("tckgen", "-algorithm", "SD_STREAM", scene.fod_file, tck, "-quiet", "-force"),
            *("-seed_image", scene.mask_file, "-seeds", n_seeds, "-select", 0, "-nthreads", 2),
        )
        labels, vox2ras = load_volume(nodes, ndim=3, dtype=np.int32)
        _MADE[DATASET] = HumanStreamlines(
            tck, nodes, scene.fod_file, torch.from_numpy(labels), torch.from_numpy(vox2ras)
        )
    return _MADE[DATASET]


def _parcellation(folder: Path) -> Path:
    """Let the app bring the atlas into the space of the diffusion images."""
    data = real_data()
    done = run_app(
        *(data / DATASET, folder / "out", "participant", "--n-seeds", 100, "-w", folder / "work"),
        *("--atlases", f"{ATLAS}={data / 'atlases'}", "--no-tractogram"),
        TEMPLATEFLOW_HOME=str(data / "templateflow"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "out" / "sub-01" / "dwi" / f"sub-01_atlas-{ATLAS}_dseg.nii.gz"
