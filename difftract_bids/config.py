"""Settings: one frozen dataclass per stage, passed as arguments and never kept in a global.

Every field carries its description (and unit) in ``metadata``: the command line, the Nipype traits
and the TOML file are all made from it, so a default or a sentence is written once.
"""

from __future__ import annotations

import math
import tomllib
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Self, get_args, get_origin, get_type_hints

from difftract_bids.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

Integrator = Literal["euler", "midpoint", "rk4", "rk4_classic"]
Backend = Literal["auto", "reference"]
Algorithm = Literal["sd_stream"]
DenoiseMethod = Literal["mppca", "none"]
TractogramFormat = Literal["trx", "tck"]


def setting(default: Any, desc: str, *, unit: str = "") -> Any:
    """Declare a field with its one description.

    Parameters
    ----------
    default
        Default value.
    desc
        One sentence, shown by ``--help`` and by Nipype's interface help.
    unit
        Unit of the number, if it has one.
    """
    return field(default=default, metadata={"desc": desc, "unit": unit})


class _Validated:
    """Shared behaviour of all settings: literal fields hold one of their choices."""

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for item in fields(self):  # type: ignore[arg-type]
            hint, value = hints[item.name], getattr(self, item.name)
            choices = get_args(hint)
            if get_origin(hint) is Literal:
                self._require(item.name, ok=value in choices, rule=f"one of {', '.join(choices)}")
                continue
            kinds = choices or (hint,)
            # A whole number is a fine float; a truth value is no number.
            ok = (float in kinds and type(value) is int) or type(value) in kinds
            names = " or ".join(kind.__name__.replace("NoneType", "nothing") for kind in kinds)
            self._require(item.name, ok=ok, rule=f"of type {names}")

    def _require(self, name: str, *, ok: bool, rule: str) -> None:
        if not ok:
            raise ConfigError(
                f"{name} is {getattr(self, name)!r}, but it must be {rule}.",
                where=f"{type(self).__name__}.{name}",
                remedy=f"Give a value that is {rule}, or leave it out for the default.",
            )

    def _require_positive(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            ok = value is None or (math.isfinite(value) and value > 0)
            self._require(name, ok=ok, rule="a positive, finite number")


@dataclass(frozen=True)
class PreprocessingConfig(_Validated):
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
class FodfConfig(_Validated):
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
class TrackingConfig(_Validated):
    """How streamlines are propagated; ``None`` is MRtrix's default for integrator and voxel size.

    References
    ----------
    Tournier et al. 2012, doi:10.1002/ima.22005; MRtrix3 3.0.3 ``tckgen -algorithm SD_STREAM``.
    """

    algorithm: Algorithm = setting("sd_stream", "Tracking algorithm.")
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
    cutoff: float | None = setting(None, "fODF amplitude below which tracking stops; default 0.1.")
    min_length_mm: float | None = setting(
        None, "Shorter streamlines are dropped; default 5 voxels.", unit="mm"
    )
    max_length_mm: float | None = setting(
        None, "Streamlines end at this length; default 100 voxels.", unit="mm"
    )
    backend: Backend = setting("auto", "Implementation of the propagator.")

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        self._require_positive("peak_tolerance", "step_size_mm", "max_length_mm")
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
class SeedingConfig(_Validated):
    """Where streamlines start."""

    n_seeds: int = setting(50_000, "Seeds placed at random in the brain mask.")
    random_seed: int = setting(
        0, "Seed of every random choice; the same seed gives the same result."
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        self._require("n_seeds", ok=self.n_seeds >= 1, rule="1 or more")
        self._require("random_seed", ok=self.random_seed >= 0, rule="0 or more")


@dataclass(frozen=True)
class ConnectomeConfig(_Validated):
    """How streamline ends are assigned to parcels."""

    assignment_radius_mm: float = setting(
        4.0, "An end belongs to the nearest labelled voxel centre closer than this.", unit="mm"
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        self._require_positive("assignment_radius_mm")


@dataclass(frozen=True)
class OutputConfig(_Validated):
    """What is written, and in which form."""

    tractogram_format: TractogramFormat = setting("trx", "File format of the tractogram.")


@dataclass(frozen=True)
class Config:
    """All settings of one run: the part of the command line that changes results."""

    preprocessing: PreprocessingConfig = field(default_factory=PreprocessingConfig)
    fodf: FodfConfig = field(default_factory=FodfConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    seeding: SeedingConfig = field(default_factory=SeedingConfig)
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
            f"{name} = {_toml(value)}"
            for name, value in tables.items()
            if not isinstance(value, dict)
        ]
        for name, table in tables.items():
            if isinstance(table, dict):
                lines += ["", f"[{name}]"]
                lines += [
                    f"{key} = {_toml(value)}" for key, value in table.items() if value is not None
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
        changed[name] = replace(current, **value)  # type: ignore[type-var]
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


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return repr(value)
