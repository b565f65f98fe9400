"""What is said of each participant in the end."""

from pathlib import Path

import pandas as pd

from difftract_bids.cli.outcomes import (
    Outcome,
    count,
    crashes,
    is_all_well,
    last_error,
    table,
    write_table,
)

CRASH = """Node: difftract_wf.sub_{label}_wf.dwi_wf.preprocessing_wf.denoise
Working directory: /work

Traceback (most recent call last):
  File "x.py", line 3, in f
    raise ...
difftract_bids.errors.InputError: 3 of 90 values are not finite.
  where:  sub-{label}_dwi.nii.gz
  remedy: Convert the DICOM files again.
"""


def test_a_crash_is_the_participant_s_own_and_its_reason_has_what_where_and_remedy(tmp_path):
    (tmp_path / "crash-1.txt").write_text(CRASH.format(label="01"))
    found = crashes(["01", "1", "011"], tmp_path)
    assert set(found) == {"01"}
    assert found["01"].reason == (
        "InputError: 3 of 90 values are not finite. where:  sub-01_dwi.nii.gz "
        "remedy: Convert the DICOM files again."
    )
    assert found["01"].crash_file == tmp_path / "crash-1.txt"


def test_a_lack_of_memory_comes_with_what_to_do_about_it(tmp_path):
    lines = [
        "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 93.1 GiB for an array",
        "RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory: out of memory",
    ]
    for number, line in enumerate(lines):
        text = CRASH.format(label=f"0{number}").rsplit("difftract_bids.errors", 1)[0] + line
        (tmp_path / f"crash-{number}.txt").write_text(text)
    for outcome in crashes(["00", "01"], tmp_path).values():
        assert "--low-mem" in outcome.reason


def test_the_last_error_of_several_is_the_one_that_counts():
    assert (
        last_error("ValueError: first\n\nduring\n\nKeyError: 'second'\n") == "KeyError: 'second'"
    )
    assert last_error("something\nelse\n") == "else"


def test_the_table_names_everybody_once_with_what_failed_last(tmp_path):
    outcomes = {
        "02": Outcome("failed", "it broke.\n  where: there", tmp_path / "crash.txt"),
        "01": Outcome("done"),
        "10": Outcome("skipped", "Finished before."),
        "11": Outcome("busy", "Another process."),
    }
    lines = table(outcomes, Path("/out"))
    assert [line.split(":")[0] for line in lines] == ["sub-10", "sub-01", "sub-11", "sub-02"]
    assert "FAILED.  Reason: it broke." in lines[-1]
    assert str(tmp_path / "crash.txt") in lines[-1]
    assert "Report: /out/sub-01.html" in lines[1]
    assert count(outcomes) == "1 done, 1 failed, 1 finished before, 1 under way elsewhere"
    write_table(outcomes, tmp_path / "participants.tsv")
    frame = pd.read_csv(tmp_path / "participants.tsv", sep="\t", keep_default_na=False)
    assert list(frame.participant_id) == ["sub-01", "sub-02", "sub-10", "sub-11"]
    assert list(frame.status) == ["done", "failed", "skipped", "busy"]
    assert frame.reason[1] == "it broke. where: there"


def test_only_participants_that_are_done_now_or_before_are_well():
    done, skipped = Outcome("done"), Outcome("skipped")
    assert is_all_well({"01": done, "02": skipped})
    assert not is_all_well({"01": done, "02": Outcome("failed")})
    assert not is_all_well({"01": done, "02": Outcome("busy")})
