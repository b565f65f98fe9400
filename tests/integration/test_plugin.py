"""Steps as processes: within CPUs, memory and the one GPU; and what is left when one is killed."""

import subprocess
import sys
import time

import psutil
import pytest

pytestmark = pytest.mark.integration

SCRIPT = """
import multiprocessing, sys
from pathlib import Path
from nipype.interfaces.base import CommandLine
from nipype.interfaces.utility import Function
from nipype.pipeline import engine as pe
from difftract_bids.cli.plugins.multiproc import SafeMultiProcPlugin

def die(path):
    import os, signal, time
    # The step beside this one is at work, and what it wrote has left its process.
    while not (os.path.exists(path) and os.path.getsize(path)):
        time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGKILL)

def live(path, use_gpu=False):
    import time
    with open(path, "a") as stream:
        stream.write("begun ")
    begun = time.time()
    time.sleep(4 if "beside" in path else 1)
    with open(path, "a") as stream:
        stream.write("ended ")
    with open(path + ".times", "w") as stream:
        stream.write(f"{begun} {time.time()}")

if __name__ == "__main__":
    multiprocessing.set_start_method("forkserver", force=True)
    multiprocessing.set_forkserver_preload(["difftract_bids.cli.tethered"])
    workflow = pe.Workflow("wf", base_dir=sys.argv[1])
    memory_gb = float(sys.argv[2])
    for name in sys.argv[3:]:
        one = Function(function=die if name == "die" else live, output_names=[])
        if name == "program":
            one = CommandLine(command="sleep", args="4242", terminal_output="none")
        node = pe.Node(one, name=name, mem_gb=3.5)
        if name == "die":
            node.inputs.path = f"{sys.argv[1]}/beside"
        elif name != "program":
            node.inputs.path = f"{sys.argv[1]}/{name}"
            node.inputs.use_gpu = name.startswith("gpu")
        workflow.add_nodes([node])
    args = {"n_procs": 2, "mp_context": "forkserver", "memory_gb": memory_gb, "n_gpu_procs": 1}
    args["raise_insufficient"] = False
    plugin = SafeMultiProcPlugin(plugin_args=args, folder=Path(sys.argv[1]))
    try:
        workflow.run(plugin=plugin)
    except Exception as error:
        print("told:", error)
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return [sys.executable, path, tmp_path]


def test_a_killed_worker_fails_its_step_with_a_hint_and_no_other(script, tmp_path):
    steps = ["8", "die", "beside"]
    done = subprocess.run(
        [*script, *steps], capture_output=True, text=True, check=False, timeout=120
    )
    told = done.stdout.split("told:")[1]
    assert "A step's process was killed" in told, done.stderr
    assert "3.5 GB" in told
    assert "--low-mem" in told
    # The step beside it was ended with the pool, through no fault of its own, and began again.
    assert (tmp_path / "beside").read_text() == "begun begun ended "
    crashes = [path.name for path in tmp_path.parent.glob("**/crash-*")]
    assert not any("beside" in name for name in crashes)


def test_workers_and_their_programs_end_with_the_app_even_if_it_is_killed(script, tmp_path):
    with subprocess.Popen([*script, "8", "beside", "program"]) as process:
        app = psutil.Process(process.pid)
        until(lambda: (tmp_path / "beside").exists() and sleeping(app))
        workers = app.children(recursive=True)
        assert len(workers) >= 4  # the server that forks, two that work, and what one has started
        process.kill()
    until(lambda: not any(alive(worker) for worker in workers))
    assert (tmp_path / "beside").read_text() == "begun "


def sleeping(app):
    return any("4242" in child.cmdline() for child in app.children(recursive=True))


def test_what_goes_wrong_around_a_step_fails_it_and_nobody_waits(script, tmp_path):
    # As on a full disk: the step cannot even have a folder.
    (tmp_path / "wf").mkdir()
    (tmp_path / "wf" / "a").write_text("a file")
    done = subprocess.run(
        [*script, "8", "a", "b"], capture_output=True, text=True, check=False, timeout=120
    )
    assert "told:" in done.stdout, done.stderr
    assert (tmp_path / "b").read_text() == "begun ended "


def alive(process):
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("memory_gb", "steps", "at_once"),
    [
        (8, ("a", "b"), True),
        (5, ("a", "b"), False),  # each takes 3.5
        (1, ("a", "b"), False),  # each takes more than there is, and all of it
        (8, ("gpu_a", "gpu_b"), False),
        (8, ("gpu_a", "b"), True),
    ],
)
def test_steps_share_memory_and_the_gpu(script, tmp_path, memory_gb, steps, at_once):
    subprocess.run([*script, str(memory_gb), *steps], check=True, timeout=120)
    times = [(tmp_path / f"{step}.times").read_text().split() for step in steps]
    (first_begun, first_ended), (second_begun, second_ended) = sorted(
        (float(begun), float(ended)) for begun, ended in times
    )
    assert first_begun < second_begun < second_ended
    assert (second_begun < first_ended) == at_once
