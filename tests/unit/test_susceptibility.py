"""Susceptibility distortion: of the phantom, undone, and found again from the T1w."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from difftract_bids.errors import InputError
from difftract_bids.interfaces.susceptibility import EstimateSusceptibilityFromT1w, UndistortMask
from difftract_bids.io.images import Volume, load_volume, save_volume
from difftract_bids.phantom.dataset import write_phantom
from difftract_bids.phantom.distortion import displacement_mm, distort
from difftract_bids.phantom.geometry import load_geometry
from difftract_bids.phantom.head import Head
from difftract_bids.phantom.settings import PhantomConfig
from difftract_bids.preprocessing.susceptibility import (
    SMALLEST_STRETCH,
    displacement_from_field,
    estimate_from_t1w,
    undistort,
)

CONFIG = PhantomConfig(
    voxel_size_mm=4.0,
    t1w_voxel_size_mm=2.5,
    n_directions=6,
    n_b0=3,
    snr=25.0,
    distortion_mm=8.0,
    pose_sd_mm=0.0,
    pose_sd_deg=0.0,
)
TRUTH = "derivatives/truth/sub-01/dwi/sub-01_"


@pytest.fixture(scope="session")
def heads(tmp_path_factory):
    """Give the b=0 image, T1w, brain and true displacement with distortion and without it."""
    scans = {}
    for name, config in {"distorted": CONFIG, "still": replace(CONFIG, distortion_mm=0.0)}.items():
        root = write_phantom(tmp_path_factory.mktemp("head") / name, config)
        dwi = load_volume(root / "sub-01/dwi/sub-01_dwi.nii.gz", ndim=4)
        bvals = np.loadtxt(root / "sub-01/dwi/sub-01_dwi.bval")
        tissue = load_volume(root / (TRUTH + "desc-tissue_dseg.nii.gz"), ndim=3).data
        truth = root / (TRUTH + "displacement.nii.gz")
        scans[name] = (
            Volume(dwi.data[..., bvals < 50].mean(axis=-1), dwi.vox2ras),
            load_volume(root / "sub-01/anat/sub-01_T1w.nii.gz", ndim=3),
            (tissue > 0) & (tissue < 4),
            load_volume(truth, ndim=3).data if truth.exists() else np.zeros(tissue.shape),
        )
    return scans


def rms(values):
    return float(np.sqrt(np.mean(np.square(values))))


def bump(shape, height_mm):
    """Displacement of one bump along each axis, none at the edges."""
    field = np.full(shape, height_mm)
    for n, size in enumerate(shape):
        line = np.sin(np.pi * np.arange(size) / (size - 1)) ** 2
        field *= line.reshape([-1 if m == n else 1 for m in range(3)])
    return field


def ball(shape):
    grid = np.stack(np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in shape), indexing="ij"))
    return np.exp(-(grid**2).sum(axis=0) / (2 * 4.0**2))


@pytest.mark.parametrize("axis", "ijk")
def test_distortion_keeps_the_sum_along_its_axis_and_is_undone(axis):
    shape, n = (26, 28, 30), "ijk".index(axis)
    image, field = ball(shape), bump(shape, 5.0)
    distorted = distort(image, field, axis + "-", 2.0)
    np.testing.assert_allclose(
        distorted.sum(axis=n), image.sum(axis=n), atol=0.02 * image.sum(axis=n).max()
    )
    assert rms(distorted - image) > 0.03
    assert rms(undistort(distorted, field, axis, 2.0) - image) < 0.003


def test_what_belongs_at_x_lies_at_x_plus_d():
    image, field = np.zeros((3, 30, 3)), np.full((3, 30, 3), 4.0)
    image[1, 10, 1] = 1.0
    assert np.argmax(distort(image, field, "j", 2.0)[1, :, 1]) == 12
    assert np.argmax(undistort(image, field, "j", 2.0)[1, :, 1]) == 8


def test_a_mask_loses_its_distortion_as_its_image_does(tmp_path):
    grid = np.diag([-2.0, 2, 3, 1])
    mask, field = np.zeros((3, 30, 3), np.uint8), np.full((3, 30, 3), 4.0, np.float32)
    mask[1, 12:16, 1] = 1
    undistorted = UndistortMask(
        mask=str(save_volume(mask, grid, tmp_path / "distorted.nii.gz")),
        displacement=str(save_volume(field, grid, tmp_path / "displacement.nii.gz")),
        pe_direction="j-",
    )
    out = load_volume(undistorted.run(cwd=tmp_path).outputs.mask)
    assert np.flatnonzero(out.data[1, :, 1]).tolist() == [10, 11, 12, 13]


def test_the_truth_is_what_was_done_to_the_images(heads):
    (distorted, _, brain, truth), (still, *_) = heads["distorted"], heads["still"]
    assert 7.0 < np.abs(truth).max() <= 8.0
    mended = undistort(distorted.data, truth, "j", 4.0)
    strong = brain & (np.abs(truth) > 2.0)
    before, after = (rms((image - still.data)[strong]) for image in (distorted.data, mended))
    assert after < 0.5 * before


def test_phase_encoding_the_other_way_displaces_the_other_way(heads):
    dwiref, _, _, truth = heads["distorted"]
    geometry = load_geometry()
    head = Head(geometry, np.ones(len(geometry.bundles), int), np.eye(4))
    other = displacement_mm(head, truth.shape, dwiref.vox2ras, 8.0, "j")
    np.testing.assert_allclose(other, -truth, atol=1e-5)


def test_the_field_moves_with_the_head():
    geometry = load_geometry()
    head = Head(geometry, np.ones(len(geometry.bundles), int), np.eye(4))
    grid, motion = np.diag([5.0, 5, 5, 1]), np.eye(4)
    grid[:3, 3] = -80.0
    motion[:3, 3] = [10.0, -5.0, 0.0]
    still, moved = (
        displacement_mm(head, (33, 33, 33), grid, 8.0, "j", way) for way in (None, motion)
    )
    np.testing.assert_allclose(moved[2:, :-1], still[:-2, 1:], atol=1e-12)


def test_an_undistorted_head_is_not_spoiled(heads):
    dwiref, t1w, brain, _ = heads["still"]
    assert rms(estimate_from_t1w(dwiref, brain, t1w, "j")[brain]) < 0.5


@pytest.mark.slow
def test_the_order_and_sense_of_the_voxel_axes_do_not_matter(heads):
    dwiref, t1w, brain, truth = heads["distorted"]
    order, flip = np.zeros((4, 4)), np.eye(4)
    order[[1, 0, 2, 3], [0, 1, 2, 3]] = 1  # new axes: j, i, k
    flip[0, 0], flip[0, 3] = -1, truth.shape[1] - 1
    turned = [np.swapaxes(image, 0, 1)[::-1] for image in (dwiref.data, brain, truth)]
    moved = Volume(np.ascontiguousarray(turned[0]), dwiref.vox2ras @ order @ flip)
    found = estimate_from_t1w(moved, np.ascontiguousarray(turned[1]), t1w, "i")
    assert rms((found + turned[2])[turned[1]]) < 0.5 * rms(truth[brain])


def test_a_field_in_hz_displaces_by_readout_time_and_sign():
    field = np.full((2, 2, 2), 20.0)
    for sign, readout_s in itertools.product((1, -1), (0.05, 0.1)):
        found = displacement_from_field(field, sign, readout_s, 2.5)
        np.testing.assert_allclose(found, sign * 20.0 * readout_s * 2.5)


def test_the_distortion_is_at_least_halved_never_folds_and_is_told(heads, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dwiref, t1w, brain, truth = heads["distorted"]
    files = {
        name: str(save_volume(data, vox2ras, tmp_path / f"{name}.nii.gz"))
        for name, data, vox2ras in (
            ("dwiref", dwiref.data, dwiref.vox2ras),
            ("mask", brain, dwiref.vox2ras),
            ("t1w", t1w.data, t1w.vox2ras),
        )
    }
    outputs = EstimateSusceptibilityFromT1w(**files, pe_direction="j-").run().outputs
    found = load_volume(outputs.displacement, ndim=3)
    np.testing.assert_allclose(found.vox2ras, dwiref.vox2ras, atol=1e-5)
    assert rms((found.data - truth)[brain]) < 0.5 * rms(truth[brain])
    assert np.diff(found.data, axis=1).min() / 4.0 > SMALLEST_STRETCH - 1.0
    assert f"{np.abs(found.data[brain]).max():.1f} mm" in outputs.notes[0]


def test_an_empty_mask_is_told(heads):
    dwiref, t1w, brain, _ = heads["still"]
    with pytest.raises(InputError, match="mask is empty"):
        estimate_from_t1w(dwiref, np.zeros_like(brain), t1w, "j")
