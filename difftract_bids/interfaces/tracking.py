"""Tracking streamlines through an fODF image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, SimpleInterface, TraitedSpec, traits

from difftract_bids.config import OutputConfig, SeedingConfig, TrackingConfig
from difftract_bids.interfaces.settings import settings_of, settings_spec
from difftract_bids.interfaces.threads import ThreadedSpec, limited_threads

_Settings: Any = settings_spec(TrackingConfig, SeedingConfig, OutputConfig)


class TrackStreamlinesInputSpec(ThreadedSpec, _Settings):
    """Inputs of :class:`TrackStreamlines`."""

    fodf = File(exists=True, mandatory=True, desc="SH coefficients, MRtrix's basis, scanner axes.")
    mask = File(exists=True, mandatory=True, desc="Where seeds are placed and streamlines run.")


class TrackStreamlinesOutputSpec(TraitedSpec):
    """Outputs of :class:`TrackStreamlines`."""

    tractogram = File(desc="Streamlines in scanner (RAS+) millimetres.")
    metadata = traits.Dict(desc="Content of the sidecar, with counts.")


class TrackStreamlines(SimpleInterface):
    """Track from random seeds in a mask, both ways, along fODF peaks."""

    input_spec, output_spec = TrackStreamlinesInputSpec, TrackStreamlinesOutputSpec

    def _run_interface(self, runtime):
        import numpy as np
        import torch

        from difftract_bids.bids.sidecars import tractogram_metadata
        from difftract_bids.core import mean_voxel_size_mm, random_seeds, track
        from difftract_bids.io.images import load_volume
        from difftract_bids.io.tractograms import StreamlineArrays, write_tractogram

        tracking = settings_of(self.inputs, TrackingConfig)
        seeding = settings_of(self.inputs, SeedingConfig)
        fodf, vox2ras = load_volume(self.inputs.fodf, ndim=4)
        mask = torch.from_numpy(load_volume(self.inputs.mask, ndim=3).data > 0)
        affine = torch.from_numpy(vox2ras)
        seeds_mm, directions = random_seeds(
            mask, affine, seeding.n_seeds, random_seed=seeding.random_seed
        )
        with limited_threads(self.inputs.num_threads), torch.no_grad():
            streamlines = track(
                torch.from_numpy(np.ascontiguousarray(fodf)),
                seeds_mm.float(),
                directions.float(),
                affine,
                tracking,
                mask,
            )
        path = write_tractogram(
            StreamlineArrays(streamlines.points.numpy(), streamlines.offsets.numpy()),
            Path(runtime.cwd) / f"tractogram.{self.inputs.tractogram_format}",
            vox2ras=vox2ras,
            shape=fodf.shape[:3],
        )
        counts = {
            "Seeds": seeding.n_seeds,
            "Streamlines": len(streamlines),
            "SeedStatus": _by_name(streamlines.count_seeds()),
            "StopReasons": _by_name(streamlines.count_stops()),
        }
        self._results["tractogram"] = str(path)
        self._results["metadata"] = tractogram_metadata(
            tracking.resolve(mean_voxel_size_mm(affine)), seeding, counts
        )
        return runtime


def _by_name(counts: dict[Any, int]) -> dict[str, int]:
    return {status.name.lower(): count for status, count in counts.items()}
