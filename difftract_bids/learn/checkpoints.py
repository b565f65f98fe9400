"""What a training keeps of itself, so that it can be killed at any moment and go on.

A checkpoint is a folder ``step-N`` of a model file, the optimiser's state, and what else changes:
written aside, and renamed when it is whole. Every file's digest is kept, so that a damaged one is
not gone on from. Nothing in it is executed: tensors are safetensors, the rest is JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from difftract_bids.errors import TrainingError
from difftract_bids.io.aside import AsideFile, explained
from difftract_bids.learn.model_file import load_model, save_model
from difftract_bids.learn.network import FODFNetwork

MODEL, OPTIMISER, STATE = "model.safetensors", "optimiser.safetensors", "state.json"
#: How many of the latest checkpoints are kept, besides the best.
_KEPT = 2
_FORMAT = 1


@dataclass(frozen=True)
class TrainingState:
    """What a training is, and how far it has come.

    Attributes
    ----------
    step
        Steps taken.
    best_step, best_loss
        After which step validation gave its least loss, and that loss.
    stale
        Validations since then.
    validation
        Losses of the last validation, by name.
    settings
        All settings, table by table.
    data
        Digest of each scan, by its label.
    software
        Versions of what was trained with, by name.
    """

    step: int = 0
    best_step: int = 0
    best_loss: float = float("inf")
    stale: int = 0
    validation: dict[str, float] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    data: dict[str, str] = field(default_factory=dict)
    software: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was found whole, what it says, and the digests of its files by name."""

    folder: Path
    state: TrainingState
    sha256: dict[str, str]


