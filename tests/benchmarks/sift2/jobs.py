"""What is timed of streamline weights: one function for each job of `JOBS`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import Result, timed

from difftract_bids.core.sift2 import (
    Fixels,
    StreamlineWeights,
    Visits,
    fit_streamline_weights,
    map_streamlines,
    segment_fodf,
)
from difftract_bids.io.images import load_volume
from difftract_bids.io.tractogram_reader import iter_tractogram

#: Voxels of the calls that compile.
_FEW = 64


@dataclass(frozen=True)
class Job:
    """What is asked for, and where it is."""

    folder: Path
    fodf: torch.Tensor
    vox2ras: torch.Tensor
    options: dict[str, Any]

    @classmethod
    def load(cls, given: dict[str, Any]) -> Job:
        fodf, vox2ras = load_volume(given["fod"])
        return cls(Path(given["scene"]), torch.from_numpy(fodf), torch.from_numpy(vox2ras), given)

    def map(self, fixels: Fixels, name: str) -> Visits:
        """Read a file and map its streamlines."""
        blocks = iter_tractogram(self.folder / name)
        return Visits.joined(
            [
                map_streamlines(
                    torch.from_numpy(points), torch.from_numpy(offsets), fixels, self.vox2ras
                )
                for points, offsets in blocks
            ]
        )


def weights(job: Job) -> Result:
    """From the tractogram's file, and the fODFs in memory, to the weights."""
    fixels = segment_fodf(job.fodf)
    fit_streamline_weights(job.map(fixels, "few.tck"), fixels)
    parts: dict[str, float] = {}

    def step(name: str, call: Any) -> Any:
        found, measured = timed(call)
        parts[f"{name}_seconds"] = measured["seconds"]
        return found

    def whole() -> StreamlineWeights:
        fixels = step("segmentation", lambda: segment_fodf(job.fodf))
        visits = step("mapping", lambda: job.map(fixels, "tracks.tck"))
        return step("fit", lambda: fit_streamline_weights(visits, fixels))

    fit, measured = timed(whole)
    if "to" in job.options:
        np.save(job.options["to"], fit.weights.numpy())
    # The peak was forgotten at every step.
    del measured["peak_mib"]
    return measured | parts | {"streamlines": len(fit.weights), "iterations": fit.n_iterations}


def memory(job: Job) -> Result:
    """Tell how much memory it takes."""
    fixels = segment_fodf(job.fodf[:_FEW])
    fit_streamline_weights(job.map(fixels, "few.tck"), fixels)
    del fixels

    def whole() -> StreamlineWeights:
        fixels = segment_fodf(job.fodf)
        return fit_streamline_weights(job.map(fixels, "tracks.tck"), fixels)

    return timed(whole)[1]


JOBS = {job.__name__: job for job in (weights, memory)}
