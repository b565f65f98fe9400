"""A run that is killed, again and again, ends with what it would have ended with."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
from apps import make_phantom, run_app
from contents import contents, differences

pytestmark = pytest.mark.integration
SEED = 7


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_phantom(tmp_path_factory.mktemp("killed") / "bids")


def command(dataset, name, n_procs):
    root = dataset.parent
    truth = f"Phantom={dataset / 'derivatives' / 'truth'}"
    return [
        *(dataset, root / name, "participant", "-w", root / f"work-{name}", "--sloppy"),
        *("--n-streamlines", "2000", "--atlases", truth, "--random-seed", "3"),
        *("--connectome-measures", "count", "meanlength", "meanfa", "sift2"),
        *("--nprocs", str(n_procs), "--omp-nthreads", "1"),
    ]


@pytest.fixture(scope="module")
def uninterrupted(dataset):
    done = run_app(*command(dataset, "whole", 2))
    assert done.returncode == 0, done.stdout + done.stderr
    return contents(dataset.parent / "whole")


def kill_after(arguments, seconds):
    """Run the app and kill it without a word; say whether it was still at work."""
    process = subprocess.Popen(
        [sys.executable, "-m", "difftract_bids", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        return True
    return False


def left_behind(out):
    """Hidden files but those that belong there."""
    kept = {".bidsignore", ".participants.lock"}
    return [path for path in out.rglob(".*") if path.name not in kept]


@pytest.mark.parametrize("n_kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_however_often_it_is_killed_the_result_is_that_of_one_run(dataset, uninterrupted, n_kills):
    # Another number of processes, too: results must not depend on it.
    name = f"killed{n_kills}"
    arguments = command(dataset, name, 1)
    moments = random.Random(SEED)  # noqa: S311 - moments, not secrets
    killed = 0
    while killed < n_kills:
        if kill_after(arguments, moments.uniform(1.0, 12.0)):
            killed += 1
        else:
            assert differences(uninterrupted, contents(dataset.parent / name)) == []
            # Nothing is left to be killed in: from the beginning.
            for folder in (name, f"work-{name}"):
                shutil.rmtree(dataset.parent / folder)
    done = run_app(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert differences(uninterrupted, contents(dataset.parent / name)) == []
    assert left_behind(dataset.parent / name) == []


def test_a_run_that_is_told_to_stop_says_so_and_leaves_nothing_half_written(dataset):
    arguments = command(dataset, "stopped", 2)
    with subprocess.Popen(
        [sys.executable, "-m", "difftract_bids", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        for line in process.stdout:
            if "done in" in line:  # the first step that took time
                break
        process.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert time.monotonic() - begun < 20
    assert "stopped by SIGTERM; the same command continues" in said
    assert left_behind(dataset.parent / "stopped") == []
