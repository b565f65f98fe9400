"""A real SLURM: jobs that end in every way there is, and the whole app by array and by plugin."""

import os
import re
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml
from apps import make_phantom, run_app
from nipype.interfaces.utility import Function
from nipype.pipeline import engine as pe
from slurm import running_slurm

from difftract_bids.cli.outcomes import crashes
from difftract_bids.cli.plugins.batch import make_plugin
from difftract_bids.cli.plugins.plugin_file import PluginChoice, check_for_batch
from difftract_bids.cli.plugins.slurm import clear_queue
from difftract_bids.io.tractograms import read_tractogram

pytestmark = [pytest.mark.integration, pytest.mark.external]
DOCS = Path(__file__).resolve().parents[2] / "docs" / "cluster.md"
CHEAP = [
    *("--n-seeds", "500", "--denoise-method", "none", "--motion-correction", "none"),
    *("--bias-correction", "none", "--response-algorithm", "fa", "--omp-nthreads", "2"),
]
#: Faster than a cluster's controller would like.
QUICK = {"sbatch_args": "--mem=100M", "poll_sleep_duration": 0.3, "retry_timeout": 0.1}


@pytest.fixture(scope="module")
def cluster():
    with running_slurm() as slurm:
        yield slurm


@pytest.fixture(name="slurm")
def _slurm(cluster, monkeypatch):
    """The cluster, in the environment of this process too; no job of another test in its queue."""
    for name, text in cluster.environment.items():
        monkeypatch.setenv(name, text)
    yield cluster
    cluster.run("scancel", "--user=root")
    cluster.wait_until_empty(120)


def step(how="", after=""):  # noqa: ARG001 - only waited for
    """What the jobs do."""
    import os
    import signal
    import time

    if how == "raise":
        raise ValueError("the image is upside down")
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "wait":
        time.sleep(600)
    return how


def graph(folder, **participants):
    """Two steps a participant: the first does what is said, the second comes after it."""
    workflow = pe.Workflow("difftract_wf", base_dir=str(folder))
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    workflow.config["execution"] = {
        "crashdump_dir": str(folder / "logs").replace("%", "%%"),
        "crashfile_format": "txt",
        "create_report": "false",
    }
    for label, how in participants.items():
        own = pe.Workflow(f"sub_{label}_wf")
        first, second = (
            pe.Node(Function(["how", "after"], ["out"], step), name=name)
            for name in ("first", "second")
        )
        first.inputs.how = how
        own.connect(first, "out", second, "after")
        workflow.add_nodes([own])
    return workflow


def run(workflow, name="SLURM", **args):
    plugin = make_plugin(PluginChoice(name, QUICK | args))
    try:
        workflow.run(plugin=plugin)
    finally:
        plugin.end()
    return plugin


def result_of(folder, label, name):
    return folder / "difftract_wf" / f"sub_{label}_wf" / name / f"result_{name}.pklz"


def reasons(folder, *labels):
    return {label: one.reason for label, one in crashes(labels, folder / "logs").items()}


def test_a_job_that_ends_badly_fails_its_participant_with_the_reason_and_no_other(
    slurm, tmp_path, monkeypatch
):
    monkeypatch.delenv("LOGNAME", raising=False)
    monkeypatch.setenv("SQUEUE_STATES", "COMPLETED")  # a habit that hides what runs
    workflow = graph(tmp_path, good="", bad="raise", killed="killed", refused="", idle="")
    for label, own in {"refused": "--mem=99999999", "idle": "-p brief -t 5"}.items():
        workflow.get_node(f"sub_{label}_wf.first").plugin_args = {"sbatch_args": f" {own}"}
    started = time.monotonic()
    with pytest.raises(RuntimeError):
        run(workflow, job_finished_timeout=600)
    assert time.monotonic() - started < 300  # and does not wait for results that cannot come
    told = reasons(tmp_path, "good", "bad", "killed", "refused", "idle")
    assert told["bad"] == "ValueError: the image is upside down"
    assert "was killed, most often for want of memory. It had 100M" in told["killed"]
    assert "--mem in sbatch_args" in told["killed"]
    assert "could not be submitted. sbatch: error: Memory spec" in told["refused"]
    assert re.search(r"never have begun job \d+ \(PartitionTimeLimit\)", told["idle"])
    assert set(told) == {"bad", "killed", "refused", "idle"}
    assert result_of(tmp_path, "good", "second").exists()
    assert not result_of(tmp_path, "bad", "second").exists()
    assert slurm.run("squeue", "--noheader") == ""


