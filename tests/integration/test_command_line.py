"""The command line at its edges: help, versions, exit codes."""

import resource

import pytest
from apps import run_app
from datasets import write_dataset

from difftract_bids import __version__

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_answer_at_once(option):
    seconds = []  # of CPU: what else the machine does is no fault of the app
    for _ in range(3):
        start = cpu_seconds()
        done = run_app(option)
        seconds.append(cpu_seconds() - start)
        assert done.returncode == 0
    assert __version__ in done.stdout or "usage: difftract-bids" in done.stdout
    assert min(seconds) < 1.0


def cpu_seconds():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere", "out", "participant"], "no such dataset folder"),
        (["bids", "out", "participant", "--participant-label", "77"], "77"),
        (["bids", "out", "participant", "--step-size", "-1"], "step_size_mm"),
        (["bids", "out", "participant", "--lmax", "7"], "even number"),
        (["bids", "out", "group"], "no such folder of derivatives"),
        (["bids", "out", "participant", "--fodf-model", "msmtcsd"], "cannot be told apart"),
        (["bids", "out", "participant", "--response", "none.txt"], "none.txt"),
        (["bids", "out", "participant", "--atlases", "X=nowhere"], "atlas X"),
        (["bids", "bids/sub-01/out", "participant"], "raw data"),
        (["bids", "out", "participant", "--config-file", "none.toml"], "none.toml"),
    ],
)
def test_unusable_arguments_end_with_2_one_message_and_nothing_written(
    tmp_path, monkeypatch, arguments, said
):
    write_dataset(tmp_path / "bids")
    monkeypatch.chdir(tmp_path)
    done = run_app(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "remedy:" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("out/*"))
    assert not list(tmp_path.glob("bids/sub-01/out"))
