"""MRtrix's ``5ttcheck`` on five-tissue-type images, and ``5tt2gmwmi`` on a real T1w."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from datasets import real_data
from mrtrix import run_mrtrix

from difftract_bids.bids.templates import NILEARN_TEMPLATE, template_t1w
from difftract_bids.io.images import Volume, load_volume, save_volume
from difftract_bids.io.transforms import LinearTransform
from difftract_bids.preprocessing.five_tissue_types import (
    five_tissues_from_labels,
    five_tissues_from_t1w,
)
from difftract_bids.preprocessing.registration import register_nonlinear
from difftract_bids.preprocessing.t1w_brain import t1w_brain_mask

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(shutil.which("5ttcheck") is None, reason="MRtrix3 is not on the PATH"),
]


def checked(image: Volume, folder: Path) -> Path:
    """Have an image checked; of sums that are not 1, 5ttcheck only warns."""
    path = save_volume(image.data, image.vox2ras, folder / "5tt.nii.gz")
    done = subprocess.run(["5ttcheck", str(path)], capture_output=True, text=True, check=False)
    assert "checked OK" in done.stderr, done.stderr
    return path


def test_labels_pass_the_check(tmp_path):
    labels = np.zeros((16, 16, 16), np.int32)
    labels[2:14, 2:14, 2:14], labels[4:12, 4:12, 4:12], labels[7:9, 7:9, 7:9] = 1005, 2, 10
    vox2ras = np.diag([-1.0, 1, 1, 1])
    checked(five_tissues_from_labels(labels, vox2ras).image, tmp_path)


def test_a_wrong_image_does_not_pass(tmp_path):
    wrong = Volume(np.full((8, 8, 8, 5), 0.5, np.float32), np.eye(4))
    with pytest.raises(AssertionError, match="non-unity"):
        checked(wrong, tmp_path)


def test_a_real_t1w_passes_and_has_an_interface_of_grey_and_white_matter(tmp_path):
    t1w = load_volume(real_data() / "ds-human-3mm/sub-01/anat/sub-01_T1w.nii.gz", ndim=3)
    template = load_volume(template_t1w(NILEARN_TEMPLATE, tmp_path), ndim=3)
    head = t1w.data > 0.15 * np.percentile(t1w.data, 98)
    mapping = register_nonlinear(t1w, template, fixed_mask=head)
    brain = t1w_brain_mask(t1w, template, [LinearTransform(np.eye(4)), mapping])
    image, notes = five_tissues_from_t1w(t1w, brain, [mapping])
    assert not notes
    path = checked(image, tmp_path)
    volume_ml = image.data.sum(axis=(0, 1, 2)) * np.prod(image.voxel_sizes_mm) / 1000
    assert np.all(volume_ml > (400, 30, 350, 150, -1))
    assert np.all(volume_ml < (800, 80, 650, 500, 1))
    interface = tmp_path / "gmwmi.nii.gz"
    run_mrtrix("5tt2gmwmi", path, interface, "-quiet")
    amount = load_volume(interface, ndim=3).data
    assert (amount > 0.1).mean() > 0.02
