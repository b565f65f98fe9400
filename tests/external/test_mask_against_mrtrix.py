"""The brain mask beside MRtrix3's, on a real acquisition."""

import shutil

import pytest
from datasets import real_data
from mrtrix import run_mrtrix

from difftract_bids.io.gradients import read_gradients
from difftract_bids.io.images import load_volume
from difftract_bids.preprocessing.mask import brain_mask
from difftract_bids.preprocessing.reference import b0_reference

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(shutil.which("dwi2mask") is None, reason="MRtrix3 is not on the PATH"),
]


def test_the_brain_mask_agrees_with_dwi2mask(tmp_path):
    stem = real_data() / "ds-human-3mm" / "sub-01" / "dwi" / "sub-01_dwi"
    image = load_volume(f"{stem}.nii.gz", ndim=4)
    gradients = read_gradients(f"{stem}.bval", f"{stem}.bvec", image.vox2ras)
    weighted = image.data[..., ~gradients.b0_mask].mean(axis=-1)
    mask = brain_mask(b0_reference(image.data, gradients), image.voxel_sizes_mm, weighted)
    table = ("-fslgrad", f"{stem}.bvec", f"{stem}.bval")
    run_mrtrix("dwi2mask", f"{stem}.nii.gz", tmp_path / "mask.nii", *table)
    theirs = load_volume(tmp_path / "mask.nii").data > 0
    assert 2 * (mask & theirs).sum() / (mask.sum() + theirs.sum()) > 0.97
