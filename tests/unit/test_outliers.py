"""Slices that lost signal are found, and others are not."""

from __future__ import annotations

import numpy as np
import pytest

from difftract_bids.io.gradients import read_gradients
from difftract_bids.io.images import load_volume
from difftract_bids.phantom.dataset import write_phantom
from difftract_bids.phantom.settings import PhantomConfig
from difftract_bids.preprocessing.mask import brain_mask
from difftract_bids.preprocessing.outliers import find_outlier_slices


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outliers") / "raw"
    small = {"voxel_size_mm": 5.0, "t1w_voxel_size_mm": 6.0, "n_directions": 20}
    write_phantom(folder, PhantomConfig(**small, n_b0=3, snr=20.0))
    stem = folder / "sub-01" / "dwi" / "sub-01_dwi"
    image = load_volume(f"{stem}.nii.gz", ndim=4)
    gradients = read_gradients(f"{stem}.bval", f"{stem}.bvec", image.vox2ras)
    return image, gradients, brain_mask(image.data[..., 0], image.voxel_sizes_mm)


def look(scan, dwi):
    image, gradients, mask = scan
    still = np.tile(np.eye(4)[:3], (dwi.shape[3], 1, 1))
    return find_outlier_slices(dwi, image.vox2ras, still, gradients, mask)


def test_a_clean_series_has_hardly_any_outlier(scan):
    outliers, deviations = look(scan, scan[0].data)
    judged = np.isfinite(deviations)
    assert judged.mean() > 0.5
    assert outliers[judged].mean() < 0.001


def test_slices_are_where_the_slice_axis_says(scan):
    image, gradients, mask = scan
    dwi = image.data.copy()
    dwi[:, :, 15, 12] *= 0.5
    still = np.tile(np.eye(4)[:3], (dwi.shape[3], 1, 1))
    turned, order = [2, 0, 1], [2, 0, 1, 3]
    outliers, _ = find_outlier_slices(
        dwi.transpose(order), image.vox2ras[:, order], still, gradients, mask.transpose(turned),
        slice_axis=0,
    )  # fmt: skip
    assert np.argwhere(outliers).tolist() == [[15, 12]]


@pytest.mark.parametrize("left", [0.0, 0.8])
def test_slices_that_lost_signal_are_found_and_no_others(scan, left):
    dwi = scan[0].data.copy()
    dropped = [(8, 7), (15, 12), (16, 12), (20, 18), (12, 0)]
    for place, volume in dropped:
        dwi[:, :, place, volume] *= left
    outliers, _ = look(scan, dwi)
    assert set(zip(*map(np.ndarray.tolist, np.nonzero(outliers)), strict=True)) == set(dropped)
