"""The whole app on a human brain, with and without a T1w."""

import shutil

import numpy as np
import pandas as pd
import pytest
from apps import run_app, validator_errors
from datasets import real_data

from difftract_bids.io.images import load_volume
from difftract_bids.io.tractograms import read_tractogram

pytestmark = pytest.mark.external
ATLAS = "Schaefer100TianS1"


@pytest.fixture(scope="module")
def data():
    return real_data()


@pytest.fixture(scope="module", params=["with T1w", "without T1w"])
def finished(request, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("human")
    dataset = data / "ds-human-3mm"
    # Every vertex: they are counted below, voxel by voxel.
    options = ["--n-seeds", "10000", "--tractogram-tolerance-mm", "0"]
    if request.param == "without T1w":
        dataset = shutil.copytree(dataset, folder / "bids")
        shutil.rmtree(dataset / "sub-01" / "anat")
        # Noise and motion are not of the T1w; the run that has one corrects them.
        options += ["--denoise-method", "none", "--motion-correction", "none"]
    options += ["--atlases", f"{ATLAS}={data / 'atlases'}"]
    done = run_app(
        dataset,
        folder / "out",
        "participant",
        *options,
        "-w",
        folder / "work",
        TEMPLATEFLOW_HOME=str(data / "templateflow"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "out"


def test_the_validator_finds_no_error(finished):
    assert validator_errors(finished) == []


def test_every_node_lies_in_the_brain_and_left_is_left(finished):
    folder = finished / "sub-01" / "dwi"
    labels, vox2ras = load_volume(folder / f"sub-01_atlas-{ATLAS}_dseg.nii.gz", dtype=np.int32)
    table = pd.read_csv(folder / f"sub-01_atlas-{ATLAS}_nodeindices.tsv", sep="\t")
    assert len(table) == 116
    assert (table["volume_mm3"] > 0).all()
    x_mm = {
        name: (vox2ras @ [*np.argwhere(labels == index).mean(axis=0), 1])[0]
        for index, name in zip(table["index"], table["name"], strict=True)
    }
    pairs = [(x_mm[name], x_mm[name[:-2] + "rh"]) for name in x_mm if name.endswith("-lh")]
    assert len(pairs) == 8
    assert all(left + 3 < right for left, right in pairs)


def test_white_matter_is_where_streamlines_are(finished):
    folder = finished / "sub-01" / "dwi"
    points_mm, _ = read_tractogram(folder / "sub-01_model-sdstream_tractogram.trx")
    fa, vox2ras = load_volume(folder / "sub-01_model-tensor_param-fa_dwimap.nii.gz")
    mask = load_volume(folder / "sub-01_desc-brain_mask.nii.gz").data > 0
    voxel = np.linalg.inv(vox2ras) @ np.c_[points_mm, np.ones(len(points_mm))].T
    visited = np.zeros(mask.shape)
    np.add.at(visited, tuple(np.rint(voxel[:3]).astype(int)), 1)
    assert visited[~mask].sum() == 0
    assert np.corrcoef(visited[mask], fa[mask])[0, 1] > 0.3


def test_both_hemispheres_are_connected_alike_and_more_within_than_between(finished):
    folder = finished / "sub-01" / "dwi"
    frame = pd.read_csv(folder / f"sub-01_atlas-{ATLAS}_meas-count_relmat.dense.tsv", sep="\t")
    table = pd.read_csv(folder / f"sub-01_atlas-{ATLAS}_nodeindices.tsv", sep="\t")
    left, right = ((table["hemisphere"] == side).to_numpy() for side in ("left", "right"))
    counts = frame.to_numpy()
    within_left, within_right = counts[left][:, left].sum(), counts[right][:, right].sum()
    assert within_left == pytest.approx(within_right, rel=0.2)
    # The corpus callosum is there, and is not all there is.
    assert 0.05 < 2 * counts[left][:, right].sum() / counts.sum() < 0.3
