"""Settings: one frozen dataclass per stage, passed as arguments and never kept in a global.

Every field carries its description (and unit) in ``metadata``: the command line, the Nipype traits
and the TOML file are all made from it, so a default or a sentence is written once.
"""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

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
from difftract_bids.config.output import OutputConfig, ShBasis, TractogramFormat
from difftract_bids.config.preprocessing import DenoiseMethod, PreprocessingConfig
from difftract_bids.config.regions import RegionsConfig
from difftract_bids.config.seeding import DEFAULT_STREAMLINES, SeedingConfig
from difftract_bids.config.sensitivity import SensitivityConfig
from difftract_bids.config.tracking import (
    Algorithm,
    Backend,
    Device,
    Integrator,
    TrackingConfig,
)
from difftract_bids.config.weights import SIFT2Config
from difftract_bids.errors import ConfigError
from difftract_bids.validation import toml_value

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "DEFAULT_STREAMLINES",
    "MEASURES",
    "TISSUES",
    "Algorithm",
    "AssignmentMode",
    "Backend",
    "Config",
    "ConnectomeConfig",
    "DenoiseMethod",
    "Device",
    "FittedModel",
    "FodfConfig",
    "FodfModel",
    "Integrator",
    "OutputConfig",
    "PreprocessingConfig",
    "RegionsConfig",
    "ResponseAlgorithm",
    "SIFT2Config",
    "SeedingConfig",
    "SensitivityConfig",
    "ShBasis",
    "StreamlineStatistic",
    "TrackingConfig",
    "TractogramFormat",
    "merge",
]


@dataclass(frozen=True)
class Config:
    """All settings of one run: the part of the command line that changes results."""

    preprocessing: PreprocessingConfig = field(default_factory=PreprocessingConfig)
    fodf: FodfConfig = field(default_factory=FodfConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    seeding: SeedingConfig = field(default_factory=SeedingConfig)
    regions: RegionsConfig = field(default_factory=RegionsConfig)
    connectome: ConnectomeConfig = field(default_factory=ConnectomeConfig)
    sift2: SIFT2Config = field(default_factory=SIFT2Config)
    sensitivity: SensitivityConfig = field(default_factory=SensitivityConfig)
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