@pytest.mark.usefixtures("slurm")
def test_a_job_that_somebody_cancels_fails_at_once_and_says_so(tmp_path):
    workflow = graph(tmp_path, a="wait")
    cancels = subprocess.Popen(
        ["bash", "-c", "until squeue -h -t R | grep -q .; do sleep 0.2; done; scancel -u root"]
    )
    with pytest.raises(RuntimeError):
        run(workflow)
    assert cancels.wait(timeout=30) == 0
    assert re.search(r"SLURM ended job \d+ \(CANCELLED\)", reasons(tmp_path, "a")["a"])


@pytest.mark.usefixtures("slurm")
def test_an_old_result_is_not_taken_for_that_of_a_job_that_did_not_begin(tmp_path):
    run(graph(tmp_path, a=""))
    assert result_of(tmp_path, "a", "first").exists()
    changed = graph(tmp_path, a="other")
    with pytest.raises(RuntimeError):
        run(changed, template="#!/bin/bash\nexit 0", job_finished_timeout=1)
    assert "its result cannot be seen from here" in reasons(tmp_path, "a")["a"]


@pytest.mark.usefixtures("slurm")
def test_a_folder_of_any_name_that_passes_the_check_works_and_runs_nothing(tmp_path):
    folder = tmp_path / "Müller & $(touch broken); 100%j"
    check_for_batch(folder, PluginChoice("SLURM", {}))
    run(graph(folder, a=""))
    assert result_of(folder, "a", "second").exists()
    assert list((folder / "difftract_wf" / "batch").glob("slurm-*.out"))
    assert not list(Path.cwd().glob("slurm-*.out"))
    assert not Path("broken").exists()


def test_what_a_killed_app_left_in_the_queue_is_cancelled_but_not_for_other_participants(
    slurm, tmp_path
):
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path;"
        "from test_slurm import graph, run; run(graph(Path(sys.argv[2]), a='wait', b='wait'))"
    )
    command = [sys.executable, "-c", script, Path(__file__).parent, tmp_path]
    app = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
    end = time.monotonic() + 180
    while len(slurm.run("squeue", "--noheader").splitlines()) < 2:
        assert time.monotonic() < end
        assert app.poll() is None
        time.sleep(0.2)
    app.kill()
    app.wait()
    assert clear_queue(tmp_path, ["a"]) == {}
    (left,) = slurm.run("squeue", "--noheader", "--format=%j").split()
    assert left == "first.sub_b_wf.difftract_wf"


def test_who_is_told_to_stop_leaves_no_job_behind(slurm, tmp_path):
    plugin = make_plugin(PluginChoice("SLURM", QUICK))
    plugin.stopping = StopsAfter(3)
    with pytest.raises(KeyboardInterrupt):
        graph(tmp_path, a="wait").run(plugin=plugin)
    assert slurm.run("squeue", "--noheader") != ""
    plugin.end()
    assert slurm.run("squeue", "--noheader") == ""


class StopsAfter:
    """A signal that comes while jobs wait."""

    def __init__(self, n_looks):
        self.left = n_looks

    def check(self):
        self.left -= 1
        if self.left <= 0:
            raise KeyboardInterrupt


