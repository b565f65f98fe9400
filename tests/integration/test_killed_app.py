"""A run that is killed, again and again, ends with what it would have ended with."""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from apps import cores_used, make_phantom, run_app
from contents import contents, differences

pytestmark = pytest.mark.integration
SEED = 7


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_phantom(tmp_path_factory.mktemp("killed") / "bids")


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """A folder on another file system than the working folder, where there is one in memory."""
    memory = Path("/dev/shm")  # noqa: S108 - a folder with a random name of its own
    if not os.access(memory, os.W_OK):
        yield tmp_path_factory.mktemp("elsewhere")
        return
    with tempfile.TemporaryDirectory(prefix="difftract-test-", dir=memory) as name:
        yield Path(name)


def command(dataset, out, n_procs):
    truth = f"Phantom={dataset / 'derivatives' / 'truth'}"
    work = dataset.parent / f"work-{out.name}"
    return [
        *(dataset, out, "participant", "-w", work, "--sloppy"),
        *("--n-streamlines", "2000", "--atlases", truth, "--random-seed", "3"),
        *("--connectome-measures", "count", "meanlength", "meanfa", "sift2"),
        *("--nprocs", str(n_procs), "--omp-nthreads", "1"),
    ]


@pytest.fixture(scope="module")
def uninterrupted(dataset):
    out = dataset.parent / "whole"
    used = cores_used(*command(dataset, out, 1))
    return contents(out), used


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
    kept = {".bidsignore", ".participants.lock", ".dataset.lock"}
    return [path for path in out.rglob(".*") if path.name not in kept]


@pytest.mark.parametrize("n_kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_however_often_it_is_killed_the_result_is_that_of_one_run(
    dataset, uninterrupted, elsewhere, n_kills
):
    # Another number of processes, too, and another file system: results must not depend on them.
    out = elsewhere / f"killed{n_kills}"
    arguments = command(dataset, out, 2)
    moments = random.Random(SEED)  # noqa: S311 - moments, not secrets
    killed = 0
    while killed < n_kills:
        if kill_after(arguments, moments.uniform(1.0, 12.0)):
            killed += 1
        else:
            assert differences(uninterrupted[0], contents(out)) == []
            # Nothing is left to be killed in: from the beginning.
            for folder in (out, dataset.parent / f"work-{out.name}"):
                shutil.rmtree(folder)
    done = run_app(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert differences(uninterrupted[0], contents(out)) == []
    assert left_behind(out) == []
    assert still_at_work(out) == []


def still_at_work(out):
    """Workers of killed runs that nobody ended."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            folder = process.environ().get("NIPYPE_CONFIG_DIR", "")
            if "difftract_bids.cli.tethered" in " ".join(process.cmdline()) and str(out) in folder:
                found.append(process.pid)
    return found


def test_one_process_of_one_thread_takes_one_cpu(uninterrupted):
    # The process that hands out the steps waits most of the time.
    assert 0.1 < uninterrupted[1] < 1.15


def test_who_has_switched_a_signal_off_is_not_stopped_by_it():
    # As nohup does, before somebody logs out.
    code = (
        "import os, signal\n"
        "from difftract_bids.cli.stopping import Stopped, stopping\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "with stopping():\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "    except Stopped as stopped:\n"
        "        print(stopped, stopped.exit_code)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "SIGTERM 143\n"


def test_a_run_that_is_told_to_stop_says_so_and_leaves_nothing_half_written(dataset):
    arguments = command(dataset, dataset.parent / "stopped", 2)
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
