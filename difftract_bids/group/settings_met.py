"""Whether the matrices of a group were made alike, by their sidecars."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

#: Entries that must not differ where matrices are averaged.
_COMPARED = ("Assignment", "StreamlineWeighting", "EdgeStatistic", "Units", "ValidDiagonal")
#: More variants than this are not told one by one.
_MOST_VARIANTS = 5


class SettingsMet:
    """Collect what the sidecars of one atlas and measure say, without keeping them."""

    def __init__(self) -> None:
        self._variants: dict[str, dict[str, str]] = {}
        self.first: Mapping[str, Any] = {}

    def add(self, sidecar: Mapping[str, Any], run: str) -> None:
        """Take note of a sidecar; one that is not there says nothing.

        Parameters
        ----------
        sidecar
            Its content.
        run
            Whose it is, to name the first of each kind.
        """
        if not sidecar:
            return
        self.first = self.first or dict(sidecar)
        for name in _COMPARED:
            if name in sidecar:
                said = json.dumps(sidecar[name], sort_keys=True)
                variants = self._variants.setdefault(name, {})
                if said in variants or len(variants) < _MOST_VARIANTS:
                    variants.setdefault(said, run)

    def differences(self) -> dict[str, dict[str, str]]:
        """Give entries with more than one value: each value, and the first run that has it."""
        return {name: said for name, said in self._variants.items() if len(said) > 1}
