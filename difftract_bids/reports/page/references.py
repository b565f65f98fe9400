"""Citations: from ``[@key]`` in a text and the packaged bibliography to names, years and DOIs."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote

from difftract_bids.reports.templates import BIBLIOGRAPHY, packaged_text

_ENTRY = re.compile(r"^@\w+\{(?P<key>[^,]+),\n(?P<fields>.*?)^\}", re.MULTILINE | re.DOTALL)
_FIELD = re.compile(r"^\s*(?P<name>\w+)\s*=\s*\{(?P<value>.*)\},?$", re.MULTILINE)
_CITATION = re.compile(r"\[(@\w+(?:;\s*@\w+)*)\]")


@dataclass(frozen=True)
class Reference:
    """One entry of the bibliography."""

    key: str
    author: str
    title: str
    journal: str
    year: str
    #: Abstracts of conferences have none.
    doi: str = ""

    @property
    def authors(self) -> str:
        """Authors as a list of references shows them."""
        names = self.author.split(" and ")
        if names[-1] == "others":
            return f"{names[0]} et al."
        return " and ".join(["; ".join(names[:-1]), names[-1]] if names[1:] else names)

    @property
    def short(self) -> str:
        """Authors and year as a text cites them."""
        surnames = [name.split(",")[0] for name in self.author.split(" and ")]
        if len(surnames) > 2 or "others" in surnames:
            return f"{surnames[0]} et al., {self.year}"
        return f"{' and '.join(surnames)}, {self.year}"

    @property
    def url(self) -> str:
        """Address that resolves the DOI; empty if there is none."""
        if not self.doi:
            return ""
        return f"https://doi.org/{quote(self.doi, safe='/:().;')}"


def bibliography() -> dict[str, Reference]:
    """Read the packaged bibliography: every entry has author, title, journal and year."""
    return {
        entry["key"]: Reference(entry["key"], **dict(_FIELD.findall(entry["fields"])))
        for entry in _ENTRY.finditer(packaged_text(BIBLIOGRAPHY))
    }


def cited(text: str) -> list[Reference]:
    """List what a text cites, each once, in order of first citation.

    Raises
    ------
    KeyError
        If a key is not in the bibliography.
    """
    known = bibliography()
    keys = [key for group in _CITATION.findall(text) for key in re.findall(r"@(\w+)", group)]
    return [known[key] for key in dict.fromkeys(keys)]


def spelled_out(text: str, show: Callable[[Reference], str]) -> str:
    """Replace each ``[@a; @b]`` by what ``show`` makes of its references, in parentheses."""
    known = bibliography()

    def replace(found: re.Match[str]) -> str:
        keys = re.findall(r"@(\w+)", found[1])
        return f"({'; '.join(show(known[key]) for key in keys)})"

    return _CITATION.sub(replace, text)
