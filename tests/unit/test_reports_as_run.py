"""Reports that are made again are of the settings that runs were done with."""

import shutil
from dataclasses import replace

import pytest
from datasets import write_dataset
from finished import finish

from difftract_bids.bids.as_run import settings_as_run
from difftract_bids.bids.plan import make_plan
from difftract_bids.bids.records import void_record
from difftract_bids.cli.parser import build_parser, flag_of
from difftract_bids.cli.planning import plans_as_run
from difftract_bids.config import Config, RegionsConfig, TrackingConfig
from difftract_bids.errors import UsageError

LOW, HIGH = (Config(tracking=TrackingConfig(cutoff=cutoff)) for cutoff in (0.1, 0.2))


@pytest.fixture
def dataset(tmp_path):
    return write_dataset(tmp_path / "bids", ["01", "02", "03"], sessions=["A", "B"], t1w=True)


def done(dataset, config, logs, stems):
    """Finish some runs of a dataset with settings."""
    plan = make_plan(dataset, dataset.parent / "out", dataset.parent / "work", config)
    runs = [run for run in plan.runs if run.stem.startswith(stems)]
    assert runs
    for run in runs:
        finish(plan, run, logs=logs)
    return plan.output_dir


def plans(dataset, *options):
    out, work = dataset.parent / "out", dataset.parent / "work"
    command = [dataset, out, "participant", "-w", work, "--reports-only", *options]
    return plans_as_run(build_parser().parse_args([str(word) for word in command]))


def runs_by_cutoff(found):
    return {
        plan.config.tracking.cutoff: [run.stem.removesuffix("_dwi") for run in plan.runs]
        for plan, _ in found
    }


def test_every_run_has_its_own_settings_though_the_command_names_none(dataset):
    done(dataset, LOW, "20260101T000000Z_a", ("sub-01", "sub-03"))
    done(dataset, HIGH, "20260102T000000Z_b", ("sub-02", "sub-03_ses-B"))
    found = plans(dataset)
    assert runs_by_cutoff(found) == {
        0.2: ["sub-02_ses-A", "sub-02_ses-B", "sub-03_ses-B"],
        0.1: ["sub-01_ses-A", "sub-01_ses-B", "sub-03_ses-A"],
    }
    assert [said for _, said in found] == [
        ["Settings of the runs: those of logs/20260102T000000Z_b/config.toml."],
        ["Settings of the runs: those of logs/20260101T000000Z_a/config.toml."],
    ]


def test_what_was_never_finished_gets_the_latest_settings(dataset):
    done(dataset, LOW, "20260101T000000Z_a", ("sub-01",))
    out = done(dataset, HIGH, "20260102T000000Z_b", ("sub-02_ses-A", "sub-02_ses-B"))
    void_record(out, "sub-02_ses-B")  # begun again since
    assert runs_by_cutoff(plans(dataset, "--participant-label", "02", "03")) == {
        0.2: ["sub-02_ses-A", "sub-02_ses-B", "sub-03_ses-A", "sub-03_ses-B"],
    }
    # Of what was never finished nothing is known, and it may be said.
    said = plans(dataset, "--participant-label", "03", "--cutoff", "0.3")
    assert runs_by_cutoff(said) == {0.3: ["sub-03_ses-A", "sub-03_ses-B"]}


def test_only_what_is_asked_for_counts(dataset):
    done(dataset, LOW, "20260101T000000Z_a", ("sub-01_ses-A", "sub-02"))
    done(dataset, HIGH, "20260102T000000Z_b", ("sub-01_ses-B",))
    only = ("--participant-label", "sub-01", "--session-label", "ses-A")
    assert runs_by_cutoff(plans(dataset, *only)) == {0.1: ["sub-01_ses-A"]}
    # The other settings are those of another session, and contradict nothing.
    assert runs_by_cutoff(plans(dataset, *only, "--cutoff", "0.1")) == {0.1: ["sub-01_ses-A"]}


def test_who_was_never_begun_is_not_called_failed_unless_named(dataset):
    done(dataset, LOW, "20260101T000000Z_a", ("sub-01", "sub-02"))
    ((found, said),) = plans(dataset)
    assert found.participants == ["01", "02"]
    assert said[1:] == ["NOTE: 1 participant(s) have nothing in OUTPUT_DIR yet."]
    ((found, said),) = plans(dataset, "--participant-label", "01", "03")
    assert found.participants == ["01", "03"]
    assert said[1:] == []


