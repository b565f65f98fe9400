"""Which class a network is made of, and who may say so.

A model file names its architecture. It is data, and data must not choose what code runs: a class
that is not one of ours is imported only when the user has named the same one.
"""

from __future__ import annotations

import importlib
import re

from torch import nn

from difftract_bids.config.training import DEFAULT_ARCHITECTURE
from difftract_bids.errors import InputError, UsageError
from difftract_bids.learn.residual_cnn import ResidualCNN

#: What a model file may name by itself.
BUILT_IN: dict[str, type[nn.Module]] = {DEFAULT_ARCHITECTURE: ResidualCNN}

_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
#: How the user names a class, in each of the programs.
_OPTIONS = "--fodf-model-class (difftract-bids) or --model-class (difftract-train)"


def architecture_of(
    name: str, model_class: str | None = None, *, where: object = None
) -> type[nn.Module]:
    """Find the class of a name in a model file or a configuration.

    Parameters
    ----------
    name
        What the file says, ``package.module:Class``.
    model_class
        What the user says, if anything: the only name besides ours that is imported.
    where
        The file, for errors.

    Raises
    ------
    InputError
        If the name is none of ours and not what the user says.
    UsageError
        If the class cannot be imported, or is no network.
    """
    if model_class is not None and model_class != name:
        raise InputError(
            f"The architecture is {name!r}, and not {model_class!r}, which was asked for.",
            where=where,
            remedy=f"Name the same class with {_OPTIONS}, or leave the option out for ours.",
        )
    if name in BUILT_IN:
        return BUILT_IN[name]
    if model_class is None:
        raise InputError(
            f"The architecture {name!r} is not one of this package's ({', '.join(BUILT_IN)}).",
            where=where,
            remedy=f"A file does not choose what code runs. If you trust that class, name it with "
            f"{_OPTIONS}.",
        )
    return import_class(model_class)


def import_class(name: str) -> type[nn.Module]:
    """Import a user's architecture; this runs its code.

    Parameters
    ----------
    name
        ``package.module:Class``: a ``torch.nn.Module`` that is made with ``in_channels``,
        ``out_channels`` and its own options, and maps (batch, channel, x, y, z) to (batch, out,
        x, y, z) by convolutions. With a property ``receptive_field`` (voxels) large scans are
        predicted in tiles.

    Raises
    ------
    UsageError
        If it has another form, cannot be imported, or is no ``torch.nn.Module``.
    """
    if not _NAME.fullmatch(name):
        raise _unusable(f"{name!r} is not of the form package.module:Class.", name)
    module_name, _, class_name = name.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except ImportError as error:
        raise _unusable(f"The module {module_name} cannot be imported: {error}.", name) from error
    except AttributeError as error:
        raise _unusable(f"The module {module_name} has no {class_name}.", name) from error
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise _unusable(f"{name} is not a torch.nn.Module.", name)
    return found


def _unusable(what: str, name: str) -> UsageError:
    return UsageError(
        what,
        where=name,
        remedy="Install the package that has it, or put its folder on PYTHONPATH, and write "
        f"package.module:Class after {_OPTIONS}.",
    )
