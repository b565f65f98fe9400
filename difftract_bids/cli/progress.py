"""What the terminal shows: a line for each step that took time, and bars for those that track."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from difftract_bids.bids.labels import labels_of_nodes

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import Task

#: Steps faster than this (copying a file, drawing a table) are not worth a line.
_WORTH_SECONDS = 2.0
_SECONDS_BETWEEN_LOOKS = 0.5


class Progress:
    """Nipype's status callback: tells when steps begin and end.

    Parameters
    ----------
    verbose
        Tell of every step, also of the quick ones.
    """

    def __init__(self, *, verbose: bool = False) -> None:
        self._started: dict[str, float] = {}
        self._least_seconds = 0.0 if verbose else _WORTH_SECONDS

    def __call__(self, node: Any, status: str) -> None:  # noqa: ANN401
        """Take note of a node's ``start``, ``end`` or ``exception``."""
        if status == "start":
            self._started[node.fullname] = time.monotonic()
            return
        seconds = time.monotonic() - self._started.pop(node.fullname, time.monotonic())
        if status == "exception" or seconds >= self._least_seconds:
            outcome = "FAILED" if status == "exception" else "done"
            clock = datetime.now().astimezone().strftime("%H:%M:%S")
            print(f"{clock}  {_title(node.fullname)}: {outcome} in {seconds:.0f} s", flush=True)


class Bars:
    """Bars for the steps that say how far they are, on a terminal; elsewhere nothing.

    A context manager. Steps run in other processes and leave small files in a folder (see
    `difftract_bids.interfaces.progress`); a thread looks at them. Whatever goes wrong with it,
    the run goes on.

    Parameters
    ----------
    scratch_dir
        Folder of all steps' working folders.
    """

    def __init__(self, scratch_dir: Path) -> None:
        self._scratch_dir = scratch_dir
        self._finished = threading.Event()
        self._thread: threading.Thread | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Self:
        # Steps are quick to start and slow to end: the folder must be named before any worker is.
        if sys.stderr.isatty():
            from difftract_bids.interfaces.progress import FOLDER_VARIABLE

            try:
                self._folder = tempfile.TemporaryDirectory(prefix="difftract-progress-")
            except OSError:  # nowhere to write: no bars
                return self
            os.environ[FOLDER_VARIABLE] = self._folder.name
            folder = Path(self._folder.name)
            self._thread = threading.Thread(target=self._draw, args=(folder,), daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._finished.set()
        if self._thread is not None:
            self._thread.join(timeout=5)
        if self._folder is not None:
            from difftract_bids.interfaces.progress import FOLDER_VARIABLE

            os.environ.pop(FOLDER_VARIABLE, None)
            self._folder.cleanup()

    def _draw(self, folder: Path) -> None:
        try:
            with _new_bars() as bars:
                shown: dict[str, Any] = {}
                while not self._finished.wait(_SECONDS_BETWEEN_LOOKS):
                    show_states(bars, shown, folder, self._scratch_dir)
        except Exception:  # noqa: BLE001, S110 - bars are a comfort, and never worth a run
            pass


def show_states(
    bars: RichProgress, shown: dict[str, Any], folder: Path, scratch_dir: Path
) -> None:
    """Bring bars up to date with the files of a folder.

    Parameters
    ----------
    bars
        Where they are drawn.
    shown
        The bar of each file; changed.
    folder
        Where the files are.
    scratch_dir
        Folder of all steps' working folders, which name them.
    """
    states = {path.name: state for path in folder.glob("*.json") if (state := _state_of(path))}
    for name in [name for name in shown if name not in states]:
        bars.remove_task(shown.pop(name))
    for name, state in states.items():
        if name not in shown:
            title = _title_of_folder(Path(state["step"]), scratch_dir)
            shown[name] = bars.add_task(title, total=state["total"], unit=state["unit"])
        bars.update(shown[name], completed=state["done"])


def _state_of(path: Path) -> dict[str, Any] | None:
    """Read the state of a step; none if it is gone, or its process was killed."""
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        os.kill(int(state["pid"]), 0)
        return {key: state[key] for key in ("step", "total", "unit", "done")}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _new_bars() -> RichProgress:
    # Only now: --help must not wait for it.
    from rich.console import Console
    from rich.progress import BarColumn, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress
    from rich.text import Text

    class Figures(ProgressColumn):
        def render(self, task: Task) -> Text:
            of = "" if task.total is None else f" of {task.total:,.0f}"
            rate = "" if task.speed is None else f", {task.speed:,.0f}/s"
            text = f"{task.completed:,.0f}{of} {task.fields['unit']}{rate}"
            return Text(text, no_wrap=True)

    # All of it fits into 80 columns, with a million streamlines.
    bar = BarColumn(bar_width=16)
    columns = (TextColumn("{task.description}"), bar, Figures(), TimeRemainingColumn())
    # What is printed meanwhile goes where it would have gone; a pipe is no place for bars.
    console = Console(stderr=True)
    return RichProgress(
        *columns, console=console, transient=True, redirect_stdout=sys.stdout.isatty()
    )


def _title_of_folder(step: Path, scratch_dir: Path) -> str:
    try:
        parts = step.resolve().relative_to(scratch_dir.resolve()).parts
        # Without the step's own name and its workflow's: the unit says what is counted.
        return _title(".".join(parts[:-2])) or step.name
    except ValueError:
        return step.name


def _title(fullname: str) -> str:
    """Turn ``difftract_wf.sub_01_wf.ses1_wf.fodf_wf.fit`` into ``sub-01 ses1 fodf fit``."""
    parts = [part.removesuffix("_wf") for part in fullname.split(".")[1:]]
    said = " ".join(part.replace("sub_", "sub-") for part in parts if part != "dwi")
    return labels_of_nodes(said)
