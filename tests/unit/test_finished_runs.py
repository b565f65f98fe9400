"""What is done is not done again, and what is not done is not taken for done."""

import json
import os
import shutil

import nibabel as nib
import numpy as np
import pytest
from datasets import write_dataset
from finished import finish

from difftract_bids.bids.pages import page_path, shown_figures
from difftract_bids.bids.plan import make_plan
from difftract_bids.bids.records import (
    earlier_outputs,
    fingerprint,
    is_finished,
    read_record,
    record_path,
    records_of,
)
from difftract_bids.cli.work import find_work, make_way
from difftract_bids.config import Config, GroupConfig, SeedingConfig, TrackingConfig
from difftract_bids.io.locks import NameLocks


@pytest.fixture
def dataset(tmp_path):
    return write_dataset(tmp_path / "bids", ["01", "02"], sessions=["A", "B"], t1w=True)


def plan(dataset, config=None, **options):
    folders = dataset.parent / "out", dataset.parent / "work"
    return make_plan(dataset, *folders, config or Config(), **options)


def test_a_run_is_finished_when_its_record_and_every_output_are_there(dataset):
    wanted = plan(dataset)
    run, other, *_ = wanted.runs
    assert not is_finished(wanted, run)
    finish(wanted, run)
    assert is_finished(wanted, run)
    assert not is_finished(wanted, other)
    first = next(iter(wanted.promised(run)))
    (wanted.output_dir / first).unlink()
    assert not is_finished(wanted, run)
    (wanted.output_dir / first).touch()  # empty
    assert not is_finished(wanted, run)


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"Fingerprint": 1}'])
def test_a_damaged_record_is_none(dataset, damage):
    wanted = plan(dataset)
    finish(wanted, wanted.runs[0])
    (wanted.output_dir / record_path(wanted.runs[0].stem)).write_text(damage)
    assert read_record(wanted.output_dir, wanted.runs[0].stem) is None
    assert not is_finished(wanted, wanted.runs[0])


def test_other_settings_are_another_run_and_those_of_the_group_level_are_not(dataset):
    def of(config):
        wanted = plan(dataset, config)
        return fingerprint(wanted, wanted.runs[0])

    same = of(Config())
    assert of(Config()) == same
    assert of(Config(tracking=TrackingConfig(cutoff=0.2))) != same
    assert of(Config(seeding=SeedingConfig(random_seed=1))) != same
    assert of(Config(group=GroupConfig(consistency_threshold=0.5))) == same


def rewrite(path, change):
    path.write_text(change(path.read_text()))


CHANGES = {
    "image": lambda own: os.utime(own / "dwi" / "sub-01_ses-A_dwi.nii.gz", ns=(0, 0)),
    "image's content": lambda own: nib.save(
        nib.Nifti1Image(np.ones((5, 6, 7, 9), np.int16), np.diag([2, 2, 2, 1])),
        own / "dwi" / "sub-01_ses-A_dwi.nii.gz",
    ),
    "b-values": lambda own: rewrite(
        own / "dwi" / "sub-01_ses-A_dwi.bval", lambda text: text.replace("1000", "1010")
    ),
    "sidecar": lambda own: rewrite(
        own / "dwi" / "sub-01_ses-A_dwi.json", lambda text: text.replace("0.09", "0.08")
    ),
    "T1w": lambda own: shutil.rmtree(own / "anat"),
}


@pytest.mark.parametrize("what", [name for name in CHANGES if name != "image"])
def test_another_input_is_another_run(dataset, what):
    wanted = plan(dataset)
    before = [fingerprint(wanted, run) for run in wanted.runs]
    CHANGES[what](dataset / "sub-01" / "ses-A")
    wanted = plan(dataset)
    same = [fingerprint(wanted, run) == was for run, was in zip(wanted.runs, before, strict=True)]
    assert same == [False, True, True, True]


def test_a_small_file_is_known_by_its_content_and_not_by_its_time(dataset):
    wanted = plan(dataset)
    before = fingerprint(wanted, wanted.runs[0])
    CHANGES["image"](dataset / "sub-01" / "ses-A")
    assert fingerprint(wanted, wanted.runs[0]) == before


def test_a_dataset_that_has_moved_is_the_same(dataset, tmp_path):
    wanted = plan(dataset)
    before = fingerprint(wanted, wanted.runs[0])
    moved = tmp_path / "elsewhere"
    shutil.move(dataset, moved)
    wanted = plan(moved)
    assert fingerprint(wanted, wanted.runs[0]) == before


