"""Plugin files: what is taken from them, what is refused before anything starts, and why."""

import os
import stat
from importlib.resources import files

import nipype.pipeline.plugins as nipype_plugins
import pytest
from nipype.interfaces.base import BaseInterface, TraitedSpec
from nipype.interfaces.utility import Function
from nipype.pipeline import engine as pe
from nipype.pipeline.plugins.slurmgraph import SLURMGraphPlugin

from difftract_bids.cli.outcomes import crashes
from difftract_bids.cli.plugins import plugin_file
from difftract_bids.cli.plugins.batch import make_plugin, wait_for
from difftract_bids.cli.plugins.batch_resources import FOOTPRINT_GB, memory_mb
from difftract_bids.cli.plugins.plugin_file import (
    PluginChoice,
    ask_for_resources,
    check_for_batch,
    read_plugin,
)
from difftract_bids.cli.plugins.sbatch_options import sbatch_options
from difftract_bids.errors import UsageError
from difftract_bids.interfaces.threads import ThreadedSpec


def read(tmp_path, text):
    path = tmp_path / "plugin.yml"
    path.write_text(text)
    return read_plugin(path)


def test_the_shipped_file_is_one_of_slurm_and_leaves_cpus_and_memory_to_the_steps():
    choice = read_plugin(files("difftract_bids.data") / "slurm.yml")
    assert choice.name == "SLURM"
    assert not choice.is_local
    options = sbatch_options(choice.args["sbatch_args"], "")
    assert not {"mem", "cpus-per-task"} & set(options)


def test_every_plugin_of_nipype_is_known():
    theirs = {name for name in dir(nipype_plugins) if name.endswith("Plugin")}
    known = {*plugin_file._ARGS, *plugin_file._UNUSABLE}
    assert {f"{name}Plugin" for name in known} == theirs


@pytest.mark.parametrize("name", ["MultiProc", "LegacyMultiProc"])
def test_what_a_local_plugin_may_take_is_taken_over(tmp_path, name):
    text = f"plugin: {name}\nplugin_args: {{n_procs: 3, memory_gb: 7.5, maxtasksperchild: 1}}"
    choice = read(tmp_path, text)
    assert choice.is_local
    assert (choice.name, choice.n_procs, choice.memory_gb) == ("MultiProc", 3, 7.5)


def test_a_plugin_needs_no_arguments(tmp_path):
    assert read(tmp_path, "plugin: Linear\nplugin_args:\n").args == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("plugin: [", "not YAML"),
        ("just words", "names no plugin"),
        ("- plugin: SLURM", "names no plugin"),
        ("plugin_args: {n_procs: 2}", "names no plugin"),
        ("plugin: Slurm", "no plugin Slurm"),
        ("plugin: [SLURM]", "no plugin ['SLURM']"),
        ("plugin: SGEGraph", "use SGE"),
        ("plugin: SLURM\nplugin_arg: {}", "unknown: plugin_arg"),
        ("plugin: SLURM\nplugin_args: [a]", "no mapping"),
        ("plugin: SLURM\nplugin_args: ''", "no mapping"),
        ("plugin: SLURM\nplugin_args: {sbatch_arg: -p long}", "SLURM has no argument sbatch_arg"),
        ("plugin: SLURM\nplugin_args: {n_procs: 4}", "SLURM has no argument n_procs"),
        ("plugin: SLURM\nplugin_args: {sbatch_args: [-p, long]}", "sbatch_args: ['-p', 'long']"),
        ('plugin: SLURM\nplugin_args: {sbatch_args: "-J \'a"}', "cannot be told apart"),
        ("plugin: SLURM\nplugin_args: {sbatch_args: --array=1-3}", "--array"),
        ("plugin: SLURM\nplugin_args: {sbatch_args: -W}", "--wait"),
        ("plugin: SLURM\nplugin_args: {template: nowhere.sh}", "no such template: nowhere.sh"),
        ("plugin: SLURM\nplugin_args: {max_jobs: 0}", "max_jobs: 0"),
        ("plugin: SLURM\nplugin_args: {max_jobs: yes}", "max_jobs: True"),
        ("plugin: MultiProc\nplugin_args: {memory_gb: -1}", "memory_gb: -1"),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_remedy(tmp_path, text, said):
    with pytest.raises(UsageError) as caught:
        read(tmp_path, text)
    assert said in str(caught.value)
    assert caught.value.remedy
    assert "plugin.yml" in str(caught.value)


def test_an_unknown_plugin_is_answered_with_those_that_there_are(tmp_path):
    with pytest.raises(UsageError, match=r"MultiProc, .*SLURM, SLURMGraph, .*Debug"):
        read(tmp_path, "plugin: Dask")


