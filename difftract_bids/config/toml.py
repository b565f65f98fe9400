"""Settings in TOML: a dataclass of settings is a file, each of its stages a table of it."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from difftract_bids.errors import ConfigError
from difftract_bids.validation import toml_value

if TYPE_CHECKING:
    from collections.abc import Iterator
    from dataclasses import Field
    from pathlib import Path


class _Settings(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


S = TypeVar("S", bound=_Settings)


def read_tables(path: Path, *, remedy: str) -> dict[str, Any]:
    """Read a TOML file.

    Parameters
    ----------
    path
        The file.
    remedy
        Which file to give instead, should it be none.

    Raises
    ------
    ConfigError
        If the file cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(
            f"The configuration file cannot be read: {error}.", where=path, remedy=remedy
        ) from error


def write_tables(config: _Settings) -> str:
    """Write all settings as TOML; fields at ``None`` are left out, as TOML has no null."""
    tables = asdict(config)
    lines = [
        f"{name} = {toml_value(value)}"
        for name, value in tables.items()
        if not isinstance(value, dict)
    ]
    for name, table in tables.items():
        if isinstance(table, dict):
            lines += ["", f"[{name}]"] if lines else [f"[{name}]"]
            lines += [
                f"{key} = {toml_value(value)}" for key, value in table.items() if value is not None
            ]
    return "\n".join(lines) + "\n"


def setting_values(config: _Settings) -> Iterator[tuple[Field[Any], Any]]:
    """List the settings of all stages, with their values."""
    for stage in fields(config):
        table = getattr(config, stage.name)
        if is_dataclass(table):
            yield from ((item, getattr(table, item.name)) for item in fields(table))


def names_file(item: Field[Any]) -> bool:
    """Say whether a setting takes a file, by what stands for its value in the help."""
    unit = item.metadata["unit"].upper()
    return "FILE" in unit or "IMAGE" in unit


def merge(config: S, tables: dict[str, Any], *, where: str) -> S:
    """Lay nested settings over a configuration.

    Parameters
    ----------
    config
        A dataclass of stages, each a dataclass of settings; or of lists of names.
    tables
        What to change.
    where
        Where that comes from, for the error.

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
            changed[name] = _names(name, value, where, may_be_empty=not current)
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


def _names(name: str, value: object, where: str, *, may_be_empty: bool) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not (value or may_be_empty):
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
