"""Peaks beside MRtrix3's sh2peaks, on real fODFs."""

from __future__ import annotations

import shutil

import nibabel as nib
import numpy as np
import pytest
from mrtrix import human_scene, run_mrtrix

from difftract_bids.modelling.fodf_maps import peaks

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(shutil.which("sh2peaks") is None, reason="MRtrix3 is not on the PATH"),
]

N_PEAKS = 3
#: sh2peaks takes peaks for one whose cosine exceeds 0.99.
SEPARATION_DEG = 8.11


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Peaks of each voxel of the brain, ours and theirs, (voxel, peak, 3); absent ones zero."""
    folder = tmp_path_factory.mktemp("human")
    scene = human_scene("ds-human-3mm", folder)
    file = folder / "peaks.nii"
    options = ("-num", N_PEAKS, "-mask", scene.mask_file, "-threshold", 0, "-quiet")
    run_mrtrix("sh2peaks", scene.fod_file, file, *options, "-nthreads", 1)
    theirs = np.nan_to_num(np.asarray(nib.load(file).dataobj))
    inside = scene.mask.numpy()
    loose = {"cutoff": 0.0, "relative_cutoff": 0.0, "separation_deg": SEPARATION_DEG}
    ours = peaks(scene.fodf.numpy(), inside, N_PEAKS, **loose)
    return [image[inside].reshape(-1, N_PEAKS, 3) for image in (ours, theirs)]


def compared(both, which):
    """Share of voxels with the same direction and amplitude, and of those with another."""
    ours, theirs = (image[:, which] for image in both)
    height = [np.linalg.norm(peak, axis=1) for peak in (ours, theirs)]
    across = np.linalg.norm(np.cross(ours, theirs), axis=1)
    angle = np.rad2deg(np.arctan2(across, np.abs((ours * theirs).sum(axis=1))))
    present = (height[0] > 0.1) | (height[1] > 0.1)
    same = (angle < 0.5) & (np.abs(height[0] - height[1]) < 1e-3)
    assert present.sum() > 1000
    return (
        same[present].mean(),
        (height[0] > height[1] + 1e-3)[present].mean(),
        (height[1] > height[0] + 1e-3)[present].mean(),
    )


def test_the_first_peak_is_sh2peaks(both):
    same, ours_higher, theirs_higher = compared(both, 0)
    assert same > 0.9995
    assert theirs_higher < 2e-4
    assert ours_higher < 2e-4


@pytest.mark.parametrize("which", [1, 2])
def test_smaller_peaks_are_sh2peaks(both, which):
    # Sixty starting directions and a thousand overlook other shallow peaks.
    same, ours_higher, theirs_higher = compared(both, which)
    assert same > 0.99
    assert theirs_higher < 5e-3
    assert ours_higher < 5e-3
