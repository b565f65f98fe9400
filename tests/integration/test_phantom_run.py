"""The whole app on a phantom, as a user runs it."""

import json
import re

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from apps import make_phantom, run_app, validator_errors
from trx.trx_file_memmap import load as load_trx

from difftract_bids.bids.layout import open_derivatives
from difftract_bids.io.images import load_volume
from difftract_bids.io.tractograms import read_tractogram
from difftract_bids.phantom.agreement import Connectome, agreement

pytestmark = pytest.mark.integration
MATRIX = "sub-01/dwi/sub-01_atlas-Phantom_meas-count_relmat.dense.tsv"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Two participants; the second one's images hold nothing but a constant."""
    dataset = make_phantom(tmp_path_factory.mktemp("phantom") / "bids", "--n-subjects", "2")
    path = dataset / "sub-02" / "dwi" / "sub-02_dwi.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.full(image.shape, 7, np.int16), image.affine), path)
    return dataset


@pytest.fixture(scope="module")
def finished(dataset):
    """One run with two atlases: the subject's own and the built-in one."""
    out = dataset.parent / "out"
    before = snapshot(dataset)
    truth = f"Phantom={dataset / 'derivatives' / 'truth'}"
    options = ["--n-seeds", "4000", "--atlases", truth, "ICBM100", "-w", dataset.parent / "work"]
    done = run_app(dataset, out, "participant", *options)
    return out, done, before == snapshot(dataset)


def snapshot(folder):
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def test_the_good_participant_is_done_and_the_bad_one_named_with_the_reason(finished):
    _, done, _ = finished
    assert done.returncode == 1
    assert "sub-01: done" in done.stdout
    assert re.search(r"sub-02: FAILED.*Reason: .*brain", done.stdout), done.stdout + done.stderr


def test_the_report_of_a_failed_participant_says_so_at_the_top(finished):
    out, _, _ = finished
    assert "This run failed" in (out / "sub-02.html").read_text()
    assert "This run failed" not in (out / "sub-01.html").read_text()


def test_raw_data_are_not_touched(finished):
    assert finished[2]


def test_the_validator_finds_no_error_in_raw_data_and_derivatives(dataset, finished):
    assert validator_errors(dataset) == []
    assert validator_errors(finished[0]) == []


def test_the_connectome_agrees_with_the_true_one(dataset, finished):
    truth = Connectome.read(dataset / "derivatives" / "truth" / MATRIX)
    found = agreement(Connectome.read(finished[0] / MATRIX), truth)
    # A coarse grid, half the directions and a tenth of the seeds of the demo.
    assert found.r_log_counts > 0.5
    assert found.sensitivity > 0.8


def test_every_matrix_loads_with_a_line_of_pandas_and_is_symmetric(finished):
    matrices = sorted((finished[0] / "sub-01" / "dwi").glob("*_relmat.dense.tsv"))
    assert len(matrices) == 4
    for path in matrices:
        frame = pd.read_csv(path, sep="\t")
        table = pd.read_csv(re.sub(r"_meas-.*", "_nodeindices.tsv", str(path)), sep="\t")
        assert list(frame.columns) == list(table["name"])
        np.testing.assert_array_equal(frame, frame.to_numpy().T)


def test_the_tractogram_lies_in_the_brain_in_scanner_space(finished):
    folder = finished[0] / "sub-01" / "dwi"
    path = folder / "sub-01_model-sdstream_tractogram.trx"
    streamlines = read_tractogram(path)
    mask, vox2ras = load_volume(folder / "sub-01_desc-brain_mask.nii.gz")
    voxel = np.linalg.inv(vox2ras) @ np.c_[streamlines.points, np.ones(len(streamlines.points))].T
    inside = mask[tuple(np.rint(voxel[:3]).astype(int))] > 0
    assert inside.all()
    header = load_trx(str(path))
    np.testing.assert_allclose(header.header["VOXEL_TO_RASMM"], vox2ras, atol=1e-4)
    sidecar = json.loads(path.with_suffix(".json").read_text())
    assert sidecar["Counts"]["Streamlines"] == streamlines.n_streamlines > 500
    assert sum(sidecar["Counts"]["SeedStatus"].values()) == 4000