def test_everything_submitted_at_once_is_told_of_the_next_time(slurm, tmp_path):
    def again():
        return run(graph(tmp_path, good="", bad="raise", lost="killed"), name="SLURMGraph")

    submitted = again().submitted
    assert {label: len(jobs) for label, jobs in submitted.items()} == dict.fromkeys(submitted, 2)
    assert set(submitted) == {"good", "bad", "lost"}
    waiting = clear_queue(tmp_path, ["good", "bad", "lost"])
    assert sum(waiting.values()) > 0
    slurm.wait_until_empty(120)  # nor do jobs wait for those that have failed
    assert result_of(tmp_path, "good", "second").exists()
    # What has failed is told, and not tried again before somebody has read it.
    assert again().submitted == {}
    told = reasons(tmp_path, "good", "bad", "lost")
    assert told["bad"] == "ValueError: the image is upside down"
    assert "was killed" in told["lost"]
    assert set(told) == {"bad", "lost"}
    assert set(again().submitted) == {"bad", "lost"}


# --- the whole app


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Two participants; the second one's images hold nothing but a constant."""
    folder = tmp_path_factory.mktemp("two") / "bids"
    small = ("--voxel-size", "6", "--t1w-voxel-size", "4", "--shells", "2000")
    dataset = make_phantom(folder, *small, "--n-subjects", "2")
    path = dataset / "sub-02" / "dwi" / "sub-02_dwi.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.full(image.shape, 7, np.int16), image.affine), path)
    return dataset


@pytest.fixture(scope="module")
def options(dataset):
    return [*CHEAP, "--atlases", f"Phantom={dataset / 'derivatives' / 'truth'}"]


@pytest.fixture(scope="module")
def array(cluster, dataset, options):
    """The documented array as it stands but for paths; the options are a site's own wrapper's."""
    (recipe,) = re.findall(r"```bash\n(#!/bin/bash\n#SBATCH.*?)```", DOCS.read_text(), re.DOTALL)
    folder = dataset.parent / "array"
    folder.mkdir()
    paths = {"/data/bids": dataset, "/data/derivatives": folder, "/scratch": folder / "work"}
    for path, own in paths.items():
        assert path in recipe
        recipe = recipe.replace(path, str(own))
    (folder / "difftract.sh").write_text(recipe)
    (folder / "participants.txt").write_text("01\n02\n")
    wrapper = folder / "difftract-bids"
    command = " ".join(map(str, [sys.executable, "-m", "difftract_bids", '"$@"', *options]))
    wrapper.write_text(f"#!/bin/sh\nexec {command}\n")
    wrapper.chmod(0o755)
    subprocess.run(
        ["sbatch", "--array=1-2%20", "difftract.sh"],
        cwd=folder,
        check=True,
        env=cluster.environment | {"PATH": f"{folder}:{cluster.environment['PATH']}"},
    )
    return folder


@pytest.fixture(scope="module")
def by_array(cluster, array):
    """What the array has left behind, its folder, and its tasks."""
    cluster.wait_until_empty(600)
    return array / "difftract", array, [job for job in cluster.jobs() if "ArrayJobId" in job]


@pytest.fixture(scope="module")
def by_plugin(cluster, array, dataset, options):  # noqa: ARG001 - while that runs
    """The shipped plugin file, with a partition of the site's and a quicker look at the queue."""
    text = (files("difftract_bids.data") / "slurm.yml").read_text(encoding="utf-8")
    text = text.replace("--time=12:00:00", "--time=00:30:00\n    --partition=other")
    text = text.replace("poll_sleep_duration: 5", "poll_sleep_duration: 0.2")
    folder = dataset.parent / "by plugin"
    folder.mkdir()
    (folder / "slurm.yml").write_text(text)
    assert yaml.safe_load(text)["plugin_args"]["poll_sleep_duration"] == 0.2
    before = {job["JobId"] for job in cluster.jobs()}
    done = run_app(
        *(dataset, folder / "out", "participant", *options, "-w", folder / "work"),
        *("--nipype-plugin-file", folder / "slurm.yml"),
        **cluster.environment,
    )
    jobs = [job for job in cluster.jobs() if job["JobId"] not in before]
    jobs = [job for job in jobs if "ArrayJobId" not in job]
    return folder / "out", done, jobs


