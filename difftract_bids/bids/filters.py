"""``--bids-filter-file``: which images count as inputs, by the entities of their names.

The format is that of fMRIPrep and QSIPrep, which give each part of the file to pybids as a query:
an object of entities and the values that are wanted, for each kind of image.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from difftract_bids.bids.inherited import read_json_object
from difftract_bids.bids.templates import entities_of
from difftract_bids.errors import UsageError

#: Kinds of images that are read here.
KINDS = ("dwi", "t1w", "fmap")
#: Kinds that other programs know: one file may serve several of them.
_ELSEWHERE = {"asl", "bold", "flair", "m0scan", "pet", "pdw", "roi", "sbref", "t2star", "t2w"}
#: Keys in file names of the entities that filters may name, by their long names.
_ENTITIES = {
    "subject": "sub",
    "session": "ses",
    "sample": "sample",
    "task": "task",
    "acquisition": "acq",
    "ceagent": "ce",
    "tracer": "trc",
    "reconstruction": "rec",
    "direction": "dir",
    "run": "run",
    "modality": "mod",
    "echo": "echo",
    "flip": "flip",
    "inversion": "inv",
    "mtransfer": "mt",
    "part": "part",
    "processing": "proc",
    "space": "space",
    "chunk": "chunk",
    "resolution": "res",
    "description": "desc",
}
_KEYS = {**{key: key for key in _ENTITIES.values()}, **_ENTITIES}
#: These are numbers: 1 is ``run-01`` as well.
_NUMBERS = {"run", "echo", "flip", "inv", "chunk"}
#: Parts of a name that are no entities, and pybids knows like them.
_PARTS = ("datatype", "suffix", "extension")
_REGEX = "regex_search"
#: pybids' enumeration, as it is written in settings of programs that use it.
_QUERY = re.compile(r"<?Query\.(NONE|ANY|REQUIRED|OPTIONAL)(?:: \d+)?>?")


class _Query(Enum):
    """Whether an entity must be there, or must not, whatever its value."""

    NONE = "none"
    ANY = "any"
    OPTIONAL = "optional"


@dataclass(frozen=True)
class Condition:
    """What is wanted of one kind of image.

    Attributes
    ----------
    values
        By the keys of file names, values of which an image must have one.
    is_regex
        Whether they are regular expressions, looked for anywhere in a value.
    said
        As the file has it.
    """

    values: Mapping[str, tuple[str | _Query, ...]]
    is_regex: bool = False
    said: str = ""

    def fits(self, path: Path) -> bool:
        """Say whether an image is wanted, by its name and folder."""
        names = _names_of(path)
        return all(
            any(self._is(value, key, names.get(key)) for value in values)
            for key, values in self.values.items()
        )

    def _is(self, wanted: str | _Query, key: str, value: str | None) -> bool:
        if isinstance(wanted, _Query):
            return wanted is _Query.OPTIONAL or (value is None) is (wanted is _Query.NONE)
        if value is None:
            return False
        if self.is_regex:
            return re.search(wanted, value, re.IGNORECASE) is not None
        if key in _NUMBERS and wanted.isdigit() and value.isdigit():
            return int(wanted) == int(value)
        return wanted == value


@dataclass(frozen=True)
class Filters:
    """Which images count as inputs; all of them by default.

    Attributes
    ----------
    file
        Where this is said.
    conditions
        By kind of image.
    notes
        What the user should know of the file.
    """

    file: Path | None = None
    conditions: Mapping[str, Condition] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def keep(self, kind: str, path: Path) -> bool:
        """Say whether an image counts as an input.

        Parameters
        ----------
        kind
            ``dwi``, ``t1w`` or ``fmap``.
        path
            The image.
        """
        condition = self.conditions.get(kind)
        return condition is None or condition.fits(path)

    def said_of(self, kind: str) -> str:
        """Give what the file says of a kind, for an error: ``{"session": "01"} (file.json)``."""
        return f"{self.conditions[kind].said} ({self.file})" if kind in self.conditions else ""


def read_filters(path: Path) -> Filters:
    """Read a filter file.

    Parameters
    ----------
    path
        JSON: ``{"dwi": {"acquisition": "hardi", "run": [1, 2]}, "t1w": {"ceagent": null}}``.
        Entities have their long names or those of file names. ``null`` or ``"Query.NONE"`` is for
        entities that must not be there, ``"*"`` or ``"Query.ANY"`` for any value.

    Raises
    ------
    UsageError
        If it cannot be read, or names kinds, entities or values that there are not.
    """
    try:
        content = read_json_object(path)
    except (OSError, ValueError) as error:
        raise _unusable(
            f"cannot be read: {error}",
            path,
            'Give a JSON file such as {"dwi": {"acquisition": "hardi"}}.',
        ) from error
    conditions: dict[str, Condition] = {}
    unread = []
    for name, wanted in content.items():
        kind = name.lower()
        if kind in _ELSEWHERE:
            unread.append(name)
        elif kind not in KINDS:
            raise _unusable(
                f"names images of the kind {name!r}", path, f"Kinds are: {', '.join(KINDS)}."
            )
        elif kind in conditions:
            raise _unusable(f"names {kind} twice", path, "Put both parts into one.")
        elif not isinstance(wanted, dict):
            raise _unusable(
                f"says of {name} {json.dumps(wanted)}",
                path,
                f'Give entities and their values: "{name}": {{"acquisition": "hardi"}}.',
            )
        else:
            conditions[kind] = _condition(wanted, name, path)
    note = f"{path.name} filters {', '.join(unread)} too: such images are not read here."
    return Filters(path, conditions, (note,) if unread else ())


def _condition(wanted: dict[str, Any], kind: str, path: Path) -> Condition:
    given = dict(wanted)
    is_regex = given.pop(_REGEX, False)
    if not isinstance(is_regex, bool):
        raise _unusable(
            f"says of {kind} {_REGEX} {json.dumps(is_regex)}", path, "Say true or false."
        )
    values: dict[str, tuple[str | _Query, ...]] = {}
    for name, value in given.items():
        key = name if name in _PARTS else _KEYS.get(name)
        if key is None:
            raise _unusable(
                f"filters {kind} by {name!r}, which is no entity of file names",
                path,
                f"Entities are: {', '.join((*_ENTITIES, *_PARTS))}.",
            )
        if key in values:
            raise _unusable(f"filters {kind} by {key} twice", path, "Name it once.")
        listed = value if isinstance(value, list) else [value]
        if listed:  # as for pybids, an empty list is no condition
            values[key] = tuple(
                _value(one, key, f"{kind} by {name}", path, is_regex=is_regex) for one in listed
            )
    return Condition(values, is_regex, json.dumps(wanted, ensure_ascii=False))


def _value(value: object, key: str, what: str, path: Path, *, is_regex: bool) -> str | _Query:
    if value is None:
        return _Query.NONE
    if value == "*":
        return _Query.ANY
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise _unusable(
            f"filters {what} {json.dumps(value)}", path, "Values are texts, whole numbers or null."
        )
    text = str(value)
    if query := _QUERY.fullmatch(text):
        return _Query[query[1].replace("REQUIRED", "ANY")]
    if is_regex:
        try:
            re.compile(text)
        except re.error as error:
            raise _unusable(
                f"filters {what} {text!r}, which is no regular expression ({error})",
                path,
                f"Mend it, or leave {_REGEX} out.",
            ) from error
        return text
    return "." + text.lstrip(".") if key == "extension" else text.removeprefix(f"{key}-")


def _names_of(path: Path) -> dict[str, str]:
    """Read the entities of an image, and the other parts of its name."""
    stem, _, extension = path.name.partition(".")
    parts = path.parent.name, stem.rpartition("_")[2], f".{extension}"
    return entities_of(path) | dict(zip(_PARTS, parts, strict=True))


def _unusable(what: str, path: Path, remedy: str) -> UsageError:
    return UsageError(
        f"The filter file {what}.", where=f"--bids-filter-file {path}", remedy=remedy
    )
