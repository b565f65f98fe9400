"""A trained model in one file: weights, settings and how it was trained; nothing that runs."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from difftract_bids.errors import ConfigError, InputError
from difftract_bids.io.aside import AsideFile, explained
from difftract_bids.io.model_metadata import ENTRY
from difftract_bids.learn.architectures import architecture_of
from difftract_bids.learn.network import FODFNetwork, NetworkSettings

_VERSION = 1
_REMEDY = "Give model.safetensors of a folder that difftract-train wrote, copied completely."


@dataclass(frozen=True)
class LoadedModel:
    """A model and where it is from.

    Attributes
    ----------
    network
        On the CPU, ready to predict.
    training
        What was written of its training.
    sha256
        Digest of the file, hexadecimal.
    path
        The file, absolute.
    """

    network: FODFNetwork
    training: dict[str, Any]
    sha256: str
    path: Path


def save_model(
    path: str | os.PathLike[str], network: FODFNetwork, training: dict[str, Any]
) -> str:
    """Write a model; equal models and records give equal files, byte for byte.

    Parameters
    ----------
    path
        File to write, by custom ``*.safetensors``. Written aside and renamed.
    network
        Weights and settings.
    training
        How it was trained: what JSON can hold.

    Returns
    -------
    str
        SHA-256 digest of the file, hexadecimal.

    Raises
    ------
    DifftractError
        If the file cannot be written.
    """
    # Clones: a user's network may use a weight twice, which the format refuses to alias.
    weights = {
        name: value.detach().cpu().clone().contiguous()
        for name, value in network.state_dict().items()
    }
    record = {"version": _VERSION, "settings": network.settings.to_dict(), "training": training}
    content = save(weights, metadata={ENTRY: json.dumps(record, sort_keys=True)})
    target = Path(path).absolute()
    with explained(target):
        aside = AsideFile(target)
        try:
            aside.stream.write(content)
            aside.commit()
        finally:
            aside.discard()
    return hashlib.sha256(content).hexdigest()


def load_model(path: str | os.PathLike[str], model_class: str | None = None) -> LoadedModel:
    """Read a model. The file is data: nothing in it is executed, and it chooses no code.

    Parameters
    ----------
    path
        What `save_model` wrote.
    model_class
        ``package.module:Class`` of a user's architecture, from the user, never from a file. It is
        imported only if the file names the same.

    Raises
    ------
    InputError
        If the file is missing, truncated, none of ours, of another version, names an architecture
        that the user did not, or if its weights do not fit its settings or are not finite.
    UsageError
        If the user's class cannot be imported, or is no network.
    """
    target = Path(path).absolute()
    record, weights, digest = _read(target)
    settings = NetworkSettings.from_dict(record["settings"])
    made_of = architecture_of(settings.architecture, model_class, where=target)
    try:
        network = FODFNetwork(settings, architecture_class=made_of)
    except ConfigError as error:  # of the file, not of the command line
        raise InputError(error.what, where=target, remedy=_REMEDY) from error
    _fill(network, weights, target)
    return LoadedModel(network.eval(), record["training"], digest, target)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor], str]:
    try:
        with safe_open(path, framework="pt") as stored:
            metadata = stored.metadata() or {}
            weights = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - no dict
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"The model file cannot be read: {error}.",
            where=path,
            remedy=f"{_REMEDY} Files of torch.save are never read: loading one can run code.",
        ) from error
    return _record_of(metadata, path), weights, digest


def _record_of(metadata: dict[str, str], path: Path) -> dict[str, Any]:
    try:
        record = json.loads(metadata[ENTRY])
        version = record["version"]
        whole = isinstance(record["settings"], dict) and isinstance(record["training"], dict)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            "The file holds weights, but not of a model of this package: its description is "
            "missing or damaged.",
            where=path,
            remedy=_REMEDY,
        ) from error
    if version != _VERSION:
        raise InputError(
            f"The model file has the format version {version!r}, this program reads {_VERSION}.",
            where=path,
            remedy="Install the version of difftract-bids that the model was trained with, or a "
            "newer one.",
        )
    if not whole:
        raise InputError("The model's description is damaged.", where=path, remedy=_REMEDY)
    return record


def _fill(network: FODFNetwork, weights: dict[str, Tensor], path: Path) -> None:
    """Put weights into a network, all of them and no others."""
    wanted = network.state_dict()
    wrong = [
        f"{name} is {_shape(weights, name)}, not {_shape(wanted, name)}"
        for name in sorted({*wanted, *weights})
        if _shape(wanted, name) != _shape(weights, name)
    ]
    if wrong:
        raise InputError(
            f"{len(wrong)} of the model's weights do not fit its settings (lmax "
            f"{network.settings.lmax}, signal lmax {network.settings.signal_lmax}): "
            f"{'; '.join(wrong[:3])}.",
            where=path,
            remedy=f"{_REMEDY} If the architecture is your own, use the code that it was trained "
            "with.",
        )
    damaged = sum(int(not bool(value.isfinite().all())) for value in weights.values())
    if damaged:
        raise InputError(
            f"{damaged} of the model's {len(weights)} weights hold values that are not finite.",
            where=path,
            remedy="Use a checkpoint from before, or train with a smaller learning rate.",
        )
    network.load_state_dict(weights)


def _shape(tensors: dict[str, Tensor], name: str) -> str:
    value = tensors.get(name)
    return "missing" if value is None else f"{tuple(value.shape)} {value.dtype}"
