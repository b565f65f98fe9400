"""Settings as Nipype traits, made from the dataclasses so that each default is written once."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import Field, fields
from types import UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from nipype.interfaces.base import BaseInterfaceInputSpec, isdefined, traits

T = TypeVar("T")

_TRAITS = {bool: traits.Bool, int: traits.Int, float: traits.Float, str: traits.Str}


def settings_spec(*configs: type, without: Collection[str] = ()) -> type[BaseInterfaceInputSpec]:
    """Make an input specification that has every field of some settings.

    Parameters
    ----------
    *configs
        Frozen dataclasses of :mod:`difftract_bids.config`; no field name may occur twice.
    without
        Fields that the interface does not use.

    Returns
    -------
    type
        A class to derive an interface's input specification from; read the settings back with
        :func:`settings_of`.
    """
    members: dict[str, Any] = {"__doc__": "Settings of this stage."}
    for config in configs:
        hints = get_type_hints(config)
        for item in fields(config):
            if item.name in without:
                continue
            if item.name in members:
                raise TypeError(f"{config.__name__}.{item.name} is there twice.")
            members[item.name] = _trait(item, hints[item.name])
    return type("SettingsSpec", (BaseInterfaceInputSpec,), members)


def settings_of(inputs: Any, config: type[T]) -> T:
    """Read settings back from an interface's inputs; those it does not use have their defaults."""
    names = [item.name for item in fields(config) if hasattr(inputs, item.name)]  # type: ignore[arg-type]
    values = {name: getattr(inputs, name) for name in names}
    given = {name: value for name, value in values.items() if isdefined(value)}
    return config(**{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})


def _trait(item: Field[Any], hint: Any) -> Any:
    unit = item.metadata["unit"]
    numeric = hint is float or float in get_args(hint)
    form = f" {'Unit' if numeric else 'Form'}: {unit}." if unit else ""
    description = {"desc": item.metadata["desc"] + form}
    if get_origin(hint) is Literal:
        choices = [item.default, *(choice for choice in get_args(hint) if choice != item.default)]
        return traits.Enum(*choices, usedefault=True, **description)
    if get_origin(hint) is tuple:
        kind, default = get_args(hint)[0], cast("tuple[Any, ...]", item.default)
        return traits.List(_TRAITS[kind], list(default), usedefault=True, **description)
    if get_origin(hint) in {Union, UnionType}:
        (kind,) = (choice for choice in get_args(hint) if choice is not type(None))
        return traits.Union(None, _TRAITS[kind](), usedefault=True, **description)
    return _TRAITS[hint](item.default, usedefault=True, **description)
