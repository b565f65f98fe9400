"""The PyTorch core: tensors in, tensors out; no files, no BIDS, no workflow engine."""

from difftract_bids.config import TrackingConfig
from difftract_bids.core.anatomy import Anatomy
from difftract_bids.core.connectome import (
    EdgeSums,
    SoftConnectome,
    assign_ends,
    assign_streamlines,
    connectome,
    sample_along,
    visited_labels,
)
from difftract_bids.core.deconvolution import CSD, MSMTCSD, CSDOptions, csd, msmt_csd
from difftract_bids.core.end_to_end import DWIToConnectome, FODFToConnectome
from difftract_bids.core.field import CallableField, DirectionField, FodfField, TensorField
from difftract_bids.core.generate import generate
from difftract_bids.core.interface_seeds import InterfaceSeeds
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
from difftract_bids.core.sensitivity import sensitivity
from difftract_bids.core.sift2 import fit_streamline_weights, map_streamlines, segment_fodf
from difftract_bids.core.streamlines import GradientReport, SeedStatus, StopReason, Streamlines
from difftract_bids.core.survival import soft_survival
from difftract_bids.core.uncertainty import edge_standard_deviations
from difftract_bids.core.voxelwise import VoxelwiseFit

__all__ = [
    "CSD",
    "MSMTCSD",
    "Anatomy",
    "CSDOptions",
    "CallableField",
    "DWIToConnectome",
    "DirectionField",
    "EdgeSums",
    "FODFToConnectome",
    "FodfField",
    "GivenSeeds",
    "GradientReport",
    "InterfaceSeeds",
    "RandomSeeds",
    "RegionImage",
    "Regions",
    "SeedGrid",
    "SeedSource",
    "SeedStatus",
    "SeedsPerVoxel",
    "SoftConnectome",
    "Sphere",
    "SphereSeeds",
    "StopReason",
    "StreamlinePropagator",
    "Streamlines",
    "TensorField",
    "TrackingConfig",
    "VoxelwiseFit",
    "WeightedSeeds",
    "assign_ends",
    "assign_streamlines",
    "connectome",
    "csd",
    "edge_standard_deviations",
    "fit_streamline_weights",
    "generate",
    "map_streamlines",
    "mean_voxel_size_mm",
    "msmt_csd",
    "random_seeds",
    "sample_along",
    "segment_fodf",
    "sensitivity",
    "soft_survival",
    "track",
    "track_field",
    "visited_labels",
]