def test_nothing_in_a_file_is_run(tmp_path):
    text = f"plugin: !!python/object/apply:os.mkdir ['{tmp_path}/made']"
    with pytest.raises(UsageError, match="not YAML"):
        read(tmp_path, text)
    assert not (tmp_path / "made").exists()


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        read_plugin(tmp_path / "none.yml")


def test_a_template_lies_beside_the_file_or_in_it(tmp_path):
    (tmp_path / "head.sh").write_text("#!/bin/bash\nmodule load fsl\n")
    beside = read(tmp_path, "plugin: SLURM\nplugin_args: {template: head.sh}")
    within = read(tmp_path, 'plugin: SLURM\nplugin_args: {template: "#!/bin/sh\\ntrue"}')
    assert beside.args["template"] == "#!/bin/bash\nmodule load fsl\n"
    assert within.args["template"] == "#!/bin/sh\ntrue"


def test_a_template_that_sbatch_would_refuse_is_refused_first(tmp_path):
    (tmp_path / "head.sh").write_text("module load fsl\n")
    with pytest.raises(UsageError, match="does not begin with #!"):
        read(tmp_path, "plugin: SLURM\nplugin_args: {template: head.sh}")
    (tmp_path / "head.sh").write_text("#!/bin/bash\n#SBATCH --array=1-3\n")
    with pytest.raises(UsageError, match="--array"):
        read(tmp_path, "plugin: SLURM\nplugin_args: {template: head.sh}")


# --- sbatch's options


@pytest.mark.parametrize(
    ("arguments", "template", "found"),
    [
        ("--mem=4G -c 2", "", {"mem": "4G", "cpus-per-task": "2"}),
        ("-c2 --mem 4G", "", {"mem": "4G", "cpus-per-task": "2"}),
        ("--cpus-per-t=2", "", {"cpus-per-task": "2"}),
        ("--mem-per-cpu 1G\n--output='a b'", "", {"mem-per-cpu": "1G", "output": "a b"}),
        ("", "#!/bin/bash\n#SBATCH --mem=4G  # enough\n", {"mem": "4G"}),
        ("", "#!/bin/bash\nmodule load x\n#SBATCH --mem=4G\n", {}),
        ("--mem=1G", "#!/bin/bash\n#SBATCH --mem=4G\n", {"mem": "1G"}),
        ("-p long --account=neuro-ops", "", {}),
    ],
)
def test_options_are_found_as_sbatch_reads_them(arguments, template, found):
    options = sbatch_options(arguments, template)
    assert {name: options[name] for name in found} == found
    watched = {"mem", "mem-per-cpu", "cpus-per-task", "output"}
    assert set(options) & watched == set(found)


# --- what each step asks for


class Computes(BaseInterface):
    input_spec, output_spec = ThreadedSpec, TraitedSpec


class OnGpu(Computes):
    class input_spec(ThreadedSpec):  # noqa: N801 - Nipype's name
        use_gpu = True


def workflow_of_three():
    inner = pe.Workflow("inner")
    inner.add_nodes([pe.Node(Computes(), name="big", n_procs=4, mem_gb=3.0)])
    workflow = pe.Workflow("outer")
    small = pe.Node(Function([], ["out"], workflow_of_three), name="small", mem_gb=0.1)
    workflow.add_nodes([inner, small, pe.Node(OnGpu(), name="gpu", n_procs=2, mem_gb=2.0)])
    return workflow


def asked(workflow):
    names = {"big": "inner.big", "small": "small", "gpu": "gpu"}
    args = {name: workflow.get_node(path).plugin_args for name, path in names.items()}
    return {name: own["sbatch_args"].split() for name, own in args.items()}


def test_each_step_asks_for_the_cpus_it_uses_and_its_memory_with_the_interpreters():
    workflow = workflow_of_three()
    ask_for_resources(workflow, PluginChoice("SLURM", {"sbatch_args": "-p long"}))
    assert asked(workflow) == {
        "big": ["--cpus-per-task=4", f"--mem={memory_mb(3.0)}M"],
        "small": ["--cpus-per-task=1", "--mem=1024M"],
        "gpu": ["--cpus-per-task=2", f"--mem={memory_mb(2.0)}M", "--gres=gpu:1"],
    }
    assert memory_mb(3.0) == pytest.approx(1024 * (3 + FOOTPRINT_GB), abs=1)


@pytest.mark.parametrize(
    "args",
    [
        {"sbatch_args": "--mem=4G --cpus-per-task=2 --gres=gpu:a100:1"},
        {"template": "#!/bin/bash\n#SBATCH --mem-per-cpu=2G -c2 -G 1\n"},
    ],
)
def test_what_the_user_asks_for_is_kept_and_no_step_uses_more_threads(args):
    workflow = workflow_of_three()
    ask_for_resources(workflow, PluginChoice("SLURM", args))
    assert PluginChoice("SLURM", args).cpus_a_step == 2
    assert asked(workflow) == {"big": [], "small": [], "gpu": []}
    big = workflow.get_node("inner.big")
    assert big.n_procs == big.inputs.num_threads == 2
    assert workflow.get_node("small").n_procs == 1


