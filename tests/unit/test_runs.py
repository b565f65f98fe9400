"""Which diffusion images are runs, and which anatomy goes with each."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from datasets import ONE_SHELL, TWO_SHELLS, image, write_dataset, write_run

from difftract_bids.bids.anatomy import choose_t1w
from difftract_bids.bids.plan import Plan, make_plan
from difftract_bids.bids.runs import DWIRun, RunPart
from difftract_bids.config import Config
from difftract_bids.errors import DifftractError


def plan(bids_dir: Path, **options) -> Plan:
    root = bids_dir.parent
    return make_plan(bids_dir, root / "out", root / "work", Config(), **options)


@pytest.fixture
def dataset(tmp_path) -> Path:
    """One participant with two runs."""
    root = write_dataset(tmp_path / "bids")
    dwi = root / "sub-01" / "dwi"
    shutil.rmtree(dwi)
    for run in (1, 2):
        write_run(dwi, f"sub-01_run-{run}")
    return root


def dwi_file(dataset: Path, name: str) -> Path:
    return dataset / "sub-01" / "dwi" / f"sub-01_{name}"


def test_runs_directions_acquisitions_and_sessions_are_kept_apart(tmp_path):
    root = write_dataset(tmp_path / "bids", sessions=["A", "B"])
    for session in "AB":
        for middle in ("acq-x_dir-AP", "acq-x_dir-PA_run-2", "rec-n"):
            folder = root / "sub-01" / f"ses-{session}" / "dwi"
            write_run(folder, f"sub-01_ses-{session}_{middle}")
    stems = [run.stem for run in plan(root).runs]
    middles = ("", "_acq-x_dir-AP", "_acq-x_dir-PA_run-2", "_rec-n")
    expected = {f"sub-01_ses-{session}{middle}" for session in "AB" for middle in middles}
    assert set(stems) == expected
    assert len(stems) == len(set(stems)) == 8
    names = [run.node_name for run in plan(root).runs]
    assert len(set(names)) == 8


def test_runs_with_other_shells_each_have_a_model_of_their_own(dataset):
    write_run(dataset / "sub-01" / "dwi", "sub-01_run-3", TWO_SHELLS)
    models = {run.entities["run"]: run.fodf_model.name for run in plan(dataset).runs}
    assert models["1"] == models["2"]
    assert models["3"] == "msmtcsd" != models["1"]


def test_a_b0_image_beside_a_series_is_left_out_with_a_note(dataset):
    for extension in ("bval", "bvec"):
        dwi_file(dataset, f"run-2_dwi.{extension}").unlink()
    nib.save(image((5, 6, 7)), dwi_file(dataset, "run-2_dwi.nii.gz"))
    (run,) = plan(dataset).runs
    assert run.stem == "sub-01_run-1"
    (note,) = (note for note in run.notes if "left out" in note)
    assert note.startswith("sub-01_run-2_dwi.nii.gz was left out: it has no diffusion-weighted")


def test_several_b0_volumes_are_no_series_either(dataset):
    np.savetxt(dwi_file(dataset, "run-2_dwi.bval"), np.full((1, 9), 5.0))
    (run,) = plan(dataset).runs
    assert run.stem == "sub-01_run-1"


def test_too_few_directions_beside_a_series_are_left_out_with_their_number(dataset):
    np.savetxt(dwi_file(dataset, "run-2_dwi.bval"), [[0] * 5 + [1000] * 4])
    (run,) = plan(dataset).runs
    assert any("run-2" in note and "4 diffusion-weighted" in note for note in run.notes)


def test_an_image_that_is_left_out_is_told_of_in_its_own_session_only(tmp_path):
    root = write_dataset(tmp_path / "bids", sessions=["A", "B"])
    folder = root / "sub-01" / "ses-A" / "dwi"
    nib.save(image((5, 6, 7, 1)), folder / "sub-01_ses-A_dir-PA_dwi.nii.gz")
    told = {run.session: [n for n in run.notes if "left out" in n] for run in plan(root).runs}
    assert len(told["A"]) == 1
    assert told["B"] == []


def test_nothing_but_b0_images_is_an_error(dataset):
    for run in (1, 2):
        np.savetxt(dwi_file(dataset, f"run-{run}_dwi.bval"), np.zeros((1, 9)))
    with pytest.raises(DifftractError, match="Only 0 volumes are diffusion-weighted"):
        plan(dataset)


def test_a_missing_sidecar_is_told_of_and_no_error(dataset):
    dwi_file(dataset, "run-1_dwi.json").unlink()
    dwi_file(dataset, "run-2_dwi.json").write_text(json.dumps({"PhaseEncodingDirection": "j"}))
    one, two = plan(dataset).runs
    assert any("sidecar is missing" in note for note in one.notes)
    assert [note for note in two.notes if "was NOT corrected" not in note] == []


def test_an_unknown_phase_encoding_is_told_of(dataset):
    assert any("phase-encoding direction is unknown" in n for n in plan(dataset).runs[0].notes)


def test_derivatives_among_the_raw_data_are_not_read_as_raw(dataset):
    stem = "sub-01_space-T1w_desc-preproc"
    write_run(dataset / "sub-01" / "dwi", stem)
    assert [run.stem for run in plan(dataset).runs] == ["sub-01_run-1", "sub-01_run-2"]


T1W_CASES = {
    "own session": ("A", ["ses-B", "ses-A"], "ses-A", 0),
    "first of the others": ("C", ["ses-B", "ses-A"], "ses-A", 1),
    "no session at all": ("C", [""], "", 1),
    "first run": (None, ["run-10", "run-2"], "run-2", 1),
    "plain before derived": (None, ["rec-norm", ""], "", 1),
    "no contrast agent": (None, ["ce-gadolinium", "acq-a_rec-b"], "acq-a_rec-b", 1),
    "none": ("A", [], None, 0),
}


@pytest.mark.parametrize("case", T1W_CASES)
def test_the_t1w_is_chosen_by_session_and_name(case):
    session, middles, expected, n_notes = T1W_CASES[case]

    def named(middle):
        return Path("_".join(part for part in ("sub-01", middle, "T1w.nii.gz") if part))

    chosen, notes = choose_t1w(session, [named(middle) for middle in middles])
    assert chosen == (None if expected is None else named(expected))
    assert len(notes) == n_notes


def test_a_run_that_is_one_acquisition_is_its_only_part():
    files = (Path("a.nii.gz"), Path("a.bval"), Path("a.bvec"))
    run = DWIRun({"subject": "01"}, *files, metadata={"EchoTime": 0.1})
    part = RunPart(*files, metadata={"EchoTime": 0.1}, entities={"subject": "01"})
    assert run.parts == (part,)
    assert run.files == list(files)
    assert replace(run, notes=("a",)).parts == (part,)


def test_the_size_of_a_run_is_that_of_its_volumes(dataset):
    (run, _) = plan(dataset).runs
    assert run.size_gb == pytest.approx(5 * 6 * 7 * (1 + ONE_SHELL[0][1]) * 4e-9)
