"""A worker that the system kills must not leave the app waiting."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.integration

SCRIPT = """
import multiprocessing, sys
from nipype.interfaces.utility import Function
from nipype.pipeline import engine as pe
from difftract_bids.cli.plugin import SafeMultiProcPlugin

def die():
    import os, signal
    os.kill(os.getpid(), signal.SIGKILL)

def live(path):
    open(path, "w").close()

if __name__ == "__main__":
    multiprocessing.set_start_method("forkserver", force=True)
    workflow = pe.Workflow("wf", base_dir=sys.argv[1])
    node = pe.Node(Function(function=die, output_names=[]), name="die")
    other = pe.Node(Function(function=live, output_names=[]), name="live")
    other.inputs.path = sys.argv[1] + "/alive"
    workflow.add_nodes([node, other])
    plugin = SafeMultiProcPlugin(plugin_args={"n_procs": 1, "mp_context": "forkserver"})
    try:
        workflow.run(plugin=plugin)
    except Exception as error:
        print("told:", error)
"""


def test_a_killed_worker_fails_its_step_with_a_hint_and_no_other(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py", tmp_path],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert "A step's process was killed" in done.stdout.split("told:")[1], done.stderr
    assert (tmp_path / "alive").exists()
