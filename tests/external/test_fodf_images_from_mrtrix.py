"""Images that MRtrix3 writes, in each of its formats and orders, beside the NIfTI it makes."""

from __future__ import annotations

import shutil

import nibabel as nib
import numpy as np
import pytest
import torch
from mrtrix import human_scene, run_mrtrix, write_image
from problems import oblique

from difftract_bids.config import TrackingConfig
from difftract_bids.core import random_seeds, track
from difftract_bids.core.sh import sh_basis
from difftract_bids.io.fodf_images import check_fodf_image, load_fodf, save_fodf
from difftract_bids.io.mif import load_mif

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(shutil.which("mrconvert") is None, reason="MRtrix3 is not installed"),
]

TYPES = [
    *("float32le", "float32be", "float64le", "float64be", "int8", "uint8"),
    *("int16le", "int16be", "uint16le", "uint16be", "int32le", "int32be", "uint32le", "uint32be"),
]
STRIDES = ["1,2,3,4", "-1,2,3,4", "-2,3,4,1", "3,-1,2,4", "-2,-4,1,3", "4,3,-2,-1", "2,3,4,-1"]
QUIET = ("-quiet", "-force", "-nthreads", 0)


@pytest.fixture(scope="module")
def whole_numbers(tmp_path_factory):
    """Values that every type holds, on an oblique grid."""
    values = torch.from_numpy(np.random.default_rng(0).integers(0, 127, (5, 6, 7, 4)))
    return write_image(values.float(), oblique(), tmp_path_factory.mktemp("whole") / "image.nii")


@pytest.fixture(scope="module")
def human(tmp_path_factory):
    """A subject whose fODFs dwi2fod fitted."""
    return human_scene("ds-human-3mm", tmp_path_factory.mktemp("human"))


def beside_mrtrix(image, folder):
    """Compare what is read with what nibabel reads of MRtrix's own conversion."""
    run_mrtrix("mrconvert", image, folder / "theirs.nii", *QUIET)
    theirs, ours = nib.load(folder / "theirs.nii"), load_mif(image, dtype=np.float64)
    np.testing.assert_array_equal(ours.data, theirs.get_fdata())
    np.testing.assert_allclose(ours.vox2ras, theirs.affine, atol=2e-5)


def canonical(data, affine):
    """Bring an image's axes next to the scanner's, so that two orders can be compared."""
    image = nib.as_closest_canonical(nib.Nifti1Image(data, affine))
    return np.asarray(image.dataobj), image.affine


@pytest.mark.parametrize("strides", STRIDES)
@pytest.mark.parametrize("suffix", [".mif", ".mif.gz", ".mih"])
def test_every_order_is_read_as_from_mrtrixs_nifti(tmp_path, whole_numbers, strides, suffix):
    image = tmp_path / f"image{suffix}"
    run_mrtrix("mrconvert", whole_numbers, image, "-strides", strides, *QUIET)
    source = nib.load(whole_numbers)
    data, affine = canonical(*load_mif(image))
    expected, expected_affine = canonical(np.asarray(source.dataobj), source.affine)
    np.testing.assert_array_equal(data, expected)
    np.testing.assert_allclose(affine, expected_affine, atol=2e-5)
    # mrconvert 3.0.3 turns the order of the volumes round where they are stored backwards.
    if "-" not in strides.rpartition(",")[2]:
        beside_mrtrix(image, tmp_path)


@pytest.mark.parametrize("datatype", TYPES)
def test_every_type_is_read_as_from_mrtrixs_nifti(tmp_path, whole_numbers, datatype):
    image = tmp_path / "image.mif"
    run_mrtrix("mrconvert", whole_numbers, image, "-datatype", datatype, *QUIET)
    beside_mrtrix(image, tmp_path)


