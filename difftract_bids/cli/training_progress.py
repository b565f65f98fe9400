"""What the terminal shows of a training: a bar there, and plain lines in a log."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

    from difftract_bids.learn.history import Listener


class Lines:
    """A `Listener` that prints a line for each validation."""

    def __init__(self) -> None:
        self._n_steps = 0
        self._seconds: list[float] = []

    def begun(self, step: int, n_steps: int) -> None:
        """Say where training begins, or goes on."""
        self._n_steps = n_steps
        self._say(f"Goes on after step {step} of {n_steps}." if step else f"{n_steps} steps.")

    def stepped(self, step: int, values: Mapping[str, float]) -> None:
        """Say how the last steps went, where there was a validation."""
        self._seconds.append(values.get("seconds", 0.0))
        if "validation_total" in values:
            self._say(f"step {step} of {self._n_steps}: {self._said_of(values)}")
            self._seconds = []

    def told(self, line: str) -> None:
        """Print it."""
        self._say(line)

    def _said_of(self, values: Mapping[str, float]) -> str:
        said = [f"validation {values['validation_total']:.4g}"]
        if "total" in values:
            mean = sum(self._seconds) / len(self._seconds)
            said = [f"loss {values['total']:.4g}", *said, f"{mean:.2g} s a step"]
        return ", ".join(said)

    def _say(self, line: str) -> None:
        print(line, flush=True)


class Bar(Lines):
    """A `Listener` that draws a bar as well.

    Parameters
    ----------
    progress
        Where it is drawn.
    """

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._progress = progress
        self._task = progress.add_task("Training", total=None)

    def begun(self, step: int, n_steps: int) -> None:
        """Begin the bar where training is."""
        super().begun(step, n_steps)
        self._progress.update(self._task, total=n_steps, completed=step)

    def stepped(self, step: int, values: Mapping[str, float]) -> None:
        """Move the bar on."""
        loss = f"Training, loss {values['total']:.4g}" if "total" in values else "Training"
        self._progress.update(self._task, completed=step, description=loss)
        super().stepped(step, values)

    def _say(self, line: str) -> None:
        self._progress.console.print(line, markup=False, highlight=False)


@contextmanager
def listener() -> Iterator[Listener]:
    """Give what tells a user how training goes: on a terminal a bar, elsewhere lines."""
    if not sys.stdout.isatty():
        yield Lines()
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, transient=True) as progress:
        yield Bar(progress)
