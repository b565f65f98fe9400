"""The PyTorch core: tensors in, tensors out; no files, no BIDS, no workflow engine."""

from difftract_bids.config import TrackingConfig
from difftract_bids.core.connectome import assign_ends, connectome
from difftract_bids.core.propagate import StreamlinePropagator, mean_voxel_size_mm, track
from difftract_bids.core.seeding import random_seeds
from difftract_bids.core.streamlines import SeedStatus, StopReason, Streamlines

__all__ = [
    "SeedStatus",
    "StopReason",
    "StreamlinePropagator",
    "Streamlines",
    "TrackingConfig",
    "assign_ends",
    "connectome",
    "mean_voxel_size_mm",
    "random_seeds",
    "track",
]
