"""Settings: one frozen dataclass per stage, passed as arguments and never kept in a global.

Every field carries its description (and unit) in ``metadata``: the command line, the Nipype traits
and the TOML file are all made from it, so a default or a sentence is written once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from difftract_bids.config.act import ActConfig, AnatomicalConstraints
from difftract_bids.config.connectome import (
    MEASURES,
    AssignmentMode,
    ConnectomeConfig,
    StreamlineStatistic,
)
from difftract_bids.config.fodf import (
    TISSUES,
    FittedModel,
    FodfConfig,
    FodfModel,
    ResponseAlgorithm,
)
from difftract_bids.config.group import GroupConfig
from difftract_bids.config.output import OutputConfig, ShBasis, TractogramFormat
from difftract_bids.config.preprocessing import (
    BiasCorrection,
    DenoiseMethod,
    MotionCorrection,
    PreprocessingConfig,
    SusceptibilityCorrection,
    UnringingMethod,
)
from difftract_bids.config.refinement import RefinementConfig
from difftract_bids.config.regions import RegionsConfig
from difftract_bids.config.seeding import DEFAULT_STREAMLINES, SeedingConfig
from difftract_bids.config.sensitivity import SensitivityConfig
from difftract_bids.config.toml import merge, read_tables, write_tables
from difftract_bids.config.tracking import (
    Algorithm,
    Backend,
    Device,
    Integrator,
    TrackingConfig,
)
from difftract_bids.config.training import (
    LossConfig,
    NetworkConfig,
    OptimisationConfig,
    PairsConfig,
    PropagationConfig,
    TrainingConfig,
)
from difftract_bids.config.weights import SIFT2Config

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "DEFAULT_STREAMLINES",
    "MEASURES",
    "TISSUES",
    "ActConfig",
    "Algorithm",
    "AnatomicalConstraints",
    "AssignmentMode",
    "Backend",
    "BiasCorrection",
    "Config",
    "ConnectomeConfig",
    "DenoiseMethod",
    "Device",
    "FittedModel",
    "FodfConfig",
    "FodfModel",
    "GroupConfig",
    "Integrator",
    "LossConfig",
    "MotionCorrection",
    "NetworkConfig",
    "OptimisationConfig",
    "OutputConfig",
    "PairsConfig",
    "PreprocessingConfig",
    "PropagationConfig",
    "RefinementConfig",
    "RegionsConfig",
    "ResponseAlgorithm",
    "SIFT2Config",
    "SeedingConfig",
    "SensitivityConfig",
    "ShBasis",
    "StreamlineStatistic",
    "SusceptibilityCorrection",
    "TrackingConfig",
    "TractogramFormat",
    "TrainingConfig",
    "UnringingMethod",
    "merge",
    "sloppy",
]


@dataclass(frozen=True)
class Config:
    """All settings of one run: the part of the command line that changes results."""

    preprocessing: PreprocessingConfig = field(default_factory=PreprocessingConfig)
    fodf: FodfConfig = field(default_factory=FodfConfig)
    refinement: RefinementConfig = field(default_factory=RefinementConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    seeding: SeedingConfig = field(default_factory=SeedingConfig)
    regions: RegionsConfig = field(default_factory=RegionsConfig)
    act: ActConfig = field(default_factory=ActConfig)
    connectome: ConnectomeConfig = field(default_factory=ConnectomeConfig)
    sift2: SIFT2Config = field(default_factory=SIFT2Config)
    sensitivity: SensitivityConfig = field(default_factory=SensitivityConfig)
    output: OutputConfig = field(default_factory=OutputConfig)
    group: GroupConfig = field(default_factory=GroupConfig)
    atlases: tuple[str, ...] = ("ICBM100",)
    derivatives: tuple[str, ...] = ()

    @classmethod
    def from_toml(cls, path: Path) -> Config:
        """Read settings; what the file leaves out keeps its default.

        Raises
        ------
        ConfigError
            If the file is not TOML, or holds a table, a name or a value that does not exist.
        """
        return cls().with_toml(path)

    def with_toml(self, path: Path) -> Config:
        """Lay the settings of a file over these.

        Raises
        ------
        ConfigError
            If the file is not TOML, or holds a table, a name or a value that does not exist.
        """
        remedy = "Give a TOML file such as logs/<run>/config.toml of an earlier run."
        return merge(self, read_tables(path, remedy=remedy), where=str(path))

    def to_toml(self) -> str:
        """Write all settings as TOML; fields at ``None`` are left out, as TOML has no null."""
        return write_tables(self)


def sloppy() -> Config:
    """Give settings that try out an installation in a minute, and are good for nothing else."""
    return Config(
        preprocessing=PreprocessingConfig(
            denoise_method="none",
            unringing_method="none",
            motion_correction="none",
            bias_correction="none",
        ),
        seeding=SeedingConfig(n_streamlines=5000),
    )
