"""Bars on the terminal: what is drawn, and that they never break a run."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress as RichProgress

from difftract_bids.cli.progress import Bars, _new_bars, show_states
from difftract_bids.interfaces import progress
from difftract_bids.interfaces.progress import FOLDER_VARIABLE, ProgressFile

SCRATCH = Path("/scratch")
STEP = "/scratch/difftract_wf/sub_01_wf/ses1_wf/tracking_wf/track"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    return tmp_path


def read(folder):
    return [json.loads(path.read_text()) for path in folder.glob("*.json")]


def test_a_step_says_how_far_it_is_until_it_ends(folder, monkeypatch):
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN", 0.0)
    with ProgressFile(STEP, 100, "streamlines") as file:
        file.update(40)
        (state,) = read(folder)
        assert (state["done"], state["total"], state["unit"]) == (40, 100, "streamlines")
    assert list(folder.iterdir()) == []


def test_it_is_written_at_most_twice_a_second(folder):
    with ProgressFile(STEP, 100, "streamlines") as file:
        for done in range(1000):
            file.update(done)
        assert read(folder)[0]["done"] == 0


def test_nothing_is_written_where_nobody_looks(tmp_path, monkeypatch):
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    with ProgressFile(STEP, 100, "streamlines") as file:
        file.update(1)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_has_gone_does_not_stop_a_step(folder, monkeypatch):
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN", 0.0)
    with ProgressFile(STEP, 100, "streamlines") as file:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        file.update(3)


def write_state(folder, name="1.json", **changes):
    state = {"step": STEP, "total": 200, "unit": "streamlines", "done": 50, "pid": os.getpid()}
    (folder / name).write_text(json.dumps(state | changes))


def test_each_step_has_a_bar_with_its_name_while_it_lasts(tmp_path):
    bars, shown = RichProgress(console=Console(file=io.StringIO())), {}
    write_state(tmp_path)
    show_states(bars, shown, tmp_path, SCRATCH)
    (task,) = bars.tasks
    assert (task.description, task.completed, task.total) == (
        "sub-01 ses1",
        50,
        200,
    )
    write_state(tmp_path, done=120)
    show_states(bars, shown, tmp_path, SCRATCH)
    assert [task.completed for task in bars.tasks] == [120]
    (tmp_path / "1.json").unlink()
    show_states(bars, shown, tmp_path, SCRATCH)
    assert bars.tasks == []


def test_what_a_killed_process_or_a_half_written_file_says_is_not_drawn(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    write_state(tmp_path, pid=process.pid)
    (tmp_path / "2.json").write_text("{")
    (tmp_path / "3.json").write_text("[]")
    bars, shown = RichProgress(console=Console(file=io.StringIO())), {}
    show_states(bars, shown, tmp_path, SCRATCH)
    assert shown == {}


def test_a_bar_shows_number_and_what_is_counted(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with _new_bars() as bars:
        bars.add_task("sub-01", total=2_000_000, completed=1_500, unit="streamlines")
        bars.refresh()
    assert "1,500 of 2,000,000 streamlines" in terminal.getvalue()


def test_without_a_terminal_there_is_nothing_at_all(tmp_path, monkeypatch):
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with Bars(tmp_path):
        assert FOLDER_VARIABLE not in os.environ
    assert sys.stderr.getvalue() == ""


def test_on_a_terminal_steps_are_told_where_to_write_and_it_is_gone_afterwards(
    tmp_path, monkeypatch
):
    monkeypatch.setenv(FOLDER_VARIABLE, "before")
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr("difftract_bids.cli.progress._SECONDS_BETWEEN_LOOKS", 0.01)
    with Bars(tmp_path) as bars:
        folder = Path(os.environ[FOLDER_VARIABLE])
        assert folder.is_dir()
        bars._thread.join(0.2)
        assert bars._thread.is_alive()
    assert not folder.exists()


def test_a_failure_to_draw_does_not_reach_the_run(tmp_path, monkeypatch):
    def fail():
        raise ValueError

    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv(FOLDER_VARIABLE, "before")
    monkeypatch.setattr("difftract_bids.cli.progress._new_bars", fail)
    with Bars(tmp_path):
        pass