def test_slurmgraph_would_join_arguments_without_a_space():
    workflow = workflow_of_three()
    choice = PluginChoice("SLURMGraph", {"sbatch_args": "-p long"})
    ask_for_resources(workflow, choice)
    theirs = SLURMGraphPlugin(plugin_args=choice.args)
    (joined,) = theirs._get_args(workflow.get_node("small"), ["sbatch_args"])
    assert joined.split() == ["-p", "long", "--cpus-per-task=1", "--mem=1024M"]


def test_other_systems_are_not_asked_in_slurms_words():
    workflow = workflow_of_three()
    ask_for_resources(workflow, PluginChoice("SGE", {}))
    assert workflow.get_node("small").plugin_args == {}


# --- before anything starts


def program(folder, name, text):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A folder of programs that answers instead of a batch system."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for name in ("sbatch", "squeue", "scontrol", "scancel", "qsub", "qstat"):
        program(folder, name, "exit 0")
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize(
    ("plugin", "path", "is_fine"),
    [
        ("SLURM", "Müller & $(rm x); 100%", True),
        ("SLURM", "o'clock", False),
        ("SLURMGraph", "a\\b", False),
        ("SLURM", "run[1]", False),
        ("SGE", "müller_1.2-x", True),
        ("SGE", "my work", False),
        ("PBS", "a;b", False),
        ("PBS", "100%j", False),
        ("Linear", "o'clock [1]", True),
    ],
)
def test_a_working_folder_that_nipype_or_a_shell_would_stumble_on_is_refused(
    tmp_path, plugin, path, is_fine
):
    choice = PluginChoice(plugin, {})
    if is_fine:
        check_for_batch(tmp_path / path, choice)
    else:
        with pytest.raises(UsageError, match="cannot work in a folder") as caught:
            check_for_batch(tmp_path / path, choice)
        assert "--work-dir" in caught.value.remedy


def test_where_no_job_can_be_submitted_nothing_starts(tmp_path, monkeypatch, programs):
    program(programs, "squeue", "echo slurm_load_jobs error: Unable to contact >&2; exit 1")
    with pytest.raises(UsageError, match="SLURM does not answer: slurm_load_jobs"):
        check_for_batch(tmp_path, PluginChoice("SLURM", {}))
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UsageError, match="SLURM needs sbatch, squeue, scontrol, scancel"):
        check_for_batch(tmp_path, PluginChoice("SLURM", {}))


# --- Nipype's other plugins


def fails(how):
    """What the job does."""
    import os

    if how == "killed":
        os.kill(os.getpid(), 9)
    return how


def test_a_killed_job_of_another_system_fails_its_own_step_only(tmp_path, programs, monkeypatch):
    monkeypatch.setenv("LOGNAME", "DOMAIN\\me; touch broken")
    monkeypatch.chdir(tmp_path)  # where Nipype writes what qstat says
    program(
        programs, "qsub", 'for script; do :; done; bash "$script" >/dev/null 2>&1; echo $$.host'
    )
    program(programs, "qstat", "echo job_state = C")
    workflow = pe.Workflow("difftract_wf", base_dir=str(tmp_path))
    logs = tmp_path / "logs"
    settings = {"crashdump_dir": str(logs), "crashfile_format": "txt", "create_report": "false"}
    workflow.config["execution"] = settings
    for label, how in {"a": "killed", "b": "well"}.items():
        own = pe.Workflow(f"sub_{label}_wf")
        node = pe.Node(Function(["how"], ["out"], fails), name="node")
        node.inputs.how = how
        own.add_nodes([node])
        workflow.add_nodes([own])
    waiting = {"poll_sleep_duration": 0.01, "job_finished_timeout": 0.01, "max_jobname_len": 200}
    plugin = make_plugin(PluginChoice("PBS", waiting))
    assert isinstance(plugin, nipype_plugins.PBSPlugin)
    with pytest.raises(RuntimeError):
        workflow.run(plugin=plugin)
    assert (tmp_path / "difftract_wf" / "sub_b_wf" / "node" / "result_node.pklz").exists()
    assert set(crashes(["a", "b"], logs)) == {"a"}
    assert not (tmp_path / "broken").exists()


@pytest.mark.parametrize(("own", "seconds"), [({}, 5), ({"poll_sleep_duration": 30}, 30)])
def test_queues_are_asked_less_often_than_processes(own, seconds):
    config = {"execution": {"poll_sleep_duration": "0.2", "job_finished_timeout": "5"}}
    wait_for(config, own)
    assert float(config["execution"]["poll_sleep_duration"]) == seconds
    assert float(config["execution"]["job_finished_timeout"]) >= 60
