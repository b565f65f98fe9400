"""What all settings share: a description of each field, and the check of its type and range."""

from __future__ import annotations

import math
from dataclasses import field, fields
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from difftract_bids.errors import ConfigError


def setting(default: Any, desc: str, *, unit: str = "") -> Any:  # noqa: ANN401 - of any type
    """Declare a field with its one description.

    Parameters
    ----------
    default
        Default value.
    desc
        One sentence, shown by ``--help`` and by Nipype's interface help.
    unit
        Unit of the number, if it has one; what stands for the value, if it is a text.
    """
    return field(default=default, metadata={"desc": desc, "unit": unit})


class Validated:
    """Shared behaviour of all settings: every field holds a value of its type."""

    def __post_init__(self) -> None:
        """Check the types."""
        hints = get_type_hints(type(self))
        for item in fields(self):  # type: ignore[arg-type]
            ok, rule = _fits(getattr(self, item.name), hints[item.name])
            self._require(item.name, ok=ok, rule=rule)

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


def _fits(value: object, hint: Any) -> tuple[bool, str]:  # noqa: ANN401 - types have no one type
    """Say whether a value is of a type, and what it must be."""
    choices = get_args(hint)
    if get_origin(hint) is Literal:
        return value in choices, f"one of {', '.join(choices)}"
    if get_origin(hint) is tuple:
        ok = isinstance(value, tuple) and all(type(entry) is choices[0] for entry in value)
        return ok, f"a list of type {choices[0].__name__}"
    kinds = choices if get_origin(hint) in {Union, UnionType} else (hint,)
    names = " or ".join(kind.__name__.replace("NoneType", "nothing") for kind in kinds)
    # A whole number is a fine float; a truth value is no number.
    return (float in kinds and type(value) is int) or type(value) in kinds, f"of type {names}"


def parse_numbers(text: str, n: int) -> tuple[float, ...] | None:
    """Read ``n`` finite numbers with commas between them; ``None`` if the text is not that."""
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        return None
    return numbers if len(numbers) == n and all(map(math.isfinite, numbers)) else None


def toml_value(value: Any) -> str:  # noqa: ANN401 - of any type
    """Write a value as TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    if isinstance(value, tuple | list):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    return repr(value)
