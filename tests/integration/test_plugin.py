"""Steps as processes: within CPUs, memory and the one GPU; and what is left when one is killed."""

import subprocess
import sys
import time

import psutil
import pytest

pytestmark = pytest.mark.integration

SCRIPT = """
import multiprocessing, sys, time
from concurrent.futures import ProcessPoolExecutor
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

def beside(path):
    import os, time
    first = not os.path.exists(path)
    with open(path, "a") as stream:
        stream.write("begun ")
    if first:
        time.sleep(600)  # it is killed before, however slow the machine
    with open(path, "a") as stream:
        stream.write("ended ")

def live(path, beside=None, use_gpu=False):
    import os, time
    begun = time.time()
    with open(path, "a") as stream:
        stream.write("begun ")
    # Two that can run at once wait for each other; others take as long as one needs to begin.
    end = time.monotonic() + (60 if beside else 1)
    while time.monotonic() < end and not (beside and os.path.exists(beside)):
        time.sleep(0.05)
    with open(path, "a") as stream:
        stream.write("ended ")
    with open(path + ".times", "w") as stream:
        stream.write(f"{begun} {time.time()}")

def begin_slowly(pool, begin=ProcessPoolExecutor._adjust_process_count):
    time.sleep(0.5)
    begin(pool)

if __name__ == "__main__":
    # As on a busy machine: the pool has looked at its processes before the next one is there.
    ProcessPoolExecutor._adjust_process_count = begin_slowly
    multiprocessing.set_start_method("forkserver", force=True)
    multiprocessing.set_forkserver_preload(["difftract_bids.cli.tethered"])
    workflow = pe.Workflow("wf", base_dir=sys.argv[1])
    memory_gb = float(sys.argv[2])
    # "+a" "+b": steps that wait for each other.
    names = [name.removeprefix("+") for name in sys.argv[3:]]
    for name in names:
        one = Function(function={"die": die, "beside": beside}.get(name, live), output_names=[])
        if name == "program":
            one = CommandLine(command="sleep", args="4242", terminal_output="none")
        node = pe.Node(one, name=name, mem_gb=3.5)
        if name in ("die", "beside"):
            node.inputs.path = f"{sys.argv[1]}/beside"
        elif name != "program":
            node.inputs.path = f"{sys.argv[1]}/{name}"
            node.inputs.use_gpu = name.startswith("gpu")
            if f"+{name}" in sys.argv:
                node.inputs.beside = f"{sys.argv[1]}/{names[1 - names.index(name)]}"
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


@pytest.mark.parametrize("steps", [("die", "beside"), ("beside", "die")])
def test_a_killed_worker_fails_its_step_with_a_hint_and_no_other(script, tmp_path, steps):
    done = subprocess.run(
        [*script, "8", *steps], capture_output=True, text=True, check=False, timeout=240
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
        until(lambda: written(tmp_path / "beside") and sleeping(app))
        workers = app.children(recursive=True)
        assert len(workers) >= 4  # the server that forks, two that work, and what one has started
        process.kill()
    until(lambda: not any(alive(worker) for worker in workers))
    assert (tmp_path / "beside").read_text() == "begun "


def written(path):
    return path.exists() and path.stat().st_size > 0


def sleeping(app):
    return any("4242" in child.cmdline() for child in app.children(recursive=True))


def test_what_goes_wrong_around_a_step_fails_it_and_nobody_waits(script, tmp_path):
    # As on a full disk: the step cannot even have a folder.
    (tmp_path / "wf").mkdir()
    (tmp_path / "wf" / "a").write_text("a file")
    done = subprocess.run(
        [*script, "8", "a", "b"], capture_output=True, text=True, check=False, timeout=240
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
    waiting = [f"+{step}" for step in steps] if at_once else steps
    subprocess.run([*script, str(memory_gb), *waiting], check=True, timeout=240)
    times = [(tmp_path / f"{step}.times").read_text().split() for step in steps]
    (first_begun, first_ended), (second_begun, second_ended) = sorted(
        (float(begun), float(ended)) for begun, ended in times
    )
    assert first_begun < second_begun < second_ended
    assert (second_begun < first_ended) == at_once
