"""What is understood of SLURM's answers."""

import os
import re
import stat
import time
from pathlib import Path

import pytest

from difftract_bids.bids.labels import participant_wf_name
from difftract_bids.cli.plugins import slurm_jobs
from difftract_bids.cli.plugins.batch import make_plugin
from difftract_bids.cli.plugins.plugin_file import PluginChoice
from difftract_bids.cli.plugins.slurm import clear_queue, participant_of


@pytest.fixture
def answers(tmp_path, monkeypatch):
    """Let SLURM's programs answer what a test says."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def answer(name, text, code=0):
        (folder / f"{name}.txt").write_text(text)
        script = f"#!/bin/sh\ncat '{folder}/{name}.txt' {'>&2' if code else ''}\nexit {code}\n"
        path = folder / name
        path.write_text(script)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    return answer


JOB = """JobId=12 JobName=track.tracking_wf
   UserId=me(1) GroupId=me(1) MCS_label=N/A
   JobState={state} Reason={state} Dependency=(null)
   RunTime=00:10:01 TimeLimit=00:10:00 TimeMin=N/A ExitCode={code}
   MinCPUsNode=2 MinMemoryNode=1500M MinTmpDiskNode=0
   StdOut={output}
"""


@pytest.mark.parametrize(
    ("state", "code", "said"),
    [
        (
            "OUT_OF_MEMORY",
            "0:125",
            r"\(OUT_OF_MEMORY\). It had 1500M of memory. .*--mem in",
        ),
        ("TIMEOUT", "0:15", r"\(TIMEOUT\). It had 00:10:00 of time. .*--time in sbatch_args"),
        ("NODE_FAIL", "1:0", r"\(NODE_FAIL\). The machine .* failed; the same command then"),
        ("FAILED", "0:9", "killed, most often for want of memory. It had 1500M"),
        ("FAILED", "137:0", "killed, most often for want of memory. It had 1500M"),
        (
            "FAILED",
            "2:0",
            r"\(FAILED, exit code 2\). It said: hello no such python \(see .*/a b.out\)",
        ),
        ("COMPLETED", "0:0", "on a file system that all machines share"),
    ],
)
def test_the_reason_of_an_end_says_what_the_job_had_and_what_to_do(
    answers, tmp_path, state, code, said
):
    output = tmp_path / "a b.out"
    output.write_text("hello\n\nno such python\n")
    answers("scontrol", JOB.format(state=state, code=code, output=output))
    told = slurm_jobs.ended_because(slurm_jobs.job_state(12))
    assert told.startswith("RuntimeError: ")
    assert "job 12" in told
    assert re.search(said, told), told


def test_a_job_that_slurm_has_forgotten_is_no_error(answers):
    answers("scontrol", "slurm_load_jobs error: Invalid job id specified", code=1)
    assert "no longer knows" in slurm_jobs.ended_because(slurm_jobs.job_state(12))


def test_a_controller_that_does_not_answer_has_ended_no_job(answers):
    plugin = make_plugin(PluginChoice("SLURM", {}))
    answers("squeue", "slurm_load_jobs error: Unable to contact slurm controller", code=1)
    assert plugin._is_pending(12)
    answers("squeue", "11 None\n12 Priority\n13 (null)\n")
    assert plugin._is_pending(12)
    answers("squeue", "11 None\n13 (null)\n")
    assert plugin._is_pending(12)  # one listing serves all jobs of a look
    plugin._listed_at = time.monotonic() - 60
    assert not plugin._is_pending(12)
    assert plugin._is_pending(13)


def test_habits_in_the_environment_hide_no_job(answers, monkeypatch, tmp_path):
    answers("squeue", "")
    path = tmp_path / "programs" / "squeue"
    path.write_text("#!/bin/sh\nenv | grep SQUEUE_ || echo 12 None\n")
    monkeypatch.setenv("SQUEUE_STATES", "RUNNING")
    assert slurm_jobs.live_jobs() == {12: "None"}


def test_a_submission_is_tried_again_and_then_fails_with_what_sbatch_said(answers, tmp_path):
    answers("sbatch", "sbatch: error: QOSMaxSubmitJobPerUserLimit", code=1)
    with pytest.raises(RuntimeError, match=r"QOSMaxSubmitJobPerUserLimit .*--mem=1M"):
        slurm_jobs.submit(Path("a.sh"), ["--mem=1M"], tries=2, pause_s=0.01)
    counter = tmp_path / "tries"
    script = f"#!/bin/sh\necho >> '{counter}'\n[ $(wc -l < '{counter}') -gt 1 ] || exit 1\n"
    path = tmp_path / "programs" / "sbatch"
    path.write_text(
        f"{script}echo a word from the site\necho Submitted batch job 34 on cluster x\n"
    )
    assert slurm_jobs.submit(Path("a.sh"), [], tries=2, pause_s=0.01) == 34


@pytest.mark.parametrize(
    ("reason", "in_vain"),
    [
        ("PartitionTimeLimit", True),
        ("AssocMaxWallDurationPerJobLimit", True),
        ("QOSMaxMemoryPerJob", True),
        ("BadConstraints", True),
        ("Priority", False),
        ("Resources", False),
        ("JobHeldUser", False),
        ("AssocGrpCpuLimit", False),
        ("None", False),
    ],
)
def test_a_job_waits_in_vain_for_what_time_does_not_bring(reason, in_vain):
    assert slurm_jobs.waits_in_vain(reason) == in_vain


def test_the_jobs_of_a_folder_are_told_from_others(answers, tmp_path):
    batch = tmp_path / "work place" / "difftract_wf" / "batch"
    (batch / "graph").mkdir(parents=True)
    lines = [
        f"1|track.sub_01_wf.difftract_wf|{batch}/a.sh",
        f"2|track.sub_02_wf.difftract_wf|{batch}/graph/a.sh",
        f"3|fodf.sub_02_wf.difftract_wf|{batch}/graph/b.sh",
        f"4|fodf.sub_03_wf.difftract_wf|{batch}/graph/c.sh",
        "5|fodf.sub_02_wf.difftract_wf|/elsewhere/batch/graph/b.sh",
        "6|wrap|(null)",
    ]
    answers("squeue", "\n".join(lines))
    found = slurm_jobs.queued_jobs([batch, batch / "graph"])
    assert [job.number for job in found] == [1, 2, 3, 4]
    assert clear_queue(tmp_path / "work place", ["02"]) == {"02": 2}


def test_where_nothing_was_ever_submitted_slurm_is_not_asked(answers, tmp_path):
    answers("squeue", "1|a.sub_01_wf|x", code=1)
    assert clear_queue(tmp_path, ["01"]) == {}


@pytest.mark.parametrize("label", ["01", "wf01", "X2", "a+b"])
def test_participants_are_found_in_the_names_of_steps_and_jobs(label):
    own = participant_wf_name(label)
    assert participant_of(f"difftract_wf.{own}.ses_a_dwi_wf.fodf_wf.fodf") == label
    assert participant_of(f"report.{own}.difftract_wf") == label
    assert participant_of("difftract_wf.something") == ""
