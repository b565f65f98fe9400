import nibabel as nib
import numpy as np
import pytest

from difftract_bids.interfaces.denoising import RemoveGibbs
from difftract_bids.preprocessing.gibbs import (
    decide_unringing,
    is_interpolated,
    remove_gibbs,
    slice_axis,
)

FULL = {"PartialFourier": 1}


def truncated(fine, size):
    """Sample the middle of an image's k-space: each side falls to ``size``, and rings."""
    k_space = np.fft.fftshift(np.fft.fft2(fine, axes=(0, 1)), axes=(0, 1))
    first = (fine.shape[0] - size) // 2
    middle = k_space[first : first + size, first : first + size]
    return (
        np.fft.ifft2(np.fft.ifftshift(middle, axes=(0, 1)), axes=(0, 1)).real
        * (size / fine.shape[0]) ** 2
    )


@pytest.fixture(scope="module")
def disc():
    """A bright disc on grey: with ringing, and as averages over its voxels."""
    x, y = np.meshgrid(*[np.arange(256) + 0.5] * 2, indexing="ij")
    fine = 300.0 + 700.0 * (np.hypot(x - 128, y - 128) < 70)
    rung = truncated(fine, 64)
    blocks = fine.reshape(64, 4, 64, 4).mean(axis=(1, 3))
    return np.repeat(rung[:, :, None], 3, axis=2)[..., None], blocks


@pytest.fixture(scope="module")
def noisy():
    """White noise on a smooth image."""
    rng = np.random.default_rng(0)
    x, y, _ = np.meshgrid(*(np.linspace(-1, 1, n) for n in (64, 64, 8)), indexing="ij")
    return (500 * np.exp(-3 * (x**2 + y**2)) + rng.normal(0, 10, x.shape))[..., None]


def test_ringing_beside_an_edge_is_removed(disc):
    rung, truth = disc
    x, y = np.meshgrid(*[np.arange(64) - 31.5] * 2, indexing="ij")
    flat = np.abs(np.hypot(x, y) - 17.5) > 2.5
    before = np.abs(rung[:, :, 1, 0] - truth)[flat].mean()
    after = np.abs(remove_gibbs(rung)[:, :, 1, 0] - truth)[flat].mean()
    assert after < 0.5 * before


def test_slices_may_lie_across_any_axis(disc):
    rung, _ = disc
    turned = remove_gibbs(np.moveaxis(rung, 2, 0), axis=0)
    np.testing.assert_allclose(np.moveaxis(turned, 0, 2), remove_gibbs(rung), atol=1e-2)
    assert slice_axis({"SliceEncodingDirection": "j-"}) == 1
    assert slice_axis({}) == 2


def test_an_interpolated_image_is_told_by_its_empty_k_space(noisy):
    k_space = np.fft.fftn(noisy[..., 0], axes=(0, 1))
    outer = np.abs(np.fft.fftfreq(64)) > 0.37
    for axes in ((0,), (1,), (0, 1)):
        cut = k_space.copy()
        for axis in axes:
            cut[(slice(None),) * axis + (outer,)] = 0
        filled = np.abs(np.fft.ifftn(cut, axes=(0, 1)))[..., None]
        assert is_interpolated(filled)
    assert not is_interpolated(noisy)


@pytest.mark.parametrize(
    ("metadata", "wanted", "reason"),
    [
        (FULL, True, ""),
        ({}, False, "does not say"),
        ({"PartialFourier": 0.75}, False, "only 0.75 of k-space"),
        ({"PartialFourier": "6/8"}, False, "not a number"),
        ({**FULL, "AcquisitionMatrixPE": 96, "ReconMatrixPE": 128}, False, "96 lines"),
        ({**FULL, "AcquisitionMatrixPE": 96, "ReconMatrixPE": 96}, True, ""),
    ],
)
def test_by_itself_it_is_on_only_where_that_is_known_to_be_right(noisy, metadata, wanted, reason):
    decision = decide_unringing("auto", metadata, noisy)
    assert decision.wanted == wanted
    assert reason in decision.note
    assert bool(decision.note) != wanted
    assert decide_unringing("subvoxel", metadata, noisy).wanted
    assert reason in decide_unringing("subvoxel", metadata, noisy).note
    assert not decide_unringing("none", metadata, noisy).wanted


def test_the_step_hands_on_the_image_as_it_is_where_it_does_nothing(disc, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rung, _ = disc
    nib.save(nib.Nifti1Image(rung.astype(np.float32), np.eye(4)), "dwi.nii")
    skipped = RemoveGibbs(dwi="dwi.nii", metadata={}).run().outputs
    assert skipped.dwi.endswith("dwi.nii")
    assert "PartialFourier" in skipped.notes[0]
    done = RemoveGibbs(dwi="dwi.nii", metadata={}, unringing_method="subvoxel").run().outputs
    np.testing.assert_allclose(nib.load(done.dwi).dataobj, remove_gibbs(rung), atol=1e-2)
    assert "as asked, although" in done.notes[0]