def test_by_plugin_the_bad_participant_is_named_with_the_reason_and_the_good_one_done(by_plugin):
    _, done, jobs = by_plugin
    assert done.returncode == 1, done.stdout + done.stderr
    assert "sub-01: done" in done.stdout
    assert re.search(r"sub-02: FAILED.*Reason: .*brain", done.stdout)
    assert {job["JobState"] for job in jobs} == {"COMPLETED"}


def test_every_step_was_a_job_that_asked_for_its_own_cpus_and_memory(by_plugin):
    out, _, jobs = by_plugin
    by_name = {job["JobName"]: job for job in jobs if ".sub_01_wf." in job["JobName"]}
    cpus = {name.split(".")[0]: job["NumCPUs"] for name, job in by_name.items()}
    memory = {name.split(".")[0]: job["MinMemoryNode"] for name, job in by_name.items()}
    assert cpus["track"] == cpus["tensor"] == "2"
    assert cpus["plot_fa"] == cpus["build"] == "1"
    assert megabytes(memory["build"]) > megabytes(memory["track"]) > megabytes(memory["tensor"])
    assert all(1000 <= megabytes(text) < 4000 for text in memory.values())
    assert {job["Partition"] for job in jobs} == {"other"}
    assert {job["TimeLimit"] for job in jobs} == {"00:30:00"}
    sinks = [path.name for path in (out.parent / "work").rglob("ds_*") if path.is_dir()]
    assert len(sinks) > 20
    assert not set(sinks) & set(cpus)


def megabytes(text):
    return float(text[:-1]) * {"M": 1, "G": 1024}[text[-1]]


def test_the_documented_array_does_one_participant_and_its_bad_task_fails_for_slurm_too(by_array):
    out, folder, tasks = by_array
    states = {task["ArrayTaskId"]: (task["JobState"], task["ExitCode"]) for task in tasks}
    said = {number: path.read_text() for number, path in enumerate(sorted(folder.glob("*-*.txt")))}
    assert states == {"1": ("COMPLETED", "0:0"), "2": ("FAILED", "1:0")}, said
    assert "sub-01: done" in said[0]
    assert re.search(r"sub-02: FAILED.*Reason: .*brain", said[1])
    assert (out / "sub-01.html").exists()
    assert len(list((out / "logs").glob("*_*/participants.tsv"))) == 2


def test_by_array_and_by_plugin_the_results_are_the_same(by_array, by_plugin):
    here, there = by_array[0] / "sub-01", by_plugin[0] / "sub-01"
    names = listing(here)
    assert listing(there) == names
    matrices = [name for name in names if name.endswith("_relmat.dense.tsv")]
    assert len(matrices) >= 4
    for name in [*matrices, *(name for name in names if name.endswith(("bvec", "dseg.tsv")))]:
        assert (here / name).read_text() == (there / name).read_text(), name
    (tractogram,) = [name for name in names if name.endswith("_tractogram.trx")]
    one, other = read_tractogram(here / tractogram), read_tractogram(there / tractogram)
    assert one.n_streamlines > 50
    np.testing.assert_array_equal(one.offsets, other.offsets)
    np.testing.assert_array_equal(one.points, other.points)
    images = [name for name in names if name.endswith(".nii.gz")]
    assert len(images) > 5
    for name in images:
        both = [np.asarray(nib.load(folder / name).dataobj) for folder in (here, there)]
        np.testing.assert_array_equal(*both, err_msg=name)


def listing(folder):
    """Names of a participant's files."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
