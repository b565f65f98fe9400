"""Where a training goes on, and whether it is the same one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from difftract_bids.errors import ConfigError
from difftract_bids.learn.checkpoints import Checkpoint, Checkpoints, TrainingState

#: What may change between runs: how long training lasts, and how often it is kept.
_FREE = {
    "optimisation.n_steps",
    "optimisation.checkpoint_every",
    "optimisation.patience",
}
_REMEDY = "Give what it began with, train in another folder, or start anew (--restart)."


def find_start(
    checkpoints: Checkpoints, wanted: TrainingState, notes: list[str], *, resume: bool
) -> Checkpoint | None:
    """Find the checkpoint to go on from; ``None`` if training begins.

    Parameters
    ----------
    checkpoints
        Those there are.
    wanted
        Settings, data and software of this run.
    notes
        Where it is said what a user should know.
    resume
        Whether to go on at all.

    Raises
    ------
    ConfigError
        If the checkpoints are of other settings or data, or are there and not to be gone on from.
    TrainingError
        If none is whole.
    """
    if not resume:
        if checkpoints.steps():
            raise ConfigError(
                "There are checkpoints of an earlier training, and it is not to go on.",
                where=checkpoints.folder,
                remedy="Train in another folder, or remove them.",
            )
        return None
    found = checkpoints.latest(notes)
    if found is None:
        return None
    _check_settings(found, wanted, notes)
    _check_data(found, wanted)
    if found.state.software != wanted.software:
        notes.append(
            f"It was begun with {_listed(found.state.software)} and goes on with "
            f"{_listed(wanted.software)}: the result may be that of neither."
        )
    return found


def _check_settings(found: Checkpoint, wanted: TrainingState, notes: list[str]) -> None:
    before, now = _flat(found.state.settings), _flat(wanted.settings)
    changed = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    refused = [
        f"{name} was {before.get(name)!r} and is {now.get(name)!r}"
        for name in changed
        if name not in _FREE
    ]
    if refused:
        raise ConfigError(
            f"The training in this folder began with other settings: {'; '.join(refused)}.",
            where=found.folder,
            remedy=_REMEDY,
        )
    if "optimisation.n_steps" in changed:
        notes.append(
            f"n_steps was {before['optimisation.n_steps']} and is {now['optimisation.n_steps']}: "
            "the learning rate falls to 0 by its end, so the result differs from that of a "
            "training that had so many from the start."
        )


def _check_data(found: Checkpoint, wanted: TrainingState) -> None:
    before, now = found.state.data, wanted.data
    kinds = {
        "missing": sorted({*before} - {*now}),
        "new": sorted({*now} - {*before}),
        "changed": sorted(name for name in {*before} & {*now} if before[name] != now[name]),
    }
    said = [f"{kind}: {', '.join(names)}" for kind, names in kinds.items() if names]
    if said:
        raise ConfigError(
            f"The training in this folder began with other scans ({'; '.join(said)}).",
            where=found.folder,
            remedy=_REMEDY,
        )


def _flat(tables: Mapping[str, Any]) -> dict[str, Any]:
    """Name settings by table and name."""
    return {
        f"{table}.{name}": value
        for table, values in tables.items()
        for name, value in values.items()
    }


def _listed(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in sorted(versions.items()))
