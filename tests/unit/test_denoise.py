import nibabel as nib
import numpy as np
import pytest
from dipy.denoise.localpca import mppca

from difftract_bids.errors import InputError
from difftract_bids.interfaces.denoising import DenoiseDWI
from difftract_bids.interfaces.reportlets.preprocessing import PlotDenoising
from difftract_bids.io.gradients import GradientTable
from difftract_bids.phantom.dataset import write_phantom
from difftract_bids.phantom.settings import PhantomConfig
from difftract_bids.phantom.signal import add_rician_noise
from difftract_bids.preprocessing.denoise import denoise_mppca, patch_radius
from difftract_bids.preprocessing.patch2self import denoise_patch2self
from difftract_bids.preprocessing.residual import residual_structure
from difftract_bids.preprocessing.rician import channel_noise, typical_noise

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
    # DIPY leaves out the degrees of freedom that the signal takes: one for the mean, three here.
    np.testing.assert_allclose(sigma, expected_sigma * np.sqrt(125 / 121), rtol=0.02)


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


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    """A head without noise, its brain, and its gradient files' stem."""
    folder = tmp_path_factory.mktemp("denoising") / "phantom"
    config = PhantomConfig(
        snr=np.inf,
        voxel_size_mm=5.0,
        t1w_voxel_size_mm=6.0,
        shells_s_mm2=(3000.0,),
        n_directions=60,
    )
    write_phantom(folder, config)
    stem = folder / "sub-01" / "dwi" / "sub-01_dwi"
    tissue = folder / "derivatives/truth/sub-01/dwi/sub-01_desc-tissue_dseg.nii.gz"
    brain = np.isin(np.asarray(nib.load(tissue).dataobj), (1, 2, 3))
    return np.asarray(nib.load(f"{stem}.nii.gz").dataobj).astype(np.float32), brain, stem


@pytest.mark.parametrize("snr", [15.0, 30.0])
def test_the_noise_of_a_channel_is_found_at_high_b_values(phantom, snr):
    truth, brain, _ = phantom
    noise = 1000 / snr
    noisy = add_rician_noise(truth, noise, np.random.default_rng(0))
    denoised, magnitude_sd = denoise_mppca(noisy.astype(np.float32))
    sigma = channel_noise(magnitude_sd, denoised)
    assert np.median(sigma[brain]) == pytest.approx(noise, rel=0.05)
    assert typical_noise(sigma, denoised) == pytest.approx(noise, rel=0.05)
    assert np.abs(sigma[brain] / noise - 1).mean() < np.abs(magnitude_sd[brain] / noise - 1).mean()


def test_the_noise_of_a_channel_is_half_as_much_again_as_that_of_an_empty_magnitude_image():
    noise = add_rician_noise(np.zeros((20, 20, 20, 30)), SIGMA, np.random.default_rng(2))
    magnitude_sd = np.full((20, 20, 20), noise.std(), dtype=np.float32)
    sigma = channel_noise(magnitude_sd, np.full(noise.shape, noise.mean(), dtype=np.float32))
    assert np.median(magnitude_sd) == pytest.approx(0.655 * SIGMA, rel=0.01)
    assert np.median(sigma) == pytest.approx(SIGMA, rel=0.12)


def test_the_phantom_comes_out_cleaner_and_what_was_removed_has_no_structure(phantom):
    truth, brain, _ = phantom
    noisy = add_rician_noise(truth, 40.0, np.random.default_rng(3)).astype(np.float32)
    denoised, _ = denoise_mppca(noisy)

    def error(image):
        return np.sqrt(np.mean((image - truth)[brain] ** 2))

    assert error(denoised) < 0.6 * error(noisy)
    found = residual_structure(noisy, denoised, brain)
    blurred = noisy.copy()
    blurred[1:-1] = (noisy[:-2] + noisy[1:-1] + noisy[2:]) / 3
    wrong = residual_structure(noisy, blurred, brain)
    assert abs(found.neighbour_correlation) < 0.08
    assert found.anatomy_correlation < 0.06
    assert wrong.anatomy_correlation > 3 * found.anatomy_correlation


def test_patch2self_removes_noise_too(phantom):
    truth, brain, _ = phantom
    gradients = GradientTable(np.repeat([0.0, 3000.0], [6, 60]), np.zeros((66, 3)))
    noisy = add_rician_noise(truth, 60.0, np.random.default_rng(3)).astype(np.float32)
    order = np.argsort(noisy[brain].mean(axis=0))[::-1]  # b=0 first
    cut = np.s_[8:-8, 8:-8, 8:-8]
    denoised = denoise_patch2self(noisy[cut][..., order], gradients)
    after = (denoised - truth[cut][..., order])[brain[cut]]
    before = (noisy - truth)[cut][brain[cut]]
    assert after.std() < 0.8 * before.std()
    assert (denoised >= 0).all()


def test_patch2self_refuses_what_it_cannot_predict():
    few = GradientTable(np.repeat([0.0, 1000.0], [1, 7]), np.zeros((8, 3)))
    with pytest.raises(InputError, match="too few; 10 are needed"):
        denoise_patch2self(np.ones((5, 5, 5, 8), dtype=np.float32), few)
    enough = GradientTable(np.repeat([0.0, 1000.0], [1, 12]), np.zeros((13, 3)))
    with pytest.raises(InputError, match="1625 of 1625 values"):
        denoise_patch2self(np.full((5, 5, 5, 13), np.nan, dtype=np.float32), enough)


def test_the_step_keeps_the_noise_map_and_its_figure_is_drawn(phantom, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    truth, _, stem = phantom
    noisy = add_rician_noise(truth, 40.0, np.random.default_rng(3))
    nib.save(nib.Nifti1Image(np.rint(noisy).astype(np.int16), np.diag([5.0, 5, 5, 1])), "dwi.nii")
    done = DenoiseDWI(dwi="dwi.nii").run().outputs
    assert done.noise_sd == pytest.approx(40.0, rel=0.05)
    left = DenoiseDWI(dwi="dwi.nii", denoise_method="none").run().outputs
    np.testing.assert_array_equal(nib.load(left.dwi).dataobj, nib.load("dwi.nii").dataobj)
    figure = PlotDenoising(
        raw="dwi.nii", denoised=done.dwi, sigma=done.sigma, raw_bval=f"{stem}.bval"
    ).run()
    svg = (tmp_path / figure.outputs.out_report).read_text()
    assert svg.count("<image") == 8