def test_a_region_that_settings_name_counts_by_its_content(dataset, tmp_path):
    mask = tmp_path / "roi_01.nii.gz"
    config = Config(seeding=SeedingConfig(seed_image=str(tmp_path / "roi_{subject}.nii.gz")))

    def of(value):
        nib.save(nib.Nifti1Image(np.full((5, 6, 7), value, np.uint8), np.eye(4)), mask)
        wanted = plan(dataset, config, participants=["01"])
        return fingerprint(wanted, wanted.runs[0])

    assert of(1) != of(2)
    assert of(1) == of(1)


def test_finished_participants_are_skipped_and_the_others_done(dataset):
    wanted = plan(dataset)
    for run in wanted.of("01"):
        finish(wanted, run)
    finish(wanted, wanted.of("02")[0])
    work = find_work(wanted)
    assert [run.stem for run in work.todo] == ["sub-02_ses-B"]
    assert {label: outcome.status for label, outcome in work.outcomes.items()} == {"01": "skipped"}
    assert len(find_work(wanted, force=True).todo) == 4


def test_a_participant_under_way_elsewhere_is_left_alone(dataset, tmp_path):
    class Taken(NameLocks):
        def take(self, name):
            return name != "01" and super().take(name)

    with Taken(tmp_path / "lock") as locks:
        work = find_work(plan(dataset), locks=locks)
    assert {run.participant for run in work.todo} == {"02"}
    assert work.outcomes["01"].status == "busy"


def test_the_record_goes_before_anything_that_it_speaks_of_is_touched(dataset):
    wanted = plan(dataset)
    for run in wanted.runs:
        finish(wanted, run)
    changed = plan(dataset, Config(tracking=TrackingConfig(cutoff=0.2)), participants=["01"])
    graph = changed.scratch_dir / "difftract_wf" / "sub_01_wf"
    for name in ("sesA_wf", "sesB_wf"):
        (graph / name / "denoise").mkdir(parents=True)
    half = changed.output_dir / "sub-01" / "ses-A" / "dwi" / ".sub-01_x.trx.abcd1234"
    half.touch()
    page = changed.output_dir / "sub-01.html"
    page.touch()
    make_way(changed)
    assert not page.exists()  # it is of the earlier settings
    left = [read_record(wanted.output_dir, run.stem).fingerprint != "" for run in wanted.runs]
    assert left == [False, False, True, True]
    assert not is_finished(wanted, wanted.runs[0])
    assert not half.exists()
    assert (graph / "sesA_wf" / "denoise").is_dir()  # steps that have not changed are kept
    make_way(changed, force=True)
    assert not (graph / "sesA_wf").exists()


def test_outputs_of_other_settings_stay_on_record_as_what_they_are(dataset):
    first = plan(dataset, participants=["01"])
    run = first.runs[0]
    finish(first, run)
    (dataset.parent / "s.toml").write_text('[output]\ntractogram_format = "tck"\n')
    second = plan(dataset, Config.from_toml(dataset.parent / "s.toml"), participants=["01"])
    make_way(second)
    finish(second, second.runs[0])
    record = read_record(second.output_dir, run.stem)
    assert earlier_outputs(second) == list(record.earlier)
    assert [path.rsplit("/", 1)[1] for path in record.earlier] == [
        "sub-01_ses-A_model-sdstream_tractogram.trx"
    ]
    (second.output_dir / record.earlier[0]).unlink()
    assert earlier_outputs(second) == []
    assert is_finished(second, second.runs[0])
    assert not is_finished(first, run)


def test_a_report_shows_the_sessions_that_were_finished_before(dataset):
    whole = plan(dataset)
    finish(whole, whole.of("01")[0])
    only_b = plan(dataset, participants=["01"], sessions=["B"])
    shown = shown_figures(only_b, "01")
    assert "sub-01_ses-A_desc-fa_dwi.svg" in shown
    assert "sub-01_ses-B_desc-fa_dwi.svg" in shown
    assert len(records_of(whole.output_dir, "01")) == 1
    assert records_of(whole.output_dir, "0") == []
    assert page_path("01", "B") == "sub-01_ses-B.html"


def test_a_record_is_json_that_names_the_run_and_its_outputs(dataset):
    wanted = plan(dataset)
    finish(wanted, wanted.runs[0])
    content = json.loads((wanted.output_dir / "logs/finished/sub-01_ses-A.json").read_text())
    assert content["Logs"] == "logs/u"
    assert len(content["Outputs"]) == len(set(content["Outputs"])) > 40
