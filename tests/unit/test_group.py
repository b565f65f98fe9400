"""The group level where there are responses alone: averaged for another run."""

import json

import numpy as np
import pytest
from datasets import write_dataset

from difftract_bids.bids.given_fodf import fodf_of
from difftract_bids.bids.plan import make_plan
from difftract_bids.cli.group import run_group
from difftract_bids.cli.run import main
from difftract_bids.config import Config, FodfConfig, GroupConfig
from difftract_bids.errors import InputError
from difftract_bids.modelling.response import read_response, write_response
from difftract_bids.modelling.zonal import Response

SHAPE_OF = {"WM": np.array([[900.0, 0, 0], [500, -150, 30]]), "CSF": np.array([[3000.0], [200]])}


def put(out, participant, *, scale=1.0, model="ss2t", session=None, bval=1000.0):
    folder = out / f"sub-{participant}" / (f"ses-{session}" if session else "") / "dwi"
    folder.mkdir(parents=True)
    stem = f"sub-{participant}" + (f"_ses-{session}" if session else "")
    for tissue, coefficients in SHAPE_OF.items():
        name = f"{stem}_model-{model}_label-{tissue}_response.txt"
        write_response(Response((0.0, bval), scale * coefficients), folder / name)


def average(out, participants=None, sessions=None):
    return run_group(out, GroupConfig(), participants, sessions, work_dir=out / "work")


def averaged(out, tissue, model="ss2t"):
    return read_response(out / "group" / f"model-{model}_label-{tissue}_response.txt")


def test_the_average_of_equals_is_each_of_them(tmp_path):
    for participant in ("01", "02", "03"):
        put(tmp_path, participant)
    said = average(tmp_path)
    for tissue, coefficients in SHAPE_OF.items():
        assert averaged(tmp_path, tissue).bvals_s_mm2 == (0.0, 1000.0)
        np.testing.assert_allclose(averaged(tmp_path, tissue).coefficients, coefficients)
    assert sum("average of 3 participant(s)" in line for line in said) == 2
    assert f"--response {tmp_path / 'group'}" in said[-1]


def test_a_participant_with_two_sessions_counts_once(tmp_path):
    put(tmp_path, "01", scale=2.0, session="A")
    put(tmp_path, "01", scale=2.0, session="B")
    put(tmp_path, "02", scale=4.0)
    average(tmp_path)
    np.testing.assert_allclose(averaged(tmp_path, "WM").coefficients, 3.0 * SHAPE_OF["WM"])


def test_models_are_averaged_apart_and_participants_chosen(tmp_path):
    put(tmp_path, "01", model="csd")
    put(tmp_path, "02", scale=2.0)
    put(tmp_path, "03", scale=7.0)
    average(tmp_path, ["sub-01", "02"])
    np.testing.assert_allclose(averaged(tmp_path, "WM", "csd").coefficients, SHAPE_OF["WM"])
    np.testing.assert_allclose(averaged(tmp_path, "WM").coefficients, 2 * SHAPE_OF["WM"])


def test_the_sidecar_names_the_sources(tmp_path):
    put(tmp_path, "01")
    average(tmp_path)
    path = tmp_path / "group" / "model-ss2t_label-WM_response.json"
    sources = json.loads(path.read_text())["Sources"]
    assert sources == ["bids::sub-01/dwi/sub-01_model-ss2t_label-WM_response.txt"]


def test_another_run_takes_the_average(tmp_path):
    put(tmp_path / "out", "01", model="csd")
    average(tmp_path / "out")
    dataset = write_dataset(tmp_path / "bids")
    config = FodfConfig(response=(str(tmp_path / "out" / "group"),))
    plan = make_plan(dataset, tmp_path / "out", tmp_path / "work", Config(fodf=config))
    (path,) = fodf_of(config, plan.runs[0]).response
    assert path.endswith("group/model-csd_label-WM_response.txt")


def test_shells_that_differ_are_refused_with_the_model_and_tissue(tmp_path):
    put(tmp_path, "01")
    put(tmp_path, "02", bval=3000.0)
    with pytest.raises(InputError, match=r"of CSF \(ss2t\) cannot be averaged") as caught:
        average(tmp_path)
    assert caught.value.remedy


def test_a_folder_without_responses_ends_with_2(tmp_path, capsys):
    (tmp_path / "out").mkdir()
    assert main([str(tmp_path), str(tmp_path / "out"), "group"]) == 2
    assert "no response functions" in capsys.readouterr().err


def test_the_command_says_what_it_did(tmp_path, capsys):
    put(tmp_path, "01")
    work = str(tmp_path / "work")
    assert main([str(tmp_path), str(tmp_path), "group", "-w", work]) == 0
    said = capsys.readouterr().out
    assert "average of 1 participant(s)" in said
    assert "no connectomes" in said


def test_a_session_can_be_chosen(tmp_path):
    put(tmp_path, "01", scale=2.0, session="A")
    put(tmp_path, "01", scale=4.0, session="B")
    average(tmp_path, sessions=["ses-B"])
    np.testing.assert_allclose(averaged(tmp_path, "WM").coefficients, 4.0 * SHAPE_OF["WM"])
