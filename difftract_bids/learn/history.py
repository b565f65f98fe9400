"""What is written down of each step: a table, and TensorBoard's event files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from difftract_bids.io.aside import explained
from difftract_bids.io.atomic import write_text_atomic

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

#: The losses, as `LossConfig` names them; each has a column, and one more for validation.
LOSSES = (
    "fodf",
    "points",
    "directions",
    "ends",
    "survival",
    "connectome_relative",
    "connectome_log",
    "connectome_correlation",
    "density",
)
#: What the table says of each step. Losses are not weighted, totals are. Growth is that of the
#: propagator's derivatives, see `GradientReport`; what a step does not have is ``n/a``.
COLUMNS = (
    "step",
    "total",
    *LOSSES,
    "learning_rate",
    "gradient_norm",
    "n_streamlines",
    "n_compared",
    "growth_median",
    "growth_p99",
    "growth_worst",
    "n_bounded",
    "seconds",
    "validation_total",
    *(f"validation_{name}" for name in LOSSES),
)


class Listener(Protocol):
    """What is told how a training goes."""

    def begun(self, step: int, n_steps: int) -> None:
        """Take note that training begins, or goes on, after ``step`` of ``n_steps`` steps."""

    def stepped(self, step: int, values: Mapping[str, float]) -> None:
        """Take note of a step, and of what `COLUMNS` say of it."""

    def told(self, line: str) -> None:
        """Take note of something a user should read."""


class Silence:
    """A `Listener` that tells nobody."""

    def begun(self, step: int, n_steps: int) -> None:
        """Do nothing."""

    def stepped(self, step: int, values: Mapping[str, float]) -> None:
        """Do nothing."""

    def told(self, line: str) -> None:
        """Do nothing."""


class History:
    """The table ``history.tsv`` and the folder ``logs`` of a training; a context manager.

    Parameters
    ----------
    folder
        Folder of the training.
    step
        Steps already taken, ``None`` before the first validation: what was written of later ones,
        by a run that did not come to a checkpoint, is dropped, as they are taken again.

    Raises
    ------
    DifftractError
        If nothing can be written there.
    """

    def __init__(self, folder: Path, step: int | None) -> None:
        self.path = folder / "history.tsv"
        self._logs = folder / "logs"
        self._writer: SummaryWriter | None = None
        self._first = 0 if step is None else step + 1
        rows = _rows_until(self.path, step)
        with explained(self.path):
            write_text_atomic(self.path, "".join(["\t".join(COLUMNS) + "\n", *rows]))

    def __enter__(self) -> Self:
        from torch.utils.tensorboard import SummaryWriter  # a second, which tests need not wait

        self._writer = SummaryWriter(self._logs, purge_step=self._first)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._writer is not None:
            self._writer.close()

    def add(self, values: Mapping[str, float]) -> None:
        """Write a row.

        Parameters
        ----------
        values
            What `COLUMNS` say of a step, ``step`` among them; what is left out is ``n/a``.

        Raises
        ------
        DifftractError
            If it cannot be written.
        """
        with explained(self.path), self.path.open("a", encoding="utf-8") as stream:
            stream.write("\t".join(_cell(values.get(name)) for name in COLUMNS) + "\n")
        if self._writer is None:
            return
        step = int(values["step"])
        for name in COLUMNS[1:]:
            if name in values and math.isfinite(values[name]):
                self._writer.add_scalar(_tag(name), values[name], step)
        if "validation_total" in values:
            self._writer.flush()


def _tag(name: str) -> str:
    """Name a column as TensorBoard groups them."""
    if name.startswith("validation_"):
        return f"validation/{name.removeprefix('validation_')}"
    return f"{'training' if name in {'total', *LOSSES} else 'step'}/{name}"


def _cell(value: float | None) -> str:
    if value is None:
        return "n/a"
    return str(value) if isinstance(value, int) else f"{value:.7g}"


def _rows_until(path: Path, step: int | None) -> list[str]:
    """Read the rows of steps already taken; a row that a killed run wrote half is left out."""
    if step is None or not path.is_file():
        return []
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)[1:]:
        cells = line.split("\t")
        whole = line.endswith("\n") and len(cells) == len(COLUMNS) and cells[0].isdecimal()
        if whole and int(cells[0]) <= step:
            kept.append(line)
    return kept
