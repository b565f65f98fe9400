"""Weights of streamlines as files, and the step that makes them."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch
from problems import scaling, sharp_sh

from difftract_bids.config.weights import SIFT2Config
from difftract_bids.errors import ConfigError, InputError
from difftract_bids.interfaces.weighting import WeighStreamlines
from difftract_bids.io.streamline_arrays import StreamlineArrays
from difftract_bids.io.tractograms import write_tractogram
from difftract_bids.io.weights import read_weights, write_weights

X, Y, _ = torch.eye(3, dtype=torch.float64)
AFFINE = scaling(2.0, (-9.0, 4.0, 1.0)).numpy()
SHAPE = (10, 10, 3)


def test_weights_come_back_from_our_table_with_nine_digits(tmp_path):
    weights = np.array([0.0, 1.0, 1 / 3, 1.234567891e-7, 98765.4321])
    path = write_weights(tmp_path / "deep" / "weights.tsv", weights)
    assert path.read_text().splitlines()[:3] == ["weight", "0", "1"]
    np.testing.assert_allclose(read_weights(path, 5), weights, rtol=1e-9)


@pytest.mark.parametrize(
    "text",
    [
        "# command_history: tcksift2 a.tck fod.mif w.txt  (version=3.0.3)\n0.5 2 1e-3 \n",
        "0.5\n2\n0.001\n",
        "0.5,2,.001",
        "sift2_weight\n0.5\n2\n0.001\n",
        "\n  # by hand\n0.5\t2\n\n0.001",
    ],
)
def test_weights_of_other_programs_are_read(text, tmp_path):
    path = tmp_path / "weights.txt"
    path.write_text(text)
    assert read_weights(path).tolist() == [0.5, 2.0, 0.001]


@pytest.mark.parametrize("text", ["", "weight\n", "# nothing\n"])
def test_no_weights_are_an_empty_file(text, tmp_path):
    path = tmp_path / "weights.tsv"
    path.write_text(text)
    assert read_weights(path, 0).tolist() == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1 2", "There are 2 weights for 3 streamlines"),
        ("1 2 3 4", "There are 4 weights for 3 streamlines"),
        ("1 -2 3", "1 of 3 streamline weights are negative or not finite.*number 1"),
        ("1 2 inf", "number 2, counted from 0: inf"),
        ("nan\n2\n3", "number 0, counted from 0: nan"),
        ("1\nweight\n3", "Not all streamline weights are numbers"),
        ("a b c", "Not all streamline weights are numbers"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_its_name(text, said, tmp_path):
    path = tmp_path / "weights.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=said) as caught:
        read_weights(path, 3)
    assert str(path) in str(caught.value)
    assert caught.value.remedy


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_weights(tmp_path / "none.txt")
    (tmp_path / "image.nii.gz").write_bytes(b"\x1f\x8b\xff\xfe")
    with pytest.raises(InputError, match="cannot be read"):
        read_weights(tmp_path / "image.nii.gz")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sift2_total_variation", -0.1),
        ("sift2_tikhonov", float("inf")),
        ("sift2_min_density_fraction", 1.0),
        ("sift2_min_cost_decrease", -1e-6),
        ("sift2_max_step", 0.0),
        ("sift2_max_iterations", 0),
        ("sift2_max_weight", 0.0),
        ("sift2_min_streamlines", -1),
    ],
)
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(ConfigError, match=name):
        SIFT2Config(**{name: value})


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """Two bundles that cross, one with ten times the streamlines; one streamline is outside."""
    folder = tmp_path_factory.mktemp("scene")
    fodf = torch.zeros(*SHAPE, 45)
    fodf[:, 3:7] += sharp_sh(X).float()
    fodf[3:7] += sharp_sh(Y).float()
    nib.save(nib.Nifti1Image(fodf.numpy(), AFFINE), folder / "fodf.nii.gz")
    mask = (fodf[..., 0] > 0).numpy().astype(np.uint8)
    nib.save(nib.Nifti1Image(mask, AFFINE), folder / "mask.nii.gz")
    lines = []
    for n, along in ((200, 0), (20, 1)):
        for place in np.linspace(2.6, 6.4, n):
            line = np.full((2, 3), place)
            line[:, along] = [-0.4, 9.4]
            line[:, 2] = 1.0
            lines.append(line @ AFFINE[:3, :3].T + AFFINE[:3, 3])
    lines.insert(3, np.array([[300.0, 0, 0], [310, 0, 0]]))
    write_lines(lines, folder / "tractogram.trx")
    return folder


def write_lines(lines, path):
    points = np.concatenate([np.zeros((0, 3)), *lines]).astype(np.float32)
    offsets = np.cumsum([0, *(len(line) for line in lines)])
    write_tractogram(StreamlineArrays(points, offsets), path, vox2ras=AFFINE, shape=SHAPE)


def weigh(scene, folder, tractogram="tractogram.trx", **inputs):
    inputs = {"brain_mask": scene / "mask.nii.gz", "fodf": scene / "fodf.nii.gz"} | inputs
    step = WeighStreamlines(tractogram=scene / tractogram, **inputs)
    folder.mkdir(exist_ok=True)
    return step.run(cwd=folder).outputs


def test_weights_are_in_the_order_of_the_tractogram(scene, tmp_path, monkeypatch):
    done = weigh(scene, tmp_path)
    weights = read_weights(done.weights, 221)
    assert weights[3] == 0
    assert (np.delete(weights, 3) > 0).all()
    # Both bundles have the same fODFs.
    assert np.delete(weights, 3)[:200].sum() == pytest.approx(weights[201:].sum(), rel=0.05)
    # However the file is read.
    monkeypatch.setattr("difftract_bids.interfaces.weighting._MAX_POINTS", 50)
    again = weigh(scene, tmp_path / "again", num_threads=2)
    np.testing.assert_array_equal(read_weights(again.weights), weights)


def test_the_sidecar_tells_how_well_the_weights_fit(scene, tmp_path):
    said = weigh(scene, tmp_path, sift2_total_variation=0.01).metadata
    assert said["Mu"] > 0
    assert said["Model"]["Parameters"]["TotalVariation"] == 0.01
    assert said["Misfit"]["After"] < 0.5 * said["Misfit"]["Before"]
    assert said["Converged"] is True
    counts = said["Counts"]
    assert counts["Streamlines"] == 221
    assert counts["StreamlinesOutside"] == 1
    assert 0 < counts["FixelsFitted"] <= counts["FixelsWithStreamlines"] < counts["Fixels"]
    assert "10.1016/j.neuroimage.2015.06.092" in said["Model"]["URL"]


def test_a_fit_that_was_cut_short_is_told(scene, tmp_path):
    done = weigh(scene, tmp_path, sift2_max_iterations=1)
    assert any("ended after 1 iterations" in note for note in done.notes)
    assert weigh(scene, tmp_path).notes == []


def test_many_streamlines_outside_are_told(scene, tmp_path):
    mask = np.zeros(SHAPE, np.uint8)
    mask[:, 2:4] = 1
    nib.save(nib.Nifti1Image(mask, AFFINE), tmp_path / "half.nii.gz")
    done = weigh(scene, tmp_path, brain_mask=tmp_path / "half.nii.gz")
    outside = int((read_weights(done.weights) == 0).sum())
    assert outside > 100
    assert any(f"{outside} of 221 streamlines run through no fODF lobe" in n for n in done.notes)


def test_an_empty_tractogram_has_no_weights_and_that_is_told(scene, tmp_path):
    write_lines([], scene / "empty.trx")
    done = weigh(scene, tmp_path, "empty.trx")
    assert read_weights(done.weights, 0).tolist() == []
    assert done.notes == ["The tractogram is empty, and so are its weights."]


def test_a_tractogram_elsewhere_is_refused(scene, tmp_path):
    write_lines([np.array([[300.0, 0, 0], [310, 0, 0]])], scene / "elsewhere.trx")
    with pytest.raises(InputError, match="None of 1 streamlines runs through"):
        weigh(scene, tmp_path, "elsewhere.trx")


def test_a_mask_of_another_grid_is_refused(scene, tmp_path):
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), AFFINE), tmp_path / "other.nii.gz")
    with pytest.raises(InputError, match="4 by 4 by 4 voxels"):
        weigh(scene, tmp_path, brain_mask=tmp_path / "other.nii.gz")
