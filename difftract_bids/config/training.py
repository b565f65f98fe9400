"""Settings of training: which pairs, which network, which losses, and how they are minimised."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Literal

from difftract_bids.config.toml import merge, read_tables, write_tables
from difftract_bids.config.tracking import Device, TrackingConfig
from difftract_bids.errors import ConfigError
from difftract_bids.validation import Validated, setting

if TYPE_CHECKING:
    from pathlib import Path

Split = Literal["auto", "participants", "blocks"]
#: The network that ships with the package.
DEFAULT_ARCHITECTURE = "difftract_bids.learn.residual_cnn:ResidualCNN"
_ARCHITECTURE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
#: A tensor, and an fODF of lmax 2, have six unknowns.
_MIN_DIRECTIONS = 6


@dataclass(frozen=True)
class PairsConfig(Validated):
    """What a network sees of each scan, what it shall give, and what is kept to check it."""

    n_directions: int | None = setting(
        None, "Directions of each shell that the network is given; default all."
    )
    shells_s_mm2: tuple[float, ...] = setting(
        (), "b-values of the shells that the network is given; default all.", unit="s/mm²"
    )
    n_b0: int | None = setting(None, "b=0 volumes that the network is given; default all.")
    target_model: str | None = setting(
        None, "model- of the fODF images to learn from, where there are several."
    )
    atlas: str | None = setting(None, "atlas- of the parcellation, where there are several.")
    split: Split = setting(
        "auto",
        "How scans are split into those learnt from and those that check: by participants, or, "
        "where there is one only, by blocks of voxels.",
    )
    validation_share: float = setting(
        0.25, "Share of the participants, or of the voxels, that check."
    )
    validation_participants: tuple[str, ...] = setting(
        (), "Labels of the participants that check; default a random share."
    )
    block_size_mm: float = setting(30.0, "Side of the blocks of voxels that check.", unit="mm")

    def __post_init__(self) -> None:
        """Check the ranges, and what goes together."""
        shells = self.shells_s_mm2
        if isinstance(shells, tuple):  # a whole number is a fine b-value
            values = tuple(float(bval) if type(bval) is int else bval for bval in shells)
            object.__setattr__(self, "shells_s_mm2", values)
        super().__post_init__()
        ok = self.n_directions is None or self.n_directions >= _MIN_DIRECTIONS
        self._require("n_directions", ok=ok, rule=f"{_MIN_DIRECTIONS} or more")
        positive = all(math.isfinite(bval) and bval > 0 for bval in self.shells_s_mm2)
        distinct = len({*self.shells_s_mm2}) == len(self.shells_s_mm2)
        self._require("shells_s_mm2", ok=positive and distinct, rule="distinct b-values above 0")
        self._require("n_b0", ok=self.n_b0 is None or self.n_b0 >= 1, rule="1 or more")
        for name in ("target_model", "atlas"):
            value = getattr(self, name)
            ok = value is None or value.isalnum()
            self._require(name, ok=ok, rule="letters and digits, as in a file name")
        ok = 0 < self.validation_share < 1
        self._require("validation_share", ok=ok, rule="above 0 and below 1")
        named = [label.removeprefix("sub-") for label in self.validation_participants]
        ok = all(label.isalnum() for label in named) and len({*named}) == len(named)
        self._require("validation_participants", ok=ok, rule="distinct labels of participants")
        self._require_positive("block_size_mm")
        if named and self.split == "blocks":
            raise ConfigError(
                "validation_participants are named, but the split is by blocks.",
                where="PairsConfig.split",
                remedy='Leave them out, or take split = "participants".',
            )


@dataclass(frozen=True)
class NetworkConfig(Validated):
    """The network, and the degrees of its input and output."""

    architecture: str = setting(
        DEFAULT_ARCHITECTURE,
        "The network: a torch.nn.Module that takes channels to SH coefficients.",
        unit="package.module:Class",
    )
    signal_lmax: int | None = setting(
        None,
        "Maximum spherical harmonic degree (even) of the signal that the network is given; "
        "default what its directions allow.",
    )
    lmax: int = setting(8, "Maximum spherical harmonic degree (even) of the fODFs that it gives.")
    width: int = setting(32, "Channels of its hidden layers.")
    n_blocks: int = setting(3, "Number of its residual blocks.")
    deconvolve: bool = setting(
        default=True,
        desc="Start from constrained deconvolution of the same volumes: the network is given its "
        "fODFs too, and what it gives is added to them.",
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        ok = _ARCHITECTURE.fullmatch(self.architecture) is not None
        self._require("architecture", ok=ok, rule="written as package.module:Class")
        for name, least in (("signal_lmax", 0), ("lmax", 2)):
            value = getattr(self, name)
            ok = value is None or (least <= value <= 12 and value % 2 == 0)
            self._require(name, ok=ok, rule=f"an even number from {least} to 12")
        self._require("width", ok=self.width >= 1, rule="1 or more")
        self._require("n_blocks", ok=self.n_blocks >= 0, rule="0 or more")


@dataclass(frozen=True)
class LossConfig(Validated):
    """How much each loss weighs; one with weight 0 is not worked out."""

    fodf: float = setting(
        1.0, "Squared error of the fODF's coefficients, relative to the target's."
    )
    points: float = setting(
        0.0, "Distance between the streamlines of common seeds, vertex by vertex.", unit="1/mm"
    )
    directions: float = setting(
        0.0, "1 - |cosine| between the segments of streamlines of common seeds."
    )
    ends: float = setting(
        0.0, "Distance between the ends of streamlines of common seeds.", unit="1/mm"
    )
    survival: float = setting(
        0.0,
        "Divergence, along the streamlines of both, of going on from going on in the target.",
    )
    connectome_relative: float = setting(
        0.0, "Squared error of the soft connectome, relative to the target's."
    )
    connectome_log: float = setting(0.0, "Squared error of the logarithms of its counts.")
    connectome_correlation: float = setting(0.0, "1 - correlation of its edges with the target's.")
    density: float = setting(
        0.0, "Squared error of the density of streamlines, relative to the target's."
    )

    def __post_init__(self) -> None:
        """Check the ranges, and that there is a loss."""
        super().__post_init__()
        for item in fields(self):
            weight = getattr(self, item.name)
            ok = math.isfinite(weight) and weight >= 0
            self._require(item.name, ok=ok, rule="0 or more, and finite")
        if not any(getattr(self, item.name) for item in fields(self)):
            raise ConfigError(
                "No loss weighs more than 0, so there is nothing to learn.",
                where="LossConfig",
                remedy="Give one of them a weight, such as fodf = 1.0.",
            )

    @property
    def needs_propagation(self) -> bool:
        """Whether there is a loss that needs streamlines."""
        return any(getattr(self, item.name) for item in fields(self) if item.name != "fodf")

    @property
    def needs_connectome(self) -> bool:
        """Whether there is a loss that needs a connectome, and so a parcellation."""
        return any(
            getattr(self, item.name) for item in fields(self) if item.name.startswith("connectome")
        )


@dataclass(frozen=True)
class PropagationConfig(Validated):
    """How the streamlines that losses compare are drawn, and made smooth."""

    n_seeds: int = setting(5000, "Seeds that streamlines are drawn from in a step.")
    sigma_mm: float = setting(
        2.0, "Width of the soft assignment of ends to parcels, see soft_sigma_mm.", unit="mm"
    )
    survival_softness: float = setting(
        0.02,
        "fODF amplitude over which a streamline's survival of the cutoff is softened.",
        unit="amplitude",
    )
    counts: bool = setting(
        default=True,
        desc="Let every streamline count 1, with the derivative of the logarithm of its survival; "
        "without, it counts its survival.",
    )
    from_step: int = setting(0, "First step with losses that need streamlines.")
    every: int = setting(1, "Steps from one with such losses to the next.")

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        self._require_positive("sigma_mm", "survival_softness")
        for name, least in (("n_seeds", 1), ("from_step", 0), ("every", 1)):
            self._require(name, ok=getattr(self, name) >= least, rule=f"{least} or more")


@dataclass(frozen=True)
class OptimisationConfig(Validated):
    """How losses are minimised, and when that ends."""

    n_steps: int = setting(2000, "Steps at most.")
    learning_rate: float = setting(1e-3, "Learning rate at the start (AdamW); it falls to 0.")
    weight_decay: float = setting(0.0, "Weight decay of AdamW.")
    gradient_clip: float = setting(1.0, "Largest norm of the gradient; a larger one is scaled.")
    patch_size: int = setting(24, "Side of the patches that are learnt from.", unit="voxels")
    patches_per_step: int = setting(2, "Patches in a step.")
    rotations: bool = setting(
        default=True, desc="Rotate and mirror each patch at random, its directions included."
    )
    mixed_precision: bool = setting(
        default=True, desc="Let the network work at half precision where it may; on a GPU only."
    )
    validate_every: int = setting(100, "Steps from one validation to the next.")
    patience: int = setting(10, "Validations without a better one after which training ends.")
    checkpoint_every: int = setting(100, "Steps from one checkpoint to the next.")
    random_seed: int = setting(
        0, "Seed of every random choice; the same seed gives the same model."
    )
    device: Device = setting("auto", "Where to train; auto is a GPU if there is one.")

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        self._require_positive("learning_rate", "gradient_clip")
        ok = math.isfinite(self.weight_decay) and self.weight_decay >= 0
        self._require("weight_decay", ok=ok, rule="0 or more, and finite")
        for name in (
            "n_steps",
            "patch_size",
            "patches_per_step",
            "validate_every",
            "patience",
            "checkpoint_every",
        ):
            self._require(name, ok=getattr(self, name) >= 1, rule="1 or more")
        in_range = 0 <= self.random_seed < 2**63
        self._require("random_seed", ok=in_range, rule="0 or more, and below 2**63")


@dataclass(frozen=True)
class TrainingConfig:
    """All settings of a training."""

    pairs: PairsConfig = field(default_factory=PairsConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    losses: LossConfig = field(default_factory=LossConfig)
    propagation: PropagationConfig = field(default_factory=PropagationConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    optimisation: OptimisationConfig = field(default_factory=OptimisationConfig)

    def __post_init__(self) -> None:
        """Check what goes together."""
        if not self.losses.needs_propagation:
            return
        if self.tracking.algorithm != "sd_stream":
            raise ConfigError(
                f"Losses that need streamlines follow fODFs, not {self.tracking.algorithm}.",
                where="[tracking] algorithm",
                remedy="Leave it out, or give those losses the weight 0.",
            )
        propagation, n_steps = self.propagation, self.optimisation.n_steps
        if propagation.from_step >= n_steps:
            raise ConfigError(
                f"Losses that need streamlines begin with step {propagation.from_step}, and "
                f"training ends after {n_steps} steps.",
                where="[propagation] from_step",
                remedy="Begin earlier, take more steps, or give those losses the weight 0.",
            )
        if not self.losses.fodf and (propagation.from_step > 0 or propagation.every > 1):
            raise ConfigError(
                "Some steps have no loss: that of the fODF has the weight 0, and those that need "
                f"streamlines begin with step {propagation.from_step}, one step in "
                f"{propagation.every}.",
                where="[propagation]",
                remedy="Take from_step = 0 and every = 1, or give fodf a weight in [losses].",
            )

    @classmethod
    def from_toml(cls, path: Path) -> TrainingConfig:
        """Read settings; what the file leaves out keeps its default.

        Raises
        ------
        ConfigError
            If the file is not TOML, or holds a table, a name or a value that does not exist.
        """
        remedy = "Give a TOML file with tables such as [pairs], [losses] and [optimisation]."
        return merge(cls(), read_tables(path, remedy=remedy), where=str(path))

    def to_toml(self) -> str:
        """Write all settings as TOML; fields at ``None`` are left out, as TOML has no null."""
        return write_tables(self)
