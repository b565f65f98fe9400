"""Files that settings name, for each run: ``{subject}`` and ``{session}`` filled in, checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from difftract_bids.bids.runs import DWIRun
from difftract_bids.config import (
    ActConfig,
    Config,
    ConnectomeConfig,
    RegionsConfig,
    SeedingConfig,
)
from difftract_bids.errors import DifftractError, InputError, UsageError
from difftract_bids.validation import parse_numbers

#: Settings of seeding that are paths, and the word of the command line for each.
_SEED_FILES = ("seed_image", "seed_rejection", "seed_coordinates")
_REGIONS = ("include", "exclude", "mask")


def seeding_of(config: SeedingConfig, run: DWIRun) -> SeedingConfig:
    """Make the paths of a run's own seeding absolute, and fill in its labels.

    Raises
    ------
    InputError
        If a path asks for the session of a run without one.
    """
    given = {name: getattr(config, name) for name in _SEED_FILES}
    changes: dict[str, Any] = {
        name: own_path(path, name, run) for name, path in given.items() if path is not None
    }
    return replace(config, **changes)


def regions_of(config: RegionsConfig, run: DWIRun) -> RegionsConfig:
    """Make the paths of a run's own regions absolute, and fill in its labels.

    Raises
    ------
    InputError
        If a path asks for the session of a run without one.
    """
    changes: dict[str, Any] = {
        name: tuple(
            entry if parse_numbers(entry, 4) else own_path(entry, name, run)
            for entry in getattr(config, name)
        )
        for name in _REGIONS
    }
    return replace(config, **changes)


def connectome_of(config: ConnectomeConfig, run: DWIRun) -> ConnectomeConfig:
    """Make the path of a run's own streamline weights absolute, and fill in its labels.

    Raises
    ------
    InputError
        If the path asks for the session of a run without one.
    """
    if config.streamline_weights is None:
        return config
    path = own_path(config.streamline_weights, "streamline_weights", run)
    return replace(config, streamline_weights=path)


def act_of(config: ActConfig, run: DWIRun) -> ActConfig:
    """Make the path of a run's own tissue image absolute, and fill in its labels.

    Raises
    ------
    InputError
        If the path asks for the session of a run without one.
    """
    if config.act_5tt is None:
        return config
    return replace(config, act_5tt=own_path(config.act_5tt, "act_5tt", run))


def check_given_files(config: Config, run: DWIRun) -> None:
    """Check every file that the settings name: there, of the right kind, not empty.

    Raises
    ------
    InputError
        What is wrong, with which file, of which setting.
    UsageError
        If seeds are to be on the interface of tissues that are not to be obeyed.
    """
    if config.seeding.seed_gmwmi and config.act.act == "off":
        raise UsageError(
            "Seeds on the interface of grey and white matter need anatomical constraints, which "
            "are off.",
            where="--seed-gmwmi --act off",
            remedy="Leave one of them out.",
        )
    seeding, regions = seeding_of(config.seeding, run), regions_of(config.regions, run)
    for name in _SEED_FILES:
        path = getattr(seeding, name)
        if path is not None:
            _check(path, name)
    for name in _REGIONS:
        for entry in getattr(regions, name):
            if parse_numbers(entry, 4) is None:
                _check(entry, name)
    tissues = act_of(config.act, run).act_5tt
    if tissues is not None:
        _check(tissues, "act_5tt")
    weights = connectome_of(config.connectome, run).streamline_weights
    if weights is not None:
        _check(weights, "streamline_weights")


@lru_cache(maxsize=1024)  # most often all runs share a file
def _check(path: str, name: str) -> None:
    option = f"--{name.replace('_', '-')}"
    if not Path(path).is_file():
        hint = ", or a sphere as x,y,z,radius in millimetres" if name in _REGIONS else ""
        raise InputError(
            f"There is no such file ({option}).",
            where=path,
            remedy=f"Give the path of a file{hint}; {{subject}} and {{session}} in it are "
            "replaced by a run's labels.",
        )
    from difftract_bids.io import places

    load: Callable[[str], Any] = {
        "seed_coordinates": places.read_coordinates,
        "seed_rejection": places.load_weights,
        "streamline_weights": _read_weights,
        "act_5tt": _read_tissues,
    }.get(name, places.load_mask)
    try:
        load(path)
    except DifftractError as error:
        raise type(error)(
            f"{error.what} ({option})", where=error.where, remedy=error.remedy
        ) from error


def _read_weights(path: str) -> None:
    from difftract_bids.io.weights import read_weights

    read_weights(path)


def _read_tissues(path: str) -> None:
    from difftract_bids.io.five_tissue_types import load_five_tissue_types

    load_five_tissue_types(path)


def own_path(path: str, name: str, run: DWIRun) -> str:
    """Make a path absolute, with the run's labels in the place of ``{subject}``, ``{session}``.

    Parameters
    ----------
    path
        As the setting has it.
    name
        Which setting.
    run
        Whose labels.

    Raises
    ------
    InputError
        If it asks for the session of a run without one.
    """
    if "{session}" in path and run.session is None:
        raise InputError(
            f"The path {path} asks for a session, and {run.stem} has none.",
            where=f"--{name.replace('_', '-')}",
            remedy="Leave {session} out, or name participants that have sessions.",
        )
    filled = path.replace("{subject}", run.participant).replace("{session}", run.session or "")
    return str(Path(filled).expanduser().absolute())
