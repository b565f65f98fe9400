"""What a trained model's file tells, for plans, sidecars and methods texts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

from difftract_bids.errors import InputError
from difftract_bids.io.model_metadata import ENTRY, read_model_metadata

_OPTION = "--fodf-model-file"
_SIGNAL = "the signal of each shell relative to b=0, as spherical harmonics"
_ALONE = f"It is given {_SIGNAL}."
_CORRECTION = (
    "It corrects constrained spherical deconvolution, with a response common to its training "
    f"data, and is given that and {_SIGNAL}."
)


@dataclass(frozen=True)
class TrainedModel:
    """What there is to say of a trained model.

    Attributes
    ----------
    file
        Name of its file, without the folder.
    sha256
        Digest of the file, hexadecimal.
    settings
        Architecture, degrees, and the acquisition that it is for.
    training
        How it was trained.
    """

    file: str
    sha256: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path) -> Self:
        """Read the description in a model file, without its weights.

        Raises
        ------
        InputError
            If the file is missing, damaged, or no model of this package.
        """
        record, digest = _read(path)
        return cls(path.name, digest, record["settings"], record["training"])

    @property
    def n_participants(self) -> int | None:
        """Number of participants that it was trained on, if it is told."""
        told = self.training.get("participants")
        return len(told) if isinstance(told, Sequence) and not isinstance(told, str) else None

    @property
    def datasets(self) -> list[str]:
        """Names of the datasets that it was trained on, as far as they are told."""
        told = self.training.get("datasets", self.training.get("dataset"))
        listed = [told] if isinstance(told, str) else told if isinstance(told, list) else []
        return [str(name) for name in listed if name]

    @property
    def response(self) -> tuple[float, ...]:
        """Zonal coefficients that it deconvolves with, relative to b=0; none if it does not."""
        return tuple(self.settings.get("response") or ())

    def notes_for(self, participant: str) -> list[str]:
        """Say so if a participant is among those that it was trained on or chosen by."""
        known = {
            str(label).removeprefix("sub-")
            for name in ("participants", "validation_participants")
            if isinstance(told := self.training.get(name), list | tuple)
            for label in told
        }
        if participant not in known:
            return []
        where = f" of {', '.join(self.datasets)}" if self.datasets else ""
        return [
            (
                f"A participant {participant}{where} is among those that the model was trained or "
                "chosen on: if it is the same person, these fODFs say nothing about how the model "
                "does on others."
            )
        ]

    def in_words(self) -> str:
        """Say in a sentence what the network is and what it was trained on."""
        kind = str(self.settings.get("architecture", "")).rpartition(":")[2]
        acquisition = self.settings.get("acquisition", {})
        shells = zip(
            acquisition.get("n_directions", ()), acquisition.get("shells_s_mm2", ()), strict=False
        )
        listed = " and ".join(f"{n} directions at b = {bval:.0f} s/mm²" for n, bval in shells)
        number = self.n_participants
        trained_on = f"images of {listed}" if listed else "images"
        if number is not None:
            trained_on += f" from {number} participant{'s' if number != 1 else ''}"
        if self.datasets:
            trained_on += f" ({', '.join(self.datasets)})"
        return (
            f"The network, {kind or 'of an architecture not told'} (SHA-256 {self.sha256[:12]}), "
            f"was trained on {trained_on}. {_CORRECTION if self.response else _ALONE}"
        )


def read_trained_model(path: str) -> TrainedModel:
    """Read what a model file tells, for a run that is planned.

    Raises
    ------
    InputError
        If the file is missing, damaged, or no model of this package; it names the option.
    """
    if not Path(path).is_file():
        raise InputError(
            f"There is no such file ({_OPTION}).",
            where=path,
            remedy="Give a model file as difftract-train writes it; {subject} and {session} in "
            "its path are replaced by a run's labels.",
        )
    try:
        return TrainedModel.of(Path(path))
    except InputError as error:
        raise InputError(
            f"{error.what} ({_OPTION})", where=error.where, remedy=error.remedy
        ) from error


@lru_cache(maxsize=64)  # most often all runs share a file
def _read(path: Path) -> tuple[dict[str, Any], str]:
    metadata = read_model_metadata(path)
    try:
        record = json.loads(metadata[ENTRY])
        whole = isinstance(record["settings"], dict) and isinstance(record["training"], dict)
    except (KeyError, TypeError, ValueError) as error:
        raise _foreign(path) from error
    if not whole:
        raise _foreign(path)
    with path.open("rb") as stream:
        return record, hashlib.file_digest(stream, "sha256").hexdigest()


def _foreign(path: Path) -> InputError:
    return InputError(
        "The file holds weights, but not of a model of this program.",
        where=path,
        remedy="Give a model file as difftract-train writes it (model.safetensors).",
    )
