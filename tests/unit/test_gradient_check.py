from pathlib import Path

import numpy as np
import pytest
from datasets import real_data

from difftract_bids.errors import GradientError
from difftract_bids.interfaces.gradients import CheckGradients
from difftract_bids.io.gradients import GradientTable, read_gradients, to_fsl_bvecs
from difftract_bids.io.images import load_volume
from difftract_bids.phantom.dataset import write_phantom
from difftract_bids.phantom.settings import PhantomConfig
from difftract_bids.preprocessing.gradient_check import (
    AXIS_CHANGES,
    AxisChange,
    changed,
    check_gradients,
)

SMALL = {"voxel_size_mm": 5.0, "t1w_voxel_size_mm": 6.0, "n_directions": 15, "n_b0": 2}


def make(folder, **settings):
    """Write a phantom: the stem of its series."""
    write_phantom(folder, PhantomConfig(**{**SMALL, **settings}))
    return folder / "sub-01" / "dwi" / "sub-01_dwi"


def load(stem):
    dwi, vox2ras = load_volume(f"{stem}.nii.gz", ndim=4)
    return dwi, read_gradients(f"{stem}.bval", f"{stem}.bvec", vox2ras), vox2ras


def undoes(check, change):
    product = check.best.matrix @ change.matrix
    return np.allclose(product, np.eye(3)) or np.allclose(product, -np.eye(3))


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    return make(tmp_path_factory.mktemp("right") / "phantom")


def test_the_24_changes_are_all_there_are():
    signed = {tuple(np.ravel(c.matrix * s)) for c in AXIS_CHANGES for s in (1, -1)}
    assert len(AXIS_CHANGES) == 24
    assert len(signed) == 48
    assert AXIS_CHANGES[0].is_identity
    assert str(AxisChange((1, 0, 2), 2)) == "y x -z"


def test_a_right_table_is_right_and_every_flip_and_permutation_is_found(phantom):
    dwi, gradients, vox2ras = load(phantom)
    for change in AXIS_CHANGES:
        check = check_gradients(dwi, changed(gradients, change, vox2ras), vox2ras)
        assert undoes(check, change), change
        assert check.is_sure, change
        assert check.is_wrong != change.is_identity


@pytest.mark.parametrize("axes", ["LAS", "RAS", "RPI", "ASR"])
def test_oblique_and_mirrored_grids_with_motion_and_noise_are_no_obstacle(tmp_path, axes):
    pose = {"axes": axes, "oblique_deg": 20.0, "motion_sd_mm": 1.5, "motion_sd_deg": 1.5}
    fault = {"flip": "y", "permute": "zxy"}
    stem = make(tmp_path / "phantom", snr=15.0, n_directions=30, **pose, **fault)
    dwi, gradients, vox2ras = load(stem)
    check = check_gradients(dwi, gradients, vox2ras)
    assert undoes(check, AxisChange((2, 0, 1), 1))


@pytest.mark.parametrize("n_directions", [6, 12])
def test_few_directions_are_enough(tmp_path, n_directions):
    stem = make(tmp_path / "phantom", n_directions=n_directions, flip="x", snr=20.0)
    dwi, gradients, vox2ras = load(stem)
    check = check_gradients(dwi, gradients, vox2ras)
    assert check.best == AxisChange(reversed_axis=0)
    assert check.is_wrong


def test_an_image_without_fibres_gives_no_verdict():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(13, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    gradients = GradientTable(
        np.repeat([0.0, 1000.0], [1, 12]), np.r_[np.zeros((1, 3)), vectors[1:]]
    )
    ball = np.linalg.norm(np.indices((24, 24, 24)) - 11.5, axis=0) < 10
    dwi = ball[..., None] * np.where(gradients.b0_mask, 1000.0, 450.0)
    noisy = dwi + 90 * rng.normal(size=dwi.shape)
    for series in (dwi, noisy, np.zeros_like(dwi)):
        assert not check_gradients(series, gradients, np.diag([-2.0, 2, 2, 1])).is_sure


def test_a_table_of_another_series_is_refused(phantom):
    dwi, gradients, vox2ras = load(phantom)
    with pytest.raises(GradientError, match="16 volumes"):
        check_gradients(dwi[..., 1:], gradients, vox2ras)


def test_the_step_warns_and_mends_if_asked(phantom, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, right, vox2ras = load(phantom)
    wrong = to_fsl_bvecs(right.bvecs, vox2ras)[[1, 0, 2]] * [[1], [1], [-1]]
    np.savetxt("wrong.bvec", wrong)
    files = {"dwi": f"{phantom}.nii.gz", "bval": f"{phantom}.bval", "bvec": "wrong.bvec"}
    warned = CheckGradients(**files).run().outputs
    np.testing.assert_array_equal(np.loadtxt(warned.bvec), wrong)
    assert "y x -z" in warned.notes[0]
    assert "--fix-gradients" in warned.notes[0]
    mended = CheckGradients(**files, fix_gradients=True).run().outputs
    found = read_gradients(mended.bval, mended.bvec, vox2ras).bvecs
    cosine = np.abs((found * right.bvecs).sum(axis=1))[~right.b0_mask]
    np.testing.assert_allclose(cosine, 1, atol=1e-5)
    assert "were mended" in mended.notes[0]
    lines = Path(mended.table).read_text().splitlines()
    assert len(lines) == 25
    assert lines[1].startswith("y x -z\t")
    sound = (
        CheckGradients(**{**files, "bvec": f"{phantom}.bvec"}, fix_gradients=True).run().outputs
    )
    assert sound.notes == []
    assert sound.bvec == f"{phantom}.bvec"


@pytest.mark.external
@pytest.mark.parametrize("run", ["ds-human-3mm/sub-01", "ds-human/sub-01", "ds-human/sub-02"])
def test_real_tables_are_right_and_their_faults_are_found(run):
    participant = run.split("/")[1]
    dwi, gradients, vox2ras = load(real_data() / run / "dwi" / f"{participant}_dwi")
    for change in AXIS_CHANGES[:: 1 if "3mm" in run else 7]:
        check = check_gradients(dwi, changed(gradients, change, vox2ras), vox2ras)
        assert undoes(check, change), change
        assert check.is_sure, change