class Checkpoints:
    """The checkpoints of one training.

    Parameters
    ----------
    folder
        Folder of its checkpoints; made if need be.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def of(self, step: int) -> Path:
        """Name the folder of a checkpoint."""
        return self.folder / f"step-{step}"

    def steps(self) -> list[int]:
        """List the steps with a checkpoint, whole or not, the latest first."""
        numbers = [path.name.removeprefix("step-") for path in self.folder.glob("step-*")]
        return sorted((int(number) for number in numbers if number.isdecimal()), reverse=True)

    def save(
        self,
        network: FODFNetwork,
        optimiser: torch.optim.Optimizer,
        state: TrainingState,
        training: Mapping[str, Any],
    ) -> Path:
        """Write a checkpoint, and remove those that are no longer needed.

        Parameters
        ----------
        network, optimiser, state
            What is kept.
        training
            The training record of the model file.

        Raises
        ------
        DifftractError
            If it cannot be written; those before it stay.
        """
        final = self.of(state.step)
        with explained(final):
            self.folder.mkdir(parents=True, exist_ok=True)
            aside = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=self.folder))
            try:
                self._write(aside, network, optimiser, state, training)
                aside.chmod(0o777 & ~_umask())
                if final.exists():  # left by a run that a damaged checkpoint threw back
                    shutil.rmtree(final)
                aside.rename(final)
            finally:
                shutil.rmtree(aside, ignore_errors=True)
        self._prune(state)
        return final

    def _write(
        self,
        folder: Path,
        network: FODFNetwork,
        optimiser: torch.optim.Optimizer,
        state: TrainingState,
        training: Mapping[str, Any],
    ) -> None:
        save_model(folder / MODEL, network, dict(training))
        save_file(optimiser_tensors(network, optimiser), folder / OPTIMISER)
        content = {
            "format": _FORMAT,
            "state": asdict(state),
            "sha256": {name: digest_of(folder / name) for name in (MODEL, OPTIMISER)},
        }
        # Its own digest is over the text that the same content always becomes.
        content["digest"] = _digest(content)
        (folder / STATE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        for name in (MODEL, OPTIMISER, STATE):
            _flush(folder / name)

    def latest(self, notes: list[str]) -> Checkpoint | None:
        """Find the latest checkpoint that is whole; ``None`` if there never was one.

        Parameters
        ----------
        notes
            Where it is said which ones are damaged.

        Raises
        ------
        TrainingError
            If there are checkpoints, and none is whole.
        """
        steps = self.steps()
        for step in steps:
            try:
                return self.read(step)
            except TrainingError as error:
                notes.append(
                    f"{error.what.removesuffix('.')}: {self.of(step)}. The one before it is taken."
                )
        if steps:
            raise TrainingError(
                f"None of the {len(steps)} checkpoint(s) is whole.",
                where=self.folder,
                remedy="Copy the folder again, or start anew (difftract-train --restart).",
            )
        return None

    def read(self, step: int) -> Checkpoint:
        """Read what a checkpoint says, and check that it is whole.

        Raises
        ------
        TrainingError
            If it is damaged, or of another version of this program.
        """
        folder = self.of(step)
        try:
            content = json.loads((folder / STATE).read_text(encoding="utf-8"))
            digest = content.pop("digest")
            if content["format"] != _FORMAT:
                raise _damaged(folder, f"it has the format {content['format']}, not {_FORMAT}")
            if digest != _digest(content):
                raise _damaged(folder, f"{STATE} was changed")
            for name, expected in content["sha256"].items():
                if digest_of(folder / name) != expected:
                    raise _damaged(folder, f"{name} was changed")
            state = TrainingState(**content["state"])
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise _damaged(folder, f"{type(error).__name__}: {error}") from error
        return Checkpoint(folder, state, content["sha256"])

    def restore(
        self,
        checkpoint: Checkpoint,
        network: FODFNetwork,
        optimiser: torch.optim.Optimizer,
        model_class: str | None = None,
    ) -> None:
        """Put weights and the optimiser's state back, as they were.

        Parameters
        ----------
        checkpoint
            One that was found whole.
        network, optimiser
            What they are put into.
        model_class
            The network's architecture if it is not built in, see `load_model`.

        Raises
        ------
        InputError, TrainingError
            If what is kept does not fit.
        """
        loaded = load_model(checkpoint.folder / MODEL, model_class)
        try:
            network.load_state_dict(loaded.network.state_dict())
            tensors = load_file(checkpoint.folder / OPTIMISER)
            _restore_optimiser(network, optimiser, tensors)
        except (OSError, RuntimeError, LookupError, ValueError, SafetensorError) as error:
            raise TrainingError(
                f"The checkpoint does not fit the network: {error}.",
                where=checkpoint.folder,
                remedy="Train in another folder, or start anew (difftract-train --restart).",
            ) from error

    def _prune(self, state: TrainingState) -> None:
        """Keep the last ones and the best; remove also what a killed run left half written."""
        written = [step for step in self.steps() if step <= state.step]
        kept = {*written[:_KEPT], state.best_step}
        for step in self.steps():
            if step not in kept:
                shutil.rmtree(self.of(step), ignore_errors=True)
        for left in self.folder.glob(".step-*"):
            shutil.rmtree(left, ignore_errors=True)


def publish(source: Path, target: Path) -> None:
    """Copy a file so that the final name always holds a whole one.

    Raises
    ------
    DifftractError
        If it cannot be written.
    """
    with explained(target):
        aside = AsideFile(target)
        try:
            aside.stream.write(source.read_bytes())
            aside.commit()
        finally:
            aside.discard()


def digest_of(path: Path) -> str:
    """Give the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def optimiser_tensors(network: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Give the optimiser's state as tensors, named by weight and by what they are."""
    return {
        f"{name}:{key}": torch.as_tensor(value).detach().cpu().contiguous()
        for name, weight in network.named_parameters()
        for key, value in optimiser.state.get(weight, {}).items()
    }


def _restore_optimiser(
    network: nn.Module, optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> None:
    numbers = {name: number for number, (name, _) in enumerate(network.named_parameters())}
    state: dict[int, dict[str, Tensor]] = {}
    for full_name, tensor in tensors.items():
        name, _, key = full_name.rpartition(":")
        state.setdefault(numbers[name], {})[key] = tensor
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})


def _damaged(folder: Path, why: str) -> TrainingError:
    return TrainingError(
        f"A checkpoint is damaged ({why}).",
        where=folder,
        remedy="Copy it again, or remove it to go on from the one before it.",
    )


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _flush(path: Path) -> None:
    """Have the disk hold a file before its folder gets its final name."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