@pytest.mark.parametrize("strides", ["1,2,3", "-3,1,-2"])
def test_masks_are_read_as_from_mrtrixs_nifti(tmp_path, whole_numbers, strides):
    image = tmp_path / "mask.mif"
    first = ("mrconvert", whole_numbers, "-coord", 3, 0, "-axes", "0,1,2", tmp_path / "first.mif")
    run_mrtrix(*first, *QUIET)
    run_mrtrix("mrthreshold", tmp_path / "first.mif", "-abs", 60, tmp_path / "mask0.mif", *QUIET)
    bits = ("-datatype", "bit", "-strides", strides)
    run_mrtrix("mrconvert", tmp_path / "mask0.mif", image, *bits, *QUIET)
    assert b"datatype: Bit" in image.read_bytes()
    beside_mrtrix(image, tmp_path)


def test_scaled_values_are_read_as_from_mrtrixs_nifti(tmp_path, whole_numbers):
    image = tmp_path / "image.mif"
    scaled = ("-datatype", "int16", "-scaling", "-3,0.5")
    run_mrtrix("mrconvert", whole_numbers, image, *scaled, *QUIET)
    assert b"scaling: -3,0.5" in image.read_bytes()
    beside_mrtrix(image, tmp_path)


@pytest.mark.parametrize("suffix", [".mif", ".mif.gz", ".nii.gz"])
@pytest.mark.parametrize("strides", ["-2,3,4,1", "3,-1,2,4"])
def test_fodfs_are_the_same_from_every_file(tmp_path, human, suffix, strides):
    copy = tmp_path / f"fod{suffix}"
    run_mrtrix("mrconvert", human.fod_file, copy, "-strides", strides, *QUIET)
    assert check_fodf_image(copy) == 8
    image = load_fodf(copy)
    data, affine = canonical(image.sh_coeffs, image.vox2ras)
    expected, expected_affine = canonical(human.fodf.numpy(), human.vox2ras.numpy())
    np.testing.assert_array_equal(data, expected)
    np.testing.assert_allclose(affine, expected_affine, atol=2e-5)
    assert len(image.notes) == 1


def test_streamlines_are_the_same_from_every_file(tmp_path, human):
    copy = tmp_path / "fod.mif.gz"
    run_mrtrix("mrconvert", human.fod_file, copy, "-strides", "-2,3,4,1", *QUIET)
    image = load_fodf(copy)
    seeds_mm, directions = random_seeds(
        human.mask, human.vox2ras, 200, random_seed=3, dtype=torch.float32
    )
    config, affine = TrackingConfig(), torch.from_numpy(image.vox2ras)
    ours = track(human.fodf, seeds_mm, directions, human.vox2ras, config)
    theirs = track(torch.from_numpy(image.sh_coeffs), seeds_mm, directions, affine, config)
    # The affine is written with fewer digits, so that a threshold may fall the other way.
    both = np.intersect1d(ours.seed_index, theirs.seed_index)
    assert len(ours) > 50
    assert len(both) >= 0.98 * len(ours)
    apart = [
        len(a) != len(b) or float((a - b).abs().max()) > 0.01
        for a, b in zip(lines_of(ours, both), lines_of(theirs, both), strict=True)
    ]
    assert np.mean(apart) < 0.02


def lines_of(streamlines, seeds):
    rows = np.flatnonzero(np.isin(streamlines.seed_index, seeds))
    bounds = streamlines.offsets
    return [streamlines.points[bounds[row] : bounds[row + 1]] for row in rows]


def test_mrtrix_finds_our_amplitudes_in_the_file_we_write(tmp_path, human):
    fod = save_fodf(human.fodf, human.vox2ras.numpy(), tmp_path / "fod.nii.gz")
    angles = np.random.default_rng(0).uniform((-3, 0), (3, 3), (20, 2))  # azimuth, elevation
    np.savetxt(tmp_path / "angles.txt", angles)
    run_mrtrix("sh2amp", fod, tmp_path / "angles.txt", tmp_path / "amplitudes.nii", *QUIET)
    azimuth, elevation = torch.from_numpy(angles).T
    directions = torch.stack(
        [elevation.sin() * azimuth.cos(), elevation.sin() * azimuth.sin(), elevation.cos()], dim=1
    )
    ours = human.fodf @ sh_basis(directions, 8).float().T
    theirs = np.asarray(nib.load(tmp_path / "amplitudes.nii").dataobj)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
