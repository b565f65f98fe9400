"""What is timed of the connectome: one function for each job of `JOBS`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import Result, timed

from connectome import N_NODES
from difftract_bids.core.connectome.assignment import assign_streamlines, visited_labels
from difftract_bids.core.connectome.edges import EdgeSums
from difftract_bids.io.images import load_volume
from difftract_bids.io.tractogram_reader import iter_tractogram


@dataclass(frozen=True)
class Job:
    """What is asked for, and where it is."""

    folder: Path
    labels: torch.Tensor
    vox2ras: torch.Tensor
    options: dict[str, Any]

    @classmethod
    def load(cls, given: dict[str, Any]) -> Job:
        folder = Path(given["scene"])
        labels, vox2ras = load_volume(folder / "nodes.nii", dtype=np.int32)
        return cls(folder, torch.from_numpy(labels), torch.from_numpy(vox2ras), given)

    def count(self, name: str) -> EdgeSums:
        """Read a file, assign its streamlines, and count them."""
        sums = EdgeSums(torch.arange(1, N_NODES + 1))
        rule = visited_labels if self.options["rule"] == "all_voxels" else assign_streamlines
        for block in iter_tractogram(self.folder / name):
            points, offsets = torch.from_numpy(block.points), torch.from_numpy(block.offsets)
            sums.add(rule(points, offsets, self.labels, self.vox2ras))
        return sums


def connectome(job: Job) -> Result:
    """From the file to the matrix."""
    _, first = timed(lambda: job.count("few.tck"))
    sums, measured = timed(lambda: job.count("tracks.tck"))
    matrix = sums.matrix().numpy()
    if "to" in job.options:
        np.save(job.options["to"], matrix)
    return measured | {
        "streamlines": sums.total,
        "assigned": sums.assigned,
        "first_call_seconds": first["seconds"],
    }


JOBS = {job.__name__: job for job in (connectome,)}
