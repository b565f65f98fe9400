"""What QSIPrep and fMRIPrep leave behind, through the app."""

import json

import numpy as np
import pytest
from apps import make_phantom, run_app, validator_errors
from derivative_trees import make_fmriprep_tree, make_qsiprep_tree

from difftract_bids.io.images import load_volume

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """A phantom with a session, and two runs."""
    folder = tmp_path_factory.mktemp("derivatives") / "bids"
    return make_phantom(folder, "--voxel-size", "5", "--n-runs", "2", "--n-sessions", "1")


def run(dataset, name, *options):
    out = dataset.parent / f"out_{name}"
    truth = f"Phantom={dataset / 'derivatives' / 'truth'}"
    # What is asked below is where images come from and go to, not how well they are tracked.
    short = ["--response-algorithm", "fa", "--n-seeds", "500"]
    common = ["--atlases", truth, "ICBM100", "-w", dataset.parent / "work", *short]
    done = run_app(dataset, out, "participant", *common, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def names(folder, suffix):
    return sorted(path.name for path in folder.rglob(f"*{suffix}"))


@pytest.fixture(scope="module")
def after_qsiprep(dataset):
    """Both runs as QSIPrep left them, tracked."""
    tree = make_qsiprep_tree(dataset, dataset.parent / "qsiprep")
    return run(dataset, "qsiprep", "--derivatives", f"qsiprep={tree}")


def test_what_qsiprep_has_done_is_not_done_again(after_qsiprep):
    assert not names(after_qsiprep, "_timeseries.tsv")
    assert not names(after_qsiprep, "_from-T1w_to-dwi_mode-image_xfm.txt")
    assert len(names(after_qsiprep, "_tractogram.trx")) == 2


def test_the_report_says_whose_results_were_used(after_qsiprep):
    page = (after_qsiprep / "sub-01.html").read_text()
    assert "qsiprep 1.0.1" in page.lower()
    assert "Streamlines obey tissue" in page


def test_names_and_sources_are_those_of_the_run_and_of_the_given_dataset(after_qsiprep):
    (first, _) = names(after_qsiprep, "_desc-preproc_dwi.nii.gz")
    assert first == "sub-01_ses-01_run-1_desc-preproc_dwi.nii.gz"
    sidecar = json.loads(next(after_qsiprep.rglob("*run-1_desc-preproc_dwi.json")).read_text())
    assert sidecar["Sources"] == [
        "bids:qsiprep:sub-01/ses-01/dwi/sub-01_ses-01_run-1_space-ACPC_desc-preproc_dwi.nii.gz"
    ]
    assert validator_errors(after_qsiprep) == []


def test_nodes_of_the_given_labels_end_up_in_the_brain(after_qsiprep):
    for path in after_qsiprep.rglob("*run-1_atlas-ICBM100_dseg.nii.gz"):
        labels = load_volume(path, ndim=3, dtype=np.int32).data
        assert len(np.unique(labels)) > 95


@pytest.fixture(scope="module")
def after_fmriprep(dataset):
    """Both runs made one here, with fMRIPrep's anatomy."""
    tree = make_fmriprep_tree(dataset, dataset.parent / "fmriprep")
    steps = ("denoise-method", "motion-correction", "bias-correction")
    quick = [word for step in steps for word in (f"--{step}", "none")]
    given = ["--derivatives", f"fmriprep={tree}", "--combine-runs", "--act", "on"]
    return run(dataset, "fmriprep", *given, *quick)


def test_runs_are_combined_and_the_anatomy_is_fmripreps(dataset, after_fmriprep):
    (series,) = names(after_fmriprep, "_desc-preproc_dwi.nii.gz")
    assert series == "sub-01_ses-01_desc-preproc_dwi.nii.gz"
    volumes = load_volume(next(after_fmriprep.rglob(series)), ndim=4).data.shape[3]
    parts = sorted(dataset.rglob("sub-01_ses-01_run-*_dwi.nii.gz"))
    assert volumes == sum(load_volume(path, ndim=4).data.shape[3] for path in parts) > 0
    page = (after_fmriprep / "sub-01.html").read_text()
    assert "fmriprep" in page.lower()
    assert validator_errors(after_fmriprep) == []


def test_the_tissues_are_those_of_the_given_labels(after_fmriprep):
    (path,) = after_fmriprep.rglob("*_label-5tt_probseg.nii.gz")
    tissues = load_volume(path, ndim=4).data
    sums = tissues.sum(axis=3)
    assert np.allclose(sums[sums > 0], 1, atol=1e-3)
    assert set(np.unique(tissues.round(3))) == {0, 1}
    assert tissues[..., 1].any()  # deep grey matter, which labels know
