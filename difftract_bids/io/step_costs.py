"""What the steps of a workflow took, off their working folders."""

from __future__ import annotations

import gzip
import os
import pickle
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from difftract_bids.cost import COST_FILE, Cost

_GB_PER_GIB = 1024**3 / 1e9
#: Folder in that of a Nipype MapNode for those of its parts.
_PARTS = ".mapflow."
_DTYPE = "numpy", "dtype"


@dataclass(frozen=True)
class StepCost:
    """What one step of a workflow took.

    Attributes
    ----------
    step
        Its name within the workflow, such as ``fodf_wf.response``.
    cost
        What it took.
    """

    step: str
    cost: Cost


def read_step_costs(folder: Path, steps: Collection[str] | None = None) -> list[StepCost]:
    """Read what the steps below a folder took.

    It was measured where the app's own processes run steps. Elsewhere, in jobs of a batch system
    for one, Nipype notes how long the step itself took, and its memory if it is asked to. What
    cannot be read is left out.

    Parameters
    ----------
    folder
        Working folder of a workflow; it need not be there.
    steps
        Those that belong to it, by name: others may be left of earlier settings. All, if left out.

    Returns
    -------
    list of StepCost
        In the order of their beginnings.
    """
    found = []
    for root, _, files in os.walk(folder):
        here = Path(root)
        name = ".".join(here.relative_to(folder).parts)
        result = f"result_{here.name}.pklz"
        if COST_FILE not in files and result not in files:
            continue
        if steps is not None and name.partition(_PARTS)[0] not in steps:
            continue
        cost = Cost.load(here)
        if cost is None or cost.peak_memory_gb is None:
            noted = read_noted(here / result)
            cost = noted if cost is None else _with_memory(cost, noted)
        if cost is not None:
            found.append(StepCost(name, cost))
    return sorted(found, key=lambda one: (one.cost.began, one.step))


def read_noted(path: Path) -> Cost | None:
    """Read what Nipype itself noted of a step.

    Parameters
    ----------
    path
        File of its result (``result_*.pklz``).

    Returns
    -------
    Cost or None
        Without CPU time; without memory unless its resource monitor was on. None if nothing can
        be read.
    """
    try:
        with gzip.open(path) as stream:
            runtime = vars(vars(_Reader(stream).load())["runtime"])
        began, ended = (datetime.fromisoformat(runtime[key]) for key in ("startTime", "endTime"))
        seconds, memory_gib = float(runtime["duration"]), runtime.get("mem_peak_gb")
        memory_gb = None if memory_gib is None else float(memory_gib) * _GB_PER_GIB
    except Exception:  # noqa: BLE001 - half a pickle fails in any way there is
        return None
    if began.tzinfo is None:  # Nipype's clock is UTC's
        began, ended = began.replace(tzinfo=UTC), ended.replace(tzinfo=UTC)
    return Cost(began, seconds, peak_memory_gb=memory_gb) if ended >= began else None


def _with_memory(cost: Cost, noted: Cost | None) -> Cost:
    return replace(cost, peak_memory_gb=noted.peak_memory_gb) if noted else cost


class _Anything:
    """Stands for an object of any class, of which the attributes alone are wanted."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def __setstate__(self, state: object) -> None:
        if isinstance(state, tuple):  # of the dictionary and the slots
            state = state[0]
        if isinstance(state, Mapping):
            self.__dict__.update(state)

    def __call__(self, *_: object, **__: object) -> _Anything:
        return _Anything()

    def __setitem__(self, *_: object) -> None: ...

    def append(self, _: object) -> None: ...

    def extend(self, _: object) -> None: ...

    def add(self, _: object) -> None: ...


class _Reader(pickle.Unpickler):
    """Reads a pickle without importing what is in it, which takes long, or running it."""

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401
        # The resource monitor's figures are NumPy's, of whatever version.
        if (module.startswith("numpy") and name == "scalar") or (module, name) == _DTYPE:
            return super().find_class(module, name)
        return _Anything
