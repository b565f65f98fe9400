"""The PyTorch core: tensors in, tensors out; no files, no BIDS, no workflow engine."""

from difftract_bids.config import TrackingConfig
from difftract_bids.core.connectome import assign_ends, connectome
from difftract_bids.core.deconvolution import CSD, MSMTCSD, CSDOptions, csd, msmt_csd
from difftract_bids.core.field import CallableField, DirectionField, FodfField, TensorField
from difftract_bids.core.generate import generate
from difftract_bids.core.propagate import StreamlinePropagator, track, track_field
from difftract_bids.core.regions import RegionImage, Regions, Sphere
from difftract_bids.core.rules import mean_voxel_size_mm
from difftract_bids.core.seed_source import SeedSource
from difftract_bids.core.seeding import (
    GivenSeeds,
    RandomSeeds,
    SeedGrid,
    SeedsPerVoxel,
    SphereSeeds,
    WeightedSeeds,
    random_seeds,
)
from difftract_bids.core.streamlines import GradientReport, SeedStatus, StopReason, Streamlines
from difftract_bids.core.survival import soft_survival

__all__ = [
    "CSD",
    "MSMTCSD",
    "CSDOptions",
    "CallableField",
    "DirectionField",
    "FodfField",
    "GivenSeeds",
    "GradientReport",
    "RandomSeeds",
    "RegionImage",
    "Regions",
    "SeedGrid",
    "SeedSource",
    "SeedStatus",
    "SeedsPerVoxel",
    "Sphere",
    "SphereSeeds",
    "StopReason",
    "StreamlinePropagator",
    "Streamlines",
    "TensorField",
    "TrackingConfig",
    "WeightedSeeds",
    "assign_ends",
    "connectome",
    "csd",
    "generate",
    "mean_voxel_size_mm",
    "msmt_csd",
    "random_seeds",
    "soft_survival",
    "track",
    "track_field",
]
