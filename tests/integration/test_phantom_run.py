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
from difftract_bids.checks.table import read_checks
from difftract_bids.interfaces.connectome import BuildConnectome
from difftract_bids.io.images import load_volume
from difftract_bids.io.matrices import read_matrix
from difftract_bids.io.matrix_hdf5 import read_hdf5
from difftract_bids.io.tractograms import read_tractogram
from difftract_bids.phantom.agreement import Connectome, agreement
from difftract_bids.reports.placeholder import reason_not_drawn

pytestmark = pytest.mark.integration
MEASURES = ("count", "meanlength", "meanfa", "meanmd", "density", "sift2")
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
    done = run_app(dataset, out, "participant", *options_of(dataset))
    return out, done, before == snapshot(dataset)


def options_of(dataset):
    truth = f"Phantom={dataset / 'derivatives' / 'truth'}"
    return [
        *("--n-seeds", "4000", "--atlases", truth, "ICBM100", "-w", dataset.parent / "work"),
        *("--connectome-measures", *MEASURES, "--connectome-hdf5", "--streamline-assignments"),
        *("--sensitivity", "LH-Precentral-Brainstem", "total", "--edge-standard-errors"),
    ]


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


def test_sensitivities_are_maps_of_the_atlases_that_have_the_edge(finished):
    out, _, _ = finished
    folder = out / "sub-01" / "dwi"
    edge = "sub-01_atlas-Phantom_desc-LHPrecentralxBrainstem_param-"
    dwi = load_volume(folder / "sub-01_desc-preproc_dwi.nii.gz", ndim=4)
    by_signal = load_volume(folder / f"{edge}sensitivitydwi_dwimap.nii.gz", ndim=4)
    assert by_signal.data.shape == dwi.data.shape
    size = load_volume(folder / f"{edge}sensitivity_dwimap.nii.gz", ndim=3).data
    assert size.any()
    np.testing.assert_array_equal(size > 0, (by_signal.data != 0).any(axis=3) & (size > 0))
    sidecar = json.loads((folder / f"{edge}sensitivity_dwimap.json").read_text())
    assert sidecar["Edge"] == "LH-Precentral-Brainstem"
    assert sidecar["StreamlinesInvolved"] >= sidecar["SoftStreamlineCount"] > 0
    assert not list(folder.glob("*atlas-ICBM100_desc-LHPrecentral*"))
    assert (folder / "sub-01_atlas-ICBM100_desc-total_param-sensitivity_dwimap.nii.gz").exists()
    page = (out / "sub-01.html").read_text()
    assert page.count("label-LHPrecentralxBrainstem_desc-sensitivity") >= 1
    assert page.count("_desc-errors") >= 2


def test_standard_errors_have_the_nodes_of_the_counts(finished):
    out, _, _ = finished
    count, names = read_matrix(out / MATRIX)
    sd, same = read_matrix(out / MATRIX.replace("_relmat", "_stat-sd_relmat"))
    assert names == same
    np.testing.assert_allclose(sd, sd.T)
    assert (sd[count > 5] > 0).mean() > 0.9


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
    assert len(matrices) == 2 * (len(MEASURES) + 1)  # and the standard errors
    for path in matrices:
        frame = pd.read_csv(path, sep="\t")
        table = pd.read_csv(re.sub(r"_meas-.*", "_nodeindices.tsv", str(path)), sep="\t")
        assert list(frame.columns) == list(table["name"])
        np.testing.assert_array_equal(frame, frame.to_numpy().T)


def matrix_of(out, measure, atlas="Phantom"):
    name = f"sub-01_atlas-{atlas}_meas-{measure}_relmat.dense.tsv"
    return pd.read_csv(out / "sub-01" / "dwi" / name, sep="\t").to_numpy()


def test_measures_of_an_edge_fit_its_streamlines(finished):
    out = finished[0]
    there = matrix_of(out, "count") > 0
    assert there.sum() > 50
    for measure in MEASURES:
        assert ((matrix_of(out, measure) > 0) == there).mean() > 0.99, measure
    fa, md = matrix_of(out, "meanfa")[there], matrix_of(out, "meanmd")[there]
    assert 0.2 < np.median(fa) < 0.7
    assert 4e-4 < np.median(md) < 1.2e-3
    assert np.corrcoef(matrix_of(out, "sift2")[there], matrix_of(out, "count")[there])[0, 1] > 0.5


