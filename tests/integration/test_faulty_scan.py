"""A scan with known faults, through the app: motion, a flipped axis, coil bias, noise."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from apps import make_phantom, run_app
from scipy.spatial.transform import Rotation

from difftract_bids.io.gradients import read_gradients
from difftract_bids.io.images import load_volume

pytestmark = pytest.mark.integration
FAULTS = ("--voxel-size", "4", "--motion", "1.5", "1.5", "--flip", "y", "--bias", "0.3")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """A head that moves by up to 3 mm and 3 degrees along each axis, between volumes."""
    folder = tmp_path_factory.mktemp("faulty") / "bids"
    dataset = make_phantom(folder, *FAULTS, "--snr", "25")
    shutil.rmtree(dataset / "sub-01" / "anat")  # nothing here is of the anatomy
    return dataset


@pytest.fixture(scope="module")
def out(dataset):
    """Its derivatives."""
    folder = dataset.parent / "out"
    truth = f"Phantom={dataset / 'derivatives' / 'truth'}"
    # All that repairs the scan is at its defaults; what follows is short, as none of it is read.
    short = ["--response-algorithm", "fa", "--n-seeds", "200", "--no-tractogram"]
    options = ["--fix-gradients", *short, "--atlases", truth]
    done = run_app(dataset, folder, "participant", *options, "-w", dataset.parent / "work")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def truth_of(dataset):
    folder = dataset / "derivatives" / "truth" / "sub-01" / "dwi"
    return json.loads((folder / "sub-01_simulation.json").read_text())


def test_what_is_left_of_the_motion_is_below_half_a_millimetre_and_half_a_degree(dataset, out):
    truth = truth_of(dataset)
    table = pd.read_csv(out / "sub-01" / "dwi" / "sub-01_desc-confounds_timeseries.tsv", sep="\t")
    turned = Rotation.from_euler("xyz", truth["MotionRotationDeg"], degrees=True)
    found = Rotation.from_euler("xyz", table[["rot_x", "rot_y", "rot_z"]].to_numpy())
    left_deg = np.rad2deg((found * turned.inv()).magnitude())
    mask = load_volume(out / "sub-01" / "dwi" / "sub-01_desc-brain_mask.nii.gz", ndim=3)
    voxel = np.argwhere(mask.data > 0).mean(axis=0)
    centre = mask.vox2ras[:3, :3] @ voxel + mask.vox2ras[:3, 3]
    # True translations are of the scanner's origin, the table's of the brain's centre.
    moved = turned.apply(centre) - centre + np.array(truth["MotionTranslationMM"])
    left_mm = np.linalg.norm(table[["trans_x", "trans_y", "trans_z"]].to_numpy() - moved, axis=1)
    assert np.abs(truth["MotionTranslationMM"]).max() > 2.5
    assert left_mm.max() < 0.5
    assert left_deg.max() < 0.5


def test_the_flipped_axis_is_mended_and_the_report_says_so(dataset, out):
    folder = out / "sub-01" / "dwi"
    image = load_volume(folder / "sub-01_desc-preproc_dwi.nii.gz", ndim=4)
    stem = str(folder / "sub-01_desc-preproc_dwi")
    found = read_gradients(f"{stem}.bval", f"{stem}.bvec", image.vox2ras)
    raw = str(dataset / "sub-01" / "dwi" / "sub-01_dwi")
    given = read_gradients(f"{raw}.bval", f"{raw}.bvec", image.vox2ras)
    flip = np.linalg.inv(image.vox2ras[:3, :3] / 4) @ given.bvecs.T
    flip[1] *= -1
    true = (image.vox2ras[:3, :3] / 4 @ flip).T
    turned = Rotation.from_euler("xyz", truth_of(dataset)["MotionRotationDeg"], degrees=True)
    true = turned.inv().apply(true)
    weighted = ~found.b0_mask
    cosine = np.abs((found.bvecs * true).sum(axis=1))[weighted]
    assert np.rad2deg(np.arccos(np.clip(cosine, 0, 1))).max() < 0.6
    assert "with the axes x -y z in place of x y z" in (out / "sub-01.html").read_text()


def test_the_bias_is_gone(dataset, out):
    folder = dataset / "derivatives" / "truth" / "sub-01" / "dwi"
    true = load_volume(next(folder.glob("*_biasfield.nii.gz")), ndim=3).data
    tissue = load_volume(folder / "sub-01_desc-tissue_dseg.nii.gz", ndim=3).data
    white = tissue == 2
    raw = load_volume(dataset / "sub-01" / "dwi" / "sub-01_dwi.nii.gz", ndim=4).data[..., 0]
    found = load_volume(out / "sub-01" / "dwi" / "sub-01_dwiref.nii.gz", ndim=3).data

    def unevenness(image):
        return np.std(image[white]) / np.mean(image[white])

    assert unevenness(true) > 0.08
    assert unevenness(found) < 0.5 * unevenness(raw)
