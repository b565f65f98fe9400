"""Tissues of a T1w: told apart in a simulated head, whatever its contrast, bias and grid."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from difftract_bids.errors import InputError
from difftract_bids.io.images import Volume
from difftract_bids.io.transforms import LinearTransform
from difftract_bids.phantom.geometry import load_geometry
from difftract_bids.phantom.pose import make_grid
from difftract_bids.phantom.signal import add_rician_noise, t1w_volume
from difftract_bids.phantom.tissue import Tissue, map_tissue
from difftract_bids.preprocessing.registration import resample
from difftract_bids.preprocessing.t1w_brain import box_around, cropped, t1w_brain_mask
from difftract_bids.preprocessing.tissue import CSF, GREY, WHITE, segment_tissues, unbiased

SIZES_MM = np.array([2.0, 2.0, 2.0])


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


@pytest.fixture(scope="session")
def simulated():
    """Give the head's T1w without noise, the true share of each tissue, and the brain."""
    grid = make_grid((186.0, 219.0, 171.0), 2.0, "RAS", 0.0)
    tissue = map_tissue(load_geometry(), grid.shape, grid.vox2ras, samples_per_axis=2)
    shares = tissue.fractions
    truth = {
        CSF: shares[..., Tissue.CSF],
        GREY: shares[..., Tissue.GREY],
        WHITE: shares[..., Tissue.WHITE],
    }
    brain = sum(truth.values()) > 0.5
    return Volume(1000 * t1w_volume(tissue), grid.vox2ras), truth, brain


@pytest.fixture(scope="session")
def segmented(simulated):
    t1w, _, brain = simulated
    noisy = add_rician_noise(t1w.data, 1000 / 30, np.random.default_rng(0))
    return segment_tissues(noisy, brain, SIZES_MM)


@pytest.mark.parametrize(("tissue", "least"), [(CSF, 0.9), (GREY, 0.9), (WHITE, 0.95)])
def test_tissues_are_found_in_noise(tissue, least, simulated, segmented):
    _, truth, brain = simulated
    true = np.stack([truth[kind] for kind in range(3)], axis=-1).argmax(axis=-1)
    assert dice((true == tissue) & brain, (segmented.argmax(axis=-1) == tissue) & brain) > least


def test_shares_add_up_to_one_in_the_brain_and_to_nothing_outside(simulated, segmented):
    brain = simulated[2]
    assert np.allclose(segmented[brain].sum(axis=-1), 1, atol=1e-5)
    assert not segmented[~brain].any()


def test_neighbours_settle_what_noise_leaves_open(simulated):
    t1w, truth, brain = simulated
    noisy = add_rician_noise(t1w.data, 1000 / 7, np.random.default_rng(0))
    found = segment_tissues(noisy, brain, SIZES_MM).argmax(axis=-1)
    core = ndimage.binary_erosion(truth[WHITE] > 0.99, iterations=2)
    means = [noisy[share > 0.99].mean() for share in truth.values()]
    nearest = np.abs(noisy[core][:, None] - means).argmin(axis=1)
    mistaken = (found[core] != WHITE).mean()
    assert (nearest != WHITE).mean() > 0.1
    assert mistaken < 0.02


def test_scale_and_offset_of_the_values_change_nothing(simulated, segmented):
    t1w, _, brain = simulated
    noisy = add_rician_noise(t1w.data, 1000 / 30, np.random.default_rng(0))
    other = segment_tissues(0.01 * noisy + 7, brain, SIZES_MM)
    assert np.abs(other - segmented).max() < 0.02


def test_a_speck_beyond_the_fluid_is_no_brain(simulated):
    t1w, truth, brain = simulated
    noisy = add_rician_noise(t1w.data, 1000 / 30, np.random.default_rng(0))
    depth = ndimage.distance_transform_cdt(truth[CSF] > 0.99, metric="chessboard")
    place = np.unravel_index(depth.argmax(), depth.shape)
    assert depth[place] > 1
    noisy[place] = 1000
    assert segment_tissues(noisy, brain, SIZES_MM)[place].argmax() == CSF


