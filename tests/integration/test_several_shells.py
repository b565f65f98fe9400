"""Three tissues, the group level, and fODFs from elsewhere, as a user runs them."""

import json
import re
import shutil

import numpy as np
import pytest
from apps import make_phantom, run_app, validator_errors

from difftract_bids.io.fodf_images import load_fodf
from difftract_bids.io.images import load_volume
from difftract_bids.phantom.agreement import Connectome, agreement

pytestmark = pytest.mark.integration
QUICK = [
    *("--denoise-method", "none", "--motion-correction", "none", "--bias-correction", "none"),
    *("--n-seeds", "3000", "--no-tractogram"),
]
MATRIX = "sub-01/dwi/sub-01_atlas-Phantom_meas-count_relmat.dense.tsv"
STEM = "sub-01/dwi/sub-01_model-msmtcsd"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """One participant with two shells, on a coarse grid, and nothing else: no T1w is read here."""
    folder = tmp_path_factory.mktemp("shells") / "bids"
    dataset = make_phantom(folder, "--shells", "1000", "2500", "--voxel-size", "5")
    shutil.rmtree(dataset / "sub-01" / "anat")
    return dataset


def run(dataset, *options):
    out, work = dataset.parent / "out", dataset.parent / "work"
    truth = f"Phantom={dataset / 'derivatives' / 'truth'}"
    common = [*QUICK, "--atlases", truth, "-w", work]
    return out, run_app(dataset, out, "participant", *common, *options)


@pytest.fixture(scope="module")
def finished(dataset):
    """A run with the settings chosen by the data."""
    return run(dataset)


def test_three_tissues_are_fitted_and_the_reason_is_told_everywhere(finished):
    out, done = finished
    assert done.returncode == 0, done.stdout + done.stderr
    reason = "there are 2 usable shells besides b=0"
    assert f"fODF model msmtcsd for 1 run(s), first sub-01: {reason}" in done.stdout
    assert reason in (out / "sub-01.html").read_text()
    sidecar = json.loads((out / f"{STEM}_param-fod_label-WM_dwimap.json").read_text())
    assert sidecar["FODFModelReason"].startswith(reason)
    assert sidecar["Normalised"] is True
    assert sidecar["ResponseEstimation"]["Method"] == "dhollander"
    assert "Jeurissen" in (out / "CITATION.md").read_text()


def test_the_validator_finds_no_error_in_tissues_responses_and_the_group(dataset, finished):
    out, _ = finished
    done = run_app(dataset, out, "group")
    assert done.returncode == 0, done.stderr
    assert len(list((out / "group").glob("*_response.txt"))) == 3
    assert validator_errors(out) == []


def test_the_sum_of_the_normalised_tissues_is_even(finished):
    out, _ = finished
    names = (f"{STEM}_param-fod_label-{tissue}_dwimap.nii.gz" for tissue in ("WM", "GM", "CSF"))
    total = sum(load_volume(out / name).data[..., 0] for name in names)
    mask = load_volume(out / "sub-01" / "dwi" / "sub-01_desc-brain_mask.nii.gz").data > 0
    assert np.median(total[mask]) == pytest.approx(1 / np.sqrt(4 * np.pi), rel=0.05)
    assert np.isfinite(total).all()


def test_the_connectome_agrees_with_the_true_one(dataset, finished):
    truth = Connectome.read(dataset / "derivatives" / "truth" / MATRIX)
    found = agreement(Connectome.read(finished[0] / MATRIX), truth)
    assert found.r_log_counts > 0.4
    assert found.sensitivity > 0.6


def test_a_second_run_takes_the_groups_responses_and_saves_in_another_basis(dataset, finished):
    out, _ = finished
    assert run_app(dataset, out, "group").returncode == 0
    fodf = out / f"{STEM}_param-fod_label-WM_dwimap.nii.gz"
    before = load_fodf(fodf).sh_coeffs
    _, done = run(dataset, "--response", out / "group", "--sh-basis", "descoteaux07")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fodf response" not in done.stdout
    sidecar = json.loads(fodf.with_suffix("").with_suffix(".json").read_text())
    assert sidecar["ResponseEstimation"]["Method"] == "given"
    assert "descoteaux" in sidecar["OrientationEncoding"]["SphericalHarmonicBasis"]
    again = load_fodf(fodf)
    # The average of one participant is that participant's own, and reading undoes the conversion.
    np.testing.assert_allclose(again.sh_coeffs, before, atol=1e-4)
    assert again.basis_found == "descoteaux07"


def test_a_saved_image_given_back_is_tracked_as_it_was(dataset, finished):
    out, _ = finished
    fodf = dataset.parent / "kept" / "sub-01_fod.nii.gz"
    fodf.parent.mkdir()
    source = out / f"{STEM}_param-fod_label-WM_dwimap"
    for end in (".nii.gz", ".json"):
        target = fodf.with_name(f"sub-01_fod{end}")
        target.write_bytes(source.with_name(source.name + end).read_bytes())
    counts = (out / MATRIX).read_bytes()
    _, done = run(dataset, "--input-fodf", fodf.parent / "sub-{subject}_fod.nii.gz")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (out / "sub-01/dwi/sub-01_model-given_param-fod_dwimap.nii.gz").is_file()
    assert (out / MATRIX).read_bytes() == counts
    assert re.search(r"given.*an fODF image was given", done.stdout)