def test_the_t1w_lies_over_the_diffusion_data(finished):
    folder = finished[0] / "sub-01"
    t1w, t1w_vox2ras = load_volume(folder / "anat" / "sub-01_space-dwi_desc-preproc_T1w.nii.gz")
    fa, vox2ras = load_volume(folder / "dwi" / "sub-01_model-tensor_param-fa_dwimap.nii.gz")
    voxels = np.argwhere(fa > 0)
    there = np.linalg.inv(t1w_vox2ras) @ vox2ras @ np.c_[voxels, np.ones(len(voxels))].T
    values = t1w[tuple(np.rint(there[:3]).astype(int))]
    # White matter is bright in a T1w and anisotropic.
    assert np.corrcoef(values, fa[tuple(voxels.T)])[0, 1] > 0.4


def test_our_pybids_configuration_finds_what_stock_pybids_drops(finished):
    layout = open_derivatives(finished[0])
    (path,) = layout.get(
        subject="01", atlas="ICBM100", meas="meanlength", suffix="relmat", extension=".dense.tsv"
    )
    assert path.path.endswith("_atlas-ICBM100_meas-meanlength_relmat.dense.tsv")


def test_sidecars_name_their_sources_and_those_exist(dataset, finished):
    out = finished[0]
    for sidecar in (out / "sub-01").rglob("*.json"):
        for uri in json.loads(sidecar.read_text()).get("Sources", []):
            scheme, name, path = uri.split(":", 2)
            assert scheme == "bids"
            assert ((dataset if name == "raw" else out) / path).is_file(), (sidecar.name, uri)


def test_the_report_shows_every_figure(finished):
    page = (finished[0] / "sub-01.html").read_text()
    for figure in (finished[0] / "sub-01" / "figures").glob("*.svg"):
        assert figure.name in page
    assert "Tournier" in page
    assert "http://" not in re.sub(r'xmlns\S*="[^"]*"', "", page)


def test_the_same_command_again_gives_the_same_results_without_computing_them(dataset, finished):
    out = finished[0]
    before = {path: path.read_bytes() for path in (out / "sub-01").rglob("*_relmat.dense.tsv")}
    truth = f"Phantom={dataset / 'derivatives' / 'truth'}"
    options = ["--n-seeds", "4000", "--atlases", truth, "ICBM100", "-w", dataset.parent / "work"]
    again = run_app(dataset, out, "participant", "--participant-label", "01", *options)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "track" not in again.stdout
    assert {path: path.read_bytes() for path in before} == before


def test_a_run_that_cannot_start_is_not_done_because_an_earlier_one_was(dataset, finished):
    out = finished[0]
    truth = f"Phantom={dataset / 'derivatives' / 'truth'}"
    options = ["--participant-label", "01", "--n-seeds", "77", "--mem-mb", "50"]
    work = ["--atlases", truth, "ICBM100", "-w", dataset.parent / "work"]
    done = run_app(dataset, out, "participant", *options, *work)
    assert done.returncode == 1
    assert "sub-01: FAILED" in done.stdout


def test_cleaning_the_working_folder_leaves_what_is_not_ours(dataset, finished):
    work = dataset.parent / "work"
    (work / "thesis.txt").write_text("mine")
    truth = f"Phantom={dataset / 'derivatives' / 'truth'}"
    options = ["--n-seeds", "4000", "--atlases", truth, "ICBM100", "-w", work, "--clean-workdir"]
    done = run_app(dataset, finished[0], "participant", "--participant-label", "01", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path.name for path in work.iterdir()] == ["thesis.txt"]