def test_a_bias_field_is_divided_out(simulated):
    t1w, truth, brain = simulated
    x, y, _ = np.indices(t1w.data.shape) / np.reshape(t1w.data.shape, (3, 1, 1, 1))
    biased = t1w.data * (0.7 + 0.5 * x + 0.2 * y)
    white = truth[WHITE] > 0.99
    even = unbiased(biased, brain, SIZES_MM)

    def spread(image):
        return image[white].std() / image[white].mean()

    assert spread(biased) > 0.07
    assert spread(even) < 0.01
    assert np.isfinite(even).all()


@pytest.mark.parametrize("what", ["flat", "empty"])
def test_an_image_without_tissues_is_refused(what):
    image = np.ones((12, 12, 12), np.float32)
    mask = np.full(image.shape, what == "flat")
    with pytest.raises(InputError, match="no tissues"):
        segment_tissues(image, mask, SIZES_MM)


@pytest.mark.parametrize("axes", ["RAS", "PIR", "LPI"])
def test_the_template_s_brain_is_found_in_the_t1w_however_it_is_stored(axes, simulated):
    t1w, _, brain = simulated
    place = LinearTransform(np.array([[0.95, 0.1, 0, 4], [-0.1, 0.95, 0, -6], [0, 0, 1, 3.0],
                                      [0, 0, 0, 1]]))  # fmt: skip
    grid = make_grid((186.0, 219.0, 171.0), 2.0, axes, 0.0)
    moved = Volume(resample(t1w, grid.shape, grid.vox2ras, [place]), grid.vox2ras)
    # The template's brain is 2 mm too small: the rim must follow the intensities.
    small = ndimage.binary_erosion(brain & (t1w.data > 400), iterations=1)
    template = Volume(np.where(ndimage.binary_fill_holes(small), t1w.data, 0), t1w.vox2ras)
    found = t1w_brain_mask(moved, template, [place])
    tissue = resample(Volume(1.0 * (brain & (t1w.data > 400)), t1w.vox2ras), grid.shape,
                      grid.vox2ras, [place]) > 0.5  # fmt: skip
    whole = resample(Volume(1.0 * brain, t1w.vox2ras), grid.shape, grid.vox2ras, [place]) > 0.2
    assert (found & tissue).sum() / tissue.sum() > 0.97
    assert (found & whole).sum() / found.sum() > 0.97


def test_there_is_no_brain_far_from_the_mask_of_the_diffusion_image(simulated):
    t1w, _, brain = simulated
    template = Volume(np.where(brain, t1w.data, 0), t1w.vox2ras)
    half = brain.copy()
    half[:, :, 40:] = False
    dwi_mask = Volume(half.astype(np.float32), t1w.vox2ras)
    found = t1w_brain_mask(t1w, template, [LinearTransform(np.eye(4))], dwi_mask)
    assert not found[:, :, 46:].any()
    assert found[:, :, 43].any()


def test_no_overlap_with_the_template_is_an_error(simulated):
    t1w, _, brain = simulated
    far = np.eye(4)
    far[:3, 3] = 1000
    template = Volume(np.where(brain, t1w.data, 0), t1w.vox2ras)
    with pytest.raises(InputError, match="No brain"):
        t1w_brain_mask(t1w, template, [LinearTransform(far)])


def test_a_box_keeps_the_mask_its_margin_and_the_place_of_every_voxel(simulated):
    t1w, _, brain = simulated
    vox2ras = nib.affines.from_matvec(np.diag([2.0, 3, -4]), (1, 2, 3))
    box = box_around(brain, vox2ras, 5.0)
    small = cropped(Volume(t1w.data, vox2ras), box)
    index = (4, 5, 6)
    there = tuple(first + side.start for first, side in zip(index, box, strict=True))
    assert small.data[index] == t1w.data[there]
    places = (
        nib.affines.apply_affine(*pair) for pair in ((small.vox2ras, index), (vox2ras, there))
    )
    assert np.allclose(*places)
    outer = np.argwhere(brain).min(axis=0) - [side.start for side in box]
    assert outer.tolist() == [3, 2, 2]
