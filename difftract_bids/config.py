"""Settings: one frozen dataclass per stage, passed as arguments and never kept in a global.

Every field carries its description (and unit) in ``metadata``: the command line, the Nipype traits
and the TOML file are all made from it, so a default or a sentence is written once.
"""

from __future__ import annotations

import math
import tomllib
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Self

from difftract_bids.errors import ConfigError
from difftract_bids.validation import Validated, parse_numbers, setting, toml_value

if TYPE_CHECKING:
    from pathlib import Path

Integrator = Literal["euler", "midpoint", "rk4", "rk4_classic"]
Backend = Literal["auto", "cpu", "cuda", "reference"]
Device = Literal["auto", "cpu", "cuda"]
Algorithm = Literal["sd_stream", "tensor_det"]
DenoiseMethod = Literal["mppca", "none"]
TractogramFormat = Literal["trx", "tck", "trk"]

#: Streamlines to find where seeds have no end, and no number is given.
DEFAULT_STREAMLINES = 1_000_000


@dataclass(frozen=True)
class PreprocessingConfig(Validated):
    """What happens to the diffusion images before any model is fitted."""

    denoise_method: DenoiseMethod = setting("mppca", "Denoising: Marchenko-Pastur PCA, or none.")
    b0_threshold_s_mm2: float = setting(
        50.0, "Volumes with a b-value up to this one count as b=0.", unit="s/mm²"
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        self._require("b0_threshold_s_mm2", ok=self.b0_threshold_s_mm2 >= 0, rule="0 or more")


@dataclass(frozen=True)
class FodfConfig(Validated):
    """How fibre orientation distributions are estimated."""

    lmax: int | None = setting(
        None,
        "Maximum spherical harmonic degree of the fODF (even); default 8, or less where there are "
        "fewer directions than coefficients.",
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        ok = self.lmax is None or (2 <= self.lmax <= 12 and self.lmax % 2 == 0)
        self._require("lmax", ok=ok, rule="an even number from 2 to 12")


@dataclass(frozen=True)
class TrackingConfig(Validated):
    """How streamlines are propagated; ``None`` is MRtrix's default for integrator and voxel size.

    References
    ----------
    Tournier et al. 2012, doi:10.1002/ima.22005; MRtrix3 3.0.3 ``tckgen -algorithm SD_STREAM``.
    """

    algorithm: Algorithm = setting(
        "sd_stream",
        "Tracking algorithm: peaks of the fODF, or the principal direction of the tensor.",
    )
    integrator: Integrator = setting(
        "euler", "Integrator; rk4 is MRtrix's (normalised), rk4_classic the textbook one."
    )
    peak_tolerance: float = setting(
        1e-4,
        "Peak search ends when its update is smaller than this; below 1e-4 it finishes with "
        "Newton steps.",
        unit="rad",
    )
    step_size_mm: float | None = setting(
        None, "Step size; default 0.1 voxel (Euler) or 0.25 voxel (the others).", unit="mm"
    )
    max_angle_deg: float | None = setting(
        None, "Largest angle between successive steps; default 60.", unit="degrees"
    )
    cutoff: float | None = setting(
        None,
        "fODF amplitude (sd_stream) or fractional anisotropy (tensor_det) below which tracking "
        "stops; default 0.1.",
    )
    min_length_mm: float | None = setting(
        None, "Shorter streamlines are dropped; default 5 voxels.", unit="mm"
    )
    max_length_mm: float | None = setting(
        None, "Streamlines end at this length; default 100 voxels.", unit="mm"
    )
    one_way: bool = setting(
        default=False, desc="Follow only the direction found at the seed, not its opposite."
    )
    backend: Backend = setting(
        "auto",
        "Implementation of the propagator: kernels for the device in use (auto, or cpu, cuda by "
        "name), or the readable reference in PyTorch.",
    )
    device: Device = setting(
        "auto", "Where to track; auto is a GPU if there is one that the kernels can use."
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        self._require_positive("peak_tolerance", "step_size_mm", "max_length_mm")
        follows_fodf = self.algorithm == "sd_stream" or self.backend in ("auto", "reference")
        self._require(
            "backend", ok=follows_fodf, rule="auto or reference with the algorithm tensor_det"
        )
        angle_ok = self.max_angle_deg is None or 0 < self.max_angle_deg <= 90
        self._require("max_angle_deg", ok=angle_ok, rule="above 0 and at most 90")
        for name in ("cutoff", "min_length_mm"):
            value = getattr(self, name)
            ok = value is None or (math.isfinite(value) and value >= 0)
            self._require(name, ok=ok, rule="0 or more, and finite")
        if self.min_length_mm is not None and self.max_length_mm is not None:
            ok = self.min_length_mm <= self.max_length_mm
            self._require(
                "min_length_mm", ok=ok, rule=f"at most {self.max_length_mm} (the longest)"
            )

    def resolve(self, voxel_size_mm: float) -> Self:
        """Fill in MRtrix's defaults for a voxel size.

        Parameters
        ----------
        voxel_size_mm
            Cube root of the voxel volume, millimetres.
        """
        step = 0.1 if self.integrator == "euler" else 0.25
        defaults: dict[str, Any] = {
            "step_size_mm": step * voxel_size_mm,
            "max_angle_deg": 60.0,
            "cutoff": 0.1,
            "min_length_mm": 5.0 * voxel_size_mm,
            "max_length_mm": 100.0 * voxel_size_mm,
        }
        return replace(
            self,
            **{name: value for name, value in defaults.items() if getattr(self, name) is None},
        )


@dataclass(frozen=True)
class SeedingConfig(Validated):
    """Where streamlines start, and how many; texts are as on the command line."""

    n_streamlines: int | None = setting(
        None,
        "Streamlines to find, from as many seeds as that takes; default 1,000,000, or all that "
        "the seeds give where their number is given or finite.",
    )
    n_seeds: int | None = setting(None, "Seeds to try at most.")
    random_seed: int = setting(
        0, "Seed of every random choice; the same seed gives the same result."
    )
    seed_image: str | None = setting(
        None, "Mask to seed in, instead of the brain mask.", unit="image"
    )
    seed_random_per_voxel: int | None = setting(
        None, "Seeds at random places in each voxel of the seed image or the brain mask."
    )
    seed_grid_per_voxel: int | None = setting(
        None, "Seeds on a grid in each such voxel: this many along each axis."
    )
    seed_rejection: str | None = setting(
        None, "Image of weights: a voxel's seeds are in proportion to its value.", unit="image"
    )
    seed_sphere: str | None = setting(
        None, "Seed at random in a sphere, scanner millimetres.", unit="x,y,z,radius"
    )
    seed_coordinates: str | None = setting(
        None, "Table of seeds: x y z in scanner millimetres in each row.", unit="file"
    )
    seed_direction: str | None = setting(
        None, "Direction in which every seed starts, scanner axes; default random.", unit="x,y,z"
    )

    def __post_init__(self) -> None:
        """Check the ranges, and that seeds come from one place."""
        super().__post_init__()
        counts = ("n_streamlines", "n_seeds", "seed_random_per_voxel", "seed_grid_per_voxel")
        for name in counts:
            value = getattr(self, name)
            self._require(name, ok=value is None or value >= 1, rule="1 or more")
        in_range = 0 <= self.random_seed < 2**63
        self._require("random_seed", ok=in_range, rule="0 or more, and below 2**63")
        sphere, direction = self.seed_sphere, self.seed_direction
        if sphere is not None:
            numbers = parse_numbers(sphere, 4)
            ok = numbers is not None and numbers[3] > 0
            self._require("seed_sphere", ok=ok, rule="x,y,z,radius with a radius above 0")
        if direction is not None:
            ok = any(parse_numbers(direction, 3) or ())
            self._require("seed_direction", ok=ok, rule="x,y,z, not all of them zero")
        self._refuse_two_kinds()

    def _refuse_two_kinds(self) -> None:
        kinds = [name for name in _SEEDINGS if getattr(self, name) is not None]
        if self.seed_image is not None and not {*kinds} & _IN_IMAGE:
            kinds.insert(0, "seed_image")
        if len(kinds) > 1:
            raise ConfigError(
                f"Seeds can come from one place only, not from {' and '.join(kinds)}.",
                where="SeedingConfig",
                remedy="Leave one of them out; seed_image goes with seed_random_per_voxel or "
                "seed_grid_per_voxel.",
            )

    @property
    def kind(self) -> str:
        """Which setting says where seeds are; ``seed_image`` also for the brain mask."""
        return next((name for name in _SEEDINGS if getattr(self, name) is not None), "seed_image")

    @property
    def wanted_streamlines(self) -> int | None:
        """Streamlines to find; ``None``: all that the seeds give."""
        if self.n_streamlines is not None:
            return self.n_streamlines
        finite = self.n_seeds is not None or self.kind in _FINITE
        return None if finite else DEFAULT_STREAMLINES


#: Kinds of seeding, of which there can be one; those within an image; those with an end.
_SEEDINGS = (
    "seed_random_per_voxel",
    "seed_grid_per_voxel",
    "seed_rejection",
    "seed_sphere",
    "seed_coordinates",
)
_IN_IMAGE = {"seed_random_per_voxel", "seed_grid_per_voxel"}
_FINITE = _IN_IMAGE | {"seed_coordinates"}


@dataclass(frozen=True)
class RegionsConfig(Validated):
    """Where streamlines may, must and must not go: images, or spheres as ``x,y,z,radius``."""

    include: tuple[str, ...] = setting(
        (), "Regions that a streamline must visit, every one of them.", unit="image|x,y,z,radius"
    )
    exclude: tuple[str, ...] = setting(
        (), "Regions that reject a streamline that enters any.", unit="image|x,y,z,radius"
    )
    mask: tuple[str, ...] = setting(
        (),
        "Regions outside which streamlines end, instead of the brain mask.",
        unit="image|x,y,z,radius",
    )
    stop: bool = setting(
        default=False, desc="End a streamline once it has visited every region to visit."
    )

    def __post_init__(self) -> None:
        """Check what can be checked without the files."""
        super().__post_init__()
        self._require("stop", ok=bool(self.include) or not self.stop, rule="off without include")
        for name in ("include", "exclude", "mask"):
            for entry in getattr(self, name):
                sphere = parse_numbers(entry, 4)
                ok = bool(entry.strip()) and (sphere is None or sphere[3] > 0)
                self._require(name, ok=ok, rule="images, or x,y,z,radius with a radius above 0")


@dataclass(frozen=True)
class ConnectomeConfig(Validated):
    """How streamline ends are assigned to parcels."""

    assignment_radius_mm: float = setting(
        4.0, "An end belongs to the nearest labelled voxel centre closer than this.", unit="mm"
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        self._require_positive("assignment_radius_mm")


@dataclass(frozen=True)
class OutputConfig(Validated):
    """What is written, and in which form."""

    tractogram: bool = setting(
        default=True, desc="Save the tractogram; connectomes are made without it too."
    )
    tractogram_format: TractogramFormat = setting("trx", "File format of the tractogram.")
    tractogram_tolerance_mm: float = setting(
        0.1,
        "Vertices of the saved tractogram that lie within this of the line through the others are "
        "left out; 0 keeps all. Connectomes are made from all.",
        unit="mm",
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        tolerance = self.tractogram_tolerance_mm
        ok = math.isfinite(tolerance) and tolerance >= 0
        self._require("tractogram_tolerance_mm", ok=ok, rule="0 or more, and finite")


@dataclass(frozen=True)
class Config:
    """All settings of one run: the part of the command line that changes results."""

    preprocessing: PreprocessingConfig = field(default_factory=PreprocessingConfig)
    fodf: FodfConfig = field(default_factory=FodfConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    seeding: SeedingConfig = field(default_factory=SeedingConfig)
    regions: RegionsConfig = field(default_factory=RegionsConfig)
    connectome: ConnectomeConfig = field(default_factory=ConnectomeConfig)
    output: OutputConfig = field(default_factory=OutputConfig)
    atlases: tuple[str, ...] = ("ICBM100",)

    @classmethod
    def from_toml(cls, path: Path) -> Config:
        """Read settings; what the file leaves out keeps its default.

        Raises
        ------
        ConfigError
            If the file is not TOML, or holds a table, a name or a value that does not exist.
        """
        try:
            tables = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(
                f"The configuration file cannot be read: {error}.",
                where=path,
                remedy="Give a TOML file such as logs/<run>/config.toml of an earlier run.",
            ) from error
        return merge(cls(), tables, where=str(path))

    def to_toml(self) -> str:
        """Write all settings as TOML; fields at ``None`` are left out, as TOML has no null."""
        tables = asdict(self)
        lines = [
            f"{name} = {toml_value(value)}"
            for name, value in tables.items()
            if not isinstance(value, dict)
        ]
        for name, table in tables.items():
            if isinstance(table, dict):
                lines += ["", f"[{name}]"]
                lines += [
                    f"{key} = {toml_value(value)}"
                    for key, value in table.items()
                    if value is not None
                ]
        return "\n".join(lines) + "\n"


def merge(config: Config, tables: dict[str, Any], *, where: str) -> Config:
    """Lay nested settings over a configuration.

    Raises
    ------
    ConfigError
        If a name is unknown or a value is of the wrong type or out of range; it says which.
    """
    changed: dict[str, Any] = {}
    known = {item.name for item in fields(config)}
    for name, value in tables.items():
        if name not in known:
            raise _unknown(name, known, where)
        current = getattr(config, name)
        if not is_dataclass(current):
            changed[name] = _names(name, value, where)
            continue
        if not isinstance(value, dict):
            raise ConfigError(
                f"[{name}] is not a table.", where=where, remedy=f"Write it as [{name}]."
            )
        keys = {item.name for item in fields(current)}
        for key in value:
            if key not in keys:
                raise _unknown(f"{name}.{key}", keys, where)
        # TOML and the command line have lists; settings do not change, and have tuples.
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}
        changed[name] = replace(current, **values)  # type: ignore[type-var]
    return replace(config, **changed)


def _names(name: str, value: object, where: str) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not value:
        raise ConfigError(
            f"{name} is {value!r}, but it must be a list with at least one entry.",
            where=where,
            remedy=f'Write {name} = ["first", "second"].',
        )
    return tuple(str(entry) for entry in value)


def _unknown(name: str, known: set[str], where: str) -> ConfigError:
    return ConfigError(
        f"There is no setting called {name}.",
        where=where,
        remedy=f"Known here: {', '.join(sorted(known))}.",
    )