def test_the_saved_tractogram_gives_the_matrices_of_the_run(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = finished[0] / "sub-01" / "dwi"
    built = BuildConnectome(
        tractogram=str(folder / "sub-01_model-sdstream_tractogram.trx"),
        parcellation=str(folder / "sub-01_atlas-Phantom_dseg.nii.gz"),
        table=str(folder / "sub-01_atlas-Phantom_dseg.tsv"),
        images=[str(folder / "sub-01_model-tensor_param-fa_dwimap.nii.gz")],
        image_names=["fa"],
        sift2_weights=str(folder / "sub-01_model-sdstream_desc-sift2_weights.tsv"),
        connectome_measures=["count", "meanlength", "meanfa", "sift2"],
    ).run()
    for measure, tolerance in (("count", 0), ("sift2", 1e-6), ("meanlength", 1e-2)):
        again = read_matrix(built.outputs.matrices[measure])[0]
        expected = matrix_of(finished[0], measure)
        np.testing.assert_allclose(again, expected, rtol=tolerance, err_msg=measure)
    # Sampled along streamlines that were thinned by up to 0.1 mm.
    fa = read_matrix(built.outputs.meanfa)[0]
    np.testing.assert_allclose(fa, matrix_of(finished[0], "meanfa"), atol=0.02)


def test_the_nodes_of_streamlines_are_those_of_the_count_matrix(finished):
    out = finished[0]
    folder = out / "sub-01" / "dwi"
    table = pd.read_csv(folder / "sub-01_atlas-Phantom_assignments.tsv", sep="\t")
    weights = pd.read_csv(folder / "sub-01_model-sdstream_desc-sift2_weights.tsv", sep="\t")
    assert len(table) == len(weights)
    nodes = pd.read_csv(folder / "sub-01_atlas-Phantom_nodeindices.tsv", sep="\t")
    place = {index: i for i, index in enumerate(nodes["index"])}
    count = np.zeros((len(nodes), len(nodes)))
    for first, last in table[(table > 0).all(axis=1)].to_numpy():
        count[place[first], place[last]] += 1
    upper = np.triu(count) + np.tril(count, -1).T
    np.testing.assert_array_equal(np.triu(matrix_of(out, "count")), upper)
    totals = matrix_of(out, "count").sum(axis=1)
    np.testing.assert_array_equal(nodes["streamlines"], totals)


def test_one_hdf5_file_has_the_matrices_of_both_atlases(finished):
    out = finished[0]
    stored = read_hdf5(out / "sub-01" / "dwi" / "sub-01_desc-connectomes_relmat.h5")
    assert set(stored) == {"Phantom", "ICBM100"}
    for atlas, matrices in stored.items():
        assert set(matrices) == set(MEASURES)
        for measure, matrix in matrices.items():
            np.testing.assert_allclose(matrix, matrix_of(out, measure, atlas), rtol=1e-8)


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
    # Scripts name namespaces; what they ask for is seen in a browser.
    shown = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert "http://" not in re.sub(r'xmlns\S*="[^"]*"', "", shown)


def test_every_figure_that_was_promised_could_be_drawn(finished):
    out, done, _ = finished
    record = json.loads((out / "logs" / "finished" / "sub-01.json").read_text())
    figures = [path for path in record["Outputs"] if "/figures/" in path]
    assert len(figures) > 30
    reasons = {path: reason_not_drawn(out / path) for path in figures}
    assert {path: reason for path, reason in reasons.items() if reason} == {}
    assert "could not be drawn" not in done.stdout
    assert reason_not_drawn(out / "sub-01.html") is None
    checks = read_checks(out / "sub-01" / "dwi" / "sub-01_desc-checks_quality.tsv")
    assert {check.light for check in checks} <= {"good", "look"}, checks
    assert len(checks) > 10


def test_the_same_command_again_gives_the_same_results_without_computing_them(dataset, finished):
    out = finished[0]
    before = {path: path.read_bytes() for path in (out / "sub-01").rglob("*_relmat.dense.tsv")}
    options = ["--participant-label", "01", *options_of(dataset)]
    again = run_app(dataset, out, "participant", *options)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "track" not in again.stdout
    assert {path: path.read_bytes() for path in before} == before


def test_with_less_memory_than_a_step_is_thought_to_take_steps_run_alone(dataset, finished):
    out = finished[0]
    truth = f"Phantom={dataset / 'derivatives' / 'truth'}"
    options = ["--participant-label", "01", "--n-seeds", "77", "--mem-mb", "50"]
    work = ["--atlases", truth, "ICBM100", "-w", dataset.parent / "work"]
    done = run_app(dataset, out, "participant", *options, *work)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING: the largest step" in done.stdout
    sidecar = out / "sub-01" / "dwi" / "sub-01_model-sdstream_tractogram.json"
    assert sum(json.loads(sidecar.read_text())["Counts"]["SeedStatus"].values()) == 77


def test_cleaning_the_working_folder_leaves_what_is_not_ours(dataset, finished):
    work = dataset.parent / "work"
    (work / "thesis.txt").write_text("mine")
    options = ["--participant-label", "01", *options_of(dataset), "--clean-workdir"]
    done = run_app(dataset, finished[0], "participant", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (work / "thesis.txt").read_text() == "mine"
    # The other participant's steps are for whoever does it again.
    assert [path.name for path in work.glob("difftract-*/difftract_wf/sub_*")] == ["sub_02_wf"]
