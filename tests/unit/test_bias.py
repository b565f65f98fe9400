import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 (its customary name)

from difftract_bids.errors import InputError
from difftract_bids.interfaces.bias import CorrectBias
from difftract_bids.io.images import Volume, load_volume
from difftract_bids.phantom.bias import bias_field
from difftract_bids.phantom.dataset import write_phantom
from difftract_bids.phantom.settings import PhantomConfig
from difftract_bids.preprocessing.bias import estimate_bias
from difftract_bids.preprocessing.mask import brain_mask


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    """A head under a strong field: its folder."""
    folder = tmp_path_factory.mktemp("bias") / "phantom"
    config = PhantomConfig(voxel_size_mm=5.0, t1w_voxel_size_mm=6.0, n_directions=6, bias=0.3)
    return write_phantom(folder, config)


def mean_b0(folder):
    stem = folder / "sub-01" / "dwi" / "sub-01_dwi"
    data, vox2ras = load_volume(f"{stem}.nii.gz", ndim=4)
    b0 = data[..., np.loadtxt(f"{stem}.bval") < 50].mean(axis=-1)
    return Volume(b0, vox2ras)


def relative_error(found, true, mask):
    ratio = found[mask] / true[mask]
    return float((ratio / ratio.mean()).std())


def test_a_known_field_is_found_within_five_per_cent(phantom, record_property):
    b0 = mean_b0(phantom)
    mask = brain_mask(b0.data, b0.voxel_sizes_mm)
    path = phantom / "derivatives/truth/sub-01/dwi/sub-01_biasfield.nii.gz"
    true = np.asarray(nib.load(path).dataobj)
    found = estimate_bias(b0, mask)
    error, before = relative_error(found, true, mask), true[mask].std() / true[mask].mean()
    record_property("rms_error", error)
    assert before > 0.12
    assert error < 0.05
    assert np.corrcoef(found[mask], true[mask])[0, 1] > 0.97
    assert found[mask].mean() == pytest.approx(1.0, abs=1e-4)
    assert found.min() > 0
    assert found.max() < 1.3 * found[mask].max()


def test_an_image_without_bias_is_left_nearly_as_it_is(phantom):
    b0 = mean_b0(phantom)
    flat = Volume(b0.data / bias_field(b0.data.shape, b0.vox2ras, 0.3), b0.vox2ras)
    mask = brain_mask(flat.data, flat.voxel_sizes_mm)
    field = estimate_bias(flat, mask)
    assert relative_error(field, np.ones_like(field), mask) < 0.04


def test_the_field_does_not_depend_on_the_number_of_threads(phantom):
    b0 = mean_b0(phantom)
    mask = brain_mask(b0.data, b0.voxel_sizes_mm)
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    found = []
    for n_threads in (1, 4):
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(n_threads)
        found.append(estimate_bias(b0, mask))
        assert sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == n_threads
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
    assert np.array_equal(*found)


def test_a_single_slice_is_an_error_with_a_remedy(phantom):
    b0 = mean_b0(phantom)
    one = Volume(b0.data[:, :, 15:16], b0.vox2ras)
    with pytest.raises(InputError, match="--bias-correction none"):
        estimate_bias(one, np.ones(one.data.shape, bool))


def test_every_volume_is_divided_by_one_field(phantom, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stem = phantom / "sub-01" / "dwi" / "sub-01_dwi"
    b0 = mean_b0(phantom)
    mask = brain_mask(b0.data, b0.voxel_sizes_mm)
    nib.save(nib.Nifti1Image(mask.astype(np.uint8), b0.vox2ras), "mask.nii")
    files = {"dwi": f"{stem}.nii.gz", "bval": f"{stem}.bval", "bvec": f"{stem}.bvec"}
    done = CorrectBias(mask="mask.nii", **files).run().outputs
    before, after, field = (
        np.asarray(nib.load(path).dataobj) for path in (files["dwi"], done.dwi, done.field)
    )
    np.testing.assert_allclose(after * field[..., None], before, rtol=1e-4, atol=1e-2)
    true = bias_field(b0.data.shape, b0.vox2ras, 0.3)
    assert relative_error(field, true, mask) < 0.05


def test_an_empty_mask_is_refused(phantom):
    b0 = mean_b0(phantom)
    with pytest.raises(InputError, match="No voxel of the brain mask"):
        estimate_bias(b0, np.zeros(b0.data.shape, dtype=bool))