def test_without_any_finished_run_the_settings_are_those_of_the_command(dataset):
    (found,) = plans(dataset, "--cutoff", "0.3")
    assert found[0].config.tracking.cutoff == 0.3
    assert found[1] == ["Settings of the runs: those of this command."]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--cutoff", "0.2"], "--cutoff 0.2 (was 0.1)"),
        (["--atlases", "Other=/x"], "--atlases Other (was ICBM100)"),
        (["--max-length", "100"], "--max-length 100.0 (was not given)"),
        (["--seed-gmwmi"], "--seed-gmwmi True (was False)"),
        (["--mask", "brain.nii.gz"], "--mask brain.nii.gz (was not given)"),
        (["--connectome-measures", "count"], "--connectome-measures count (was count "),
        (["-d", "qsiprep=/x"], "--derivatives qsiprep (was none)"),
    ],
)
def test_other_settings_are_refused_as_the_report_would_say_what_was_not_done(
    dataset, options, said
):
    done(dataset, LOW, "20260101T000000Z_a", ("sub-01",))
    with pytest.raises(UsageError) as caught:
        plans(dataset, *options)
    assert said in str(caught.value)
    assert "logs/20260101T000000Z_a/config.toml of sub-01_ses-A" in str(caught.value)
    assert "Leave them out" in str(caught.value)


def test_the_same_command_with_reports_only_is_not_refused(dataset, tmp_path):
    (tmp_path / "own.toml").write_text("[tracking]\ncutoff = 0.1\n")
    done(dataset, LOW, "20260101T000000Z_a", ("sub-01",))
    for options in (["--cutoff", "0.1"], ["--config-file", tmp_path / "own.toml"], ["--sloppy"]):
        (found,) = plans(dataset, *options)
        assert found[0].config == LOW


def test_files_that_have_moved_are_given_anew(dataset, tmp_path):
    region, moved = tmp_path / "region.nii.gz", tmp_path / "moved.nii.gz"
    (image, *_) = sorted(dataset.rglob("*_T1w.nii.gz"))
    shutil.copy(image, region)
    config = replace(LOW, regions=RegionsConfig(mask=(str(region),)))
    done(dataset, config, "20260101T000000Z_a", ("sub-01",))
    region.rename(moved)
    (found,) = plans(dataset, "--participant-label", "01", "--mask", moved)
    assert found[0].config.regions.mask == (str(moved),)


def test_settings_that_cannot_be_read_are_told_of_and_the_latest_taken(dataset):
    out = done(dataset, LOW, "20260101T000000Z_a", ("sub-01",))
    done(dataset, HIGH, "20260102T000000Z_b", ("sub-02",))
    (out / "logs" / "20260102T000000Z_b" / "config.toml").write_text("[old]\nname = 1\n")
    ((found, said),) = plans(dataset)
    assert found.config == LOW
    assert len(found.runs) == 4
    assert said[1] == "NOTE: 1 participant(s) have nothing in OUTPUT_DIR yet."
    assert said[2].startswith("WARNING: the settings of 2 finished run(s) cannot be read")
    assert "First sub-02_ses-A: There is no setting called old." in said[2]
    shutil.rmtree(out / "logs" / "20260102T000000Z_b")
    ((_, said),) = plans(dataset)
    assert "First sub-02_ses-A: [Errno 2] No such file" in said[2]


def test_who_could_not_be_done_with_the_latest_settings_is_not_called_unusable(dataset, tmp_path):
    done(dataset, LOW, "20260101T000000Z_a", ("sub-01",))
    # The latest run names a file of each participant, which only the one that was run has.
    (image, *_) = sorted(dataset.rglob("*_T1w.nii.gz"))
    shutil.copy(image, tmp_path / "sub-02_region.nii.gz")
    region = str(tmp_path / "sub-{subject}_region.nii.gz")
    config = replace(HIGH, regions=RegionsConfig(mask=(region,)))
    done(dataset, config, "20260102T000000Z_b", ("sub-02",))
    found = plans(dataset, "--participant-label", "01", "02")
    assert [list(plan.unusable) for plan, _ in found] == [[], []]
    assert runs_by_cutoff(found) == {
        0.2: ["sub-02_ses-A", "sub-02_ses-B"],
        0.1: ["sub-01_ses-A", "sub-01_ses-B"],
    }
    # Who was never finished, and cannot be, is told of.
    (dataset.parent / "out" / "sub-03").mkdir()
    assert list(plans(dataset)[0][0].unusable) == ["03"]


def test_a_thousand_logs_of_the_same_settings_are_one(dataset):
    for number in range(3):
        out = done(dataset, LOW, f"2026010{number + 1}T000000Z_a", (f"sub-0{number + 1}",))
    (found,), unknown = settings_as_run(out)
    assert found.config == LOW
    assert found.file == "logs/20260103T000000Z_a/config.toml"
    assert len(found.stems) == 6
    assert unknown == {}


@pytest.mark.parametrize(
    ("name", "flag"),
    [
        ("cutoff", "--cutoff"),
        ("b0_threshold_s_mm2", "--b0-threshold"),
        ("tractogram_tolerance_mm", "--tractogram-tolerance-mm"),
        ("backend", "--tracking-backend"),
    ],
)
def test_a_setting_is_called_by_its_option(name, flag):
    assert flag_of(name) == flag
