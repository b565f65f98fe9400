import numpy as np
import pytest
from datasets import real_data

from difftract_bids.errors import GradientError, InputError
from difftract_bids.io.gradients import GradientTable, read_gradients
from difftract_bids.io.images import load_volume
from difftract_bids.preprocessing.mask import brain_mask
from difftract_bids.preprocessing.reference import b0_reference


def ball(shape, centre, radius):
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return ((grid - centre) ** 2).sum(axis=-1) <= radius**2


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


@pytest.fixture
def head():
    """A bright brain with a bright ventricle, a thin scalp, an eye on a stalk, and noise."""
    shape = (48, 50, 44)
    brain = ball(shape, (24, 24, 22), 15)
    scalp = ball(shape, (24, 24, 22), 20) & ~ball(shape, (24, 24, 22), 19)
    eye = ball(shape, (24, 43, 22), 3)
    stalk = np.zeros(shape, dtype=bool)
    stalk[23:26, 36:42, 21:24] = True
    b0 = np.abs(np.random.default_rng(0).normal(0, 5, size=shape))
    b0 += 300.0 * brain + 100.0 * scalp + 400.0 * (eye | stalk)
    b0[ball(shape, (24, 24, 22), 3)] = 0  # a hole inside
    return b0.astype(np.float32), brain


def test_the_brain_is_found_filled_and_freed_of_the_eye(head):
    b0, brain = head
    mask = brain_mask(b0, np.full(3, 2.5))
    assert dice(mask, brain) > 0.97
    assert mask[24, 24, 22]
    assert not mask[24, 43, 22]


def test_masked_data_keep_their_mask(head):
    b0, brain = head
    assert dice(brain_mask(b0 * brain, np.full(3, 2.5)), brain) > 0.98


def test_scale_and_nan_do_not_change_the_mask(head):
    b0, _ = head
    expected = brain_mask(b0, np.full(3, 2.5), 0.4 * b0)
    spoilt = 1e4 * b0
    spoilt[0, 0, 0] = np.nan
    np.testing.assert_array_equal(brain_mask(spoilt, np.full(3, 2.5), b0), expected)


def test_a_brain_cut_by_the_field_of_view_keeps_its_cut_face(head):
    b0, brain = head
    mask = brain_mask(b0[:, :, 16:], np.full(3, 2.5))
    assert mask[:, :, 0].sum() > 0.95 * brain[:, :, 16].sum()


@pytest.mark.parametrize("level", [0.0, 7.0])
def test_a_flat_image_has_no_brain(level):
    with pytest.raises(InputError, match="same value everywhere"):
        brain_mask(np.full((20, 20, 20), level, dtype=np.float32), np.ones(3))


def test_a_mask_of_nearly_everything_is_refused():
    full = np.full((30, 30, 30), 100.0, dtype=np.float32)
    full[0] = 0
    with pytest.raises(InputError, match="of all voxels are in the mask"):
        brain_mask(full, np.full(3, 2.5))


def test_a_speck_is_no_brain():
    speck = np.zeros((30, 30, 30), dtype=np.float32)
    speck[10:12, 10:12, 10:12] = 1
    with pytest.raises(InputError, match="No brain mask"):
        brain_mask(speck, np.full(3, 2.5))


def table(bvals):
    bvecs = np.zeros((len(bvals), 3))
    bvecs[:, 0] = 1
    return GradientTable(np.asarray(bvals, dtype=float), bvecs)


def test_the_reference_is_the_mean_of_the_b0_volumes_without_a_dropout():
    dwi = np.ones((4, 4, 4, 6), dtype=np.float32) * np.array([100, 104, 10, 96, 50, 50])
    reference = b0_reference(dwi, table([0, 5, 0, 0, 1000, 1000]))
    np.testing.assert_allclose(reference, 100.0)
    assert reference.dtype == np.float32


def test_a_reference_needs_a_b0_volume_and_a_table_that_fits():
    dwi = np.ones((4, 4, 4, 3), dtype=np.float32)
    with pytest.raises(GradientError, match="No volume"):
        b0_reference(dwi, table([1000, 1000, 1000]))
    with pytest.raises(GradientError, match="3 volumes"):
        b0_reference(dwi, table([0, 1000]))


def test_a_real_head_gives_a_mask_of_plausible_volume_that_leaves_out_the_eyes():
    stem = real_data() / "ds-human-3mm" / "sub-01" / "dwi" / "sub-01_dwi"
    image = load_volume(f"{stem}.nii.gz", ndim=4)
    gradients = read_gradients(f"{stem}.bval", f"{stem}.bvec", image.vox2ras)
    mask = brain_mask(
        b0_reference(image.data, gradients),
        image.voxel_sizes_mm,
        image.data[..., ~gradients.b0_mask].mean(axis=-1),
    )
    litres = mask.sum() * np.prod(image.voxel_sizes_mm) * 1e-6
    assert 1.3 < litres < 1.65
