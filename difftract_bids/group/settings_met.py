"""Whether the matrices of a group were made alike, by the sidecars and records of their runs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from difftract_bids.bids.labels import LABEL
from difftract_bids.bids.runs import KEYS

#: Entries that must not differ where matrices are averaged.
_COMPARED = ("Assignment", "StreamlineWeighting", "EdgeStatistic", "Units", "ValidDiagonal")
#: Entries of the sidecars of streamlines, without those that change no result to speak of.
_OF_STREAMLINES: dict[str, tuple[str, ...]] = {
    "StreamlineSeeding": ("RandomSeed", "SeedCount"),
    "StreamlinePropagation": ("Backend", "Device"),
    "StreamlineTermination": (),
    "StreamlineAcceptanceCriteria": (),
}
_MODEL = re.compile(f"_model-({LABEL})_tractogram")
# Names of files in settings have the labels of their run.
_OWN_LABELS = re.compile(f"(?<![0-9a-zA-Z])({'|'.join(KEYS.values())})-{LABEL}")
_DIGITS = 4
#: More variants than this are not told one by one.
_MOST_VARIANTS = 5


def settings_of_streamlines(name: str, sidecar: Mapping[str, Any]) -> dict[str, Any]:
    """Give the settings of streamlines that must not differ, without what is of their run alone.

    Parameters
    ----------
    name
        Name of the sidecar, with the model.
    sidecar
        Its content.
    """
    model = _MODEL.search(name)
    said: dict[str, Any] = {"TractogramModel": model[1]} if model else {}
    for entry, without in _OF_STREAMLINES.items():
        value = sidecar.get(entry)
        if isinstance(value, dict):
            value = {key: part for key, part in value.items() if key not in without}
        if value is not None:
            said[entry] = _comparable(value)
    return said


def _comparable(value: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Round numbers (steps are fractions of a voxel's size in float32), and take labels out."""
    if isinstance(value, dict):
        return {key: _comparable(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_comparable(part) for part in value]
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    return _OWN_LABELS.sub(r"\1-*", value) if isinstance(value, str) else value


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
        self.compare({name: sidecar[name] for name in _COMPARED if name in sidecar}, run)

    def compare(self, settings: Mapping[str, Any], run: str) -> None:
        """Take note of settings that should be the same of all runs.

        Parameters
        ----------
        settings
            By name.
        run
            Whose they are.
        """
        for name, value in settings.items():
            said = json.dumps(value, sort_keys=True)
            variants = self._variants.setdefault(name, {})
            if said in variants or len(variants) < _MOST_VARIANTS:
                variants.setdefault(said, run)

    def differences(self) -> dict[str, dict[str, str]]:
        """Give entries with more than one value: each value, and the first run that has it."""
        return {name: said for name, said in self._variants.items() if len(said) > 1}
