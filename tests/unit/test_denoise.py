import numpy as np
import pytest
from dipy.denoise.localpca import mppca

from difftract_bids.errors import InputError
from difftract_bids.preprocessing.denoise import denoise_mppca, patch_radius

SIGMA = 5.0


@pytest.fixture(scope="module")
def low_rank():
    """Three smooth components over space and volumes: the truth, and the truth with noise."""
    rng = np.random.default_rng(1)
    x, y, z = np.meshgrid(*(np.linspace(0, 1, n) for n in (13, 12, 11)), indexing="ij")
    maps = np.stack([np.ones_like(x), np.sin(3 * x) * y, np.cos(4 * z)], axis=-1)
    truth = 300 + 60 * maps @ rng.normal(size=(3, 30))
    noisy = truth + SIGMA * rng.normal(size=truth.shape)
    return truth.astype(np.float32), noisy.astype(np.float32)


def test_noise_is_removed_and_its_level_found(low_rank):
    truth, noisy = low_rank
    denoised, sigma = denoise_mppca(noisy)
    assert np.sqrt(np.mean((denoised - truth) ** 2)) < 0.45 * SIGMA
    assert np.median(sigma) == pytest.approx(SIGMA, rel=0.05)


def test_with_every_patch_it_is_the_estimate_of_dipy(low_rank):
    noisy = low_rank[1][:8, :8, :7]
    expected, expected_sigma = mppca(noisy, patch_radius=2, return_sigma=True)
    denoised, sigma = denoise_mppca(noisy, stride=1)
    np.testing.assert_allclose(denoised, expected, atol=5e-3)
    np.testing.assert_allclose(sigma, expected_sigma, atol=1e-3)


def test_pure_signal_comes_back_unchanged(low_rank):
    truth, _ = low_rank
    denoised, sigma = denoise_mppca(truth)
    np.testing.assert_allclose(denoised, truth, rtol=1e-4)
    assert sigma.max() < 0.01


def test_voxels_outside_the_mask_are_left_alone(low_rank):
    _, noisy = low_rank
    mask = np.zeros(noisy.shape[:3], dtype=bool)
    mask[:5] = True
    denoised, sigma = denoise_mppca(noisy, mask)
    whole, _ = denoise_mppca(noisy)
    np.testing.assert_array_equal(denoised[~mask], noisy[~mask])
    assert np.abs(denoised[mask] - noisy[mask]).max() > 1
    np.testing.assert_allclose(denoised[:3], whole[:3], atol=1e-3)
    assert (sigma[~mask] == 0).all()
    assert (sigma[mask] > 0).all()


def test_empty_background_stays_empty_and_nothing_is_nan(low_rank):
    noisy = low_rank[1].copy()
    noisy[:, :, :4] = 0
    denoised, sigma = denoise_mppca(noisy)
    assert np.isfinite(denoised).all()
    assert np.isfinite(sigma).all()
    assert (denoised[:, :, :4] == 0).all()


@pytest.mark.parametrize("shape", [(6, 5, 4, 7), (9, 9, 1, 12), (3, 3, 3, 40)])
def test_few_volumes_and_tiny_images_work(shape):
    noisy = np.random.default_rng(0).normal(100, SIGMA, size=shape).astype(np.float32)
    denoised, sigma = denoise_mppca(noisy)
    assert np.isfinite(denoised).all()
    assert denoised.std() < noisy.std()
    assert (sigma > 0).all()


def test_a_patch_has_more_voxels_than_there_are_volumes():
    for n_volumes in (2, 7, 26, 27, 70, 124, 125, 300):
        radius = patch_radius((50, 50, 50, n_volumes))
        assert np.prod(2 * radius + 1) > n_volumes
        assert radius[0] == 1 or np.prod(2 * (radius - 1) + 1) <= n_volumes


def test_what_cannot_be_denoised_is_refused():
    with pytest.raises(InputError, match="too small"):
        denoise_mppca(np.ones((2, 2, 2, 7), dtype=np.float32))
    with pytest.raises(InputError, match="at least 2 volumes"):
        denoise_mppca(np.ones((9, 9, 9, 1), dtype=np.float32))
    bad = np.ones((9, 9, 9, 7), dtype=np.float32)
    bad[0, 0, 0, :3] = np.nan
    with pytest.raises(InputError, match="3 of 5103 values"):
        denoise_mppca(bad)
