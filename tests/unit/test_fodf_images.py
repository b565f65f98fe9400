"""fODF images of any program: the right function in MRtrix's basis, or a clear refusal."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from dipy.core.sphere import Sphere
from dipy.reconst.shm import sh_to_sf
from mif_files import write_mif
from problems import fodf_of, oblique, scaling

from difftract_bids.config import TrackingConfig
from difftract_bids.core import random_seeds, track
from difftract_bids.core.sh import sh_basis
from difftract_bids.core.sh_bases import SH_BASES, to_basis
from difftract_bids.errors import FodfError, InputError
from difftract_bids.io.fodf_images import (
    check_fodf_image,
    load_fodf,
    save_fodf,
    sidecar_name,
)

SHAPE = (5, 6, 7)
AXES = {"scanner": scaling(2.0, (-5.0, 3.0, 1.0)), "oblique": oblique()}
UNSAID = "No sidecar names the basis of the fODFs; MRtrix3's is assumed."


def fodfs(axes="scanner", lmax=4) -> torch.Tensor:
    """One lobe a voxel, along a direction that turns from place to place."""

    def tangent(mm):
        x, y, z = (0.1 * mm).unbind(-1)
        return torch.stack([1 + y.sin(), 0.5 + (x + z).cos(), 0.3 + x.sin()], dim=-1)

    return fodf_of(tangent, SHAPE, AXES[axes], lmax).float()


def write_nifti(path, data, affine=None):
    nib.save(nib.Nifti1Image(data, AXES["scanner"].numpy() if affine is None else affine), path)
    return path


def write_sidecar(path, **encoding):
    path.write_text(json.dumps({"OrientationEncoding": {"Type": "sh", **encoding}}))


@pytest.mark.parametrize("basis", SH_BASES)
@pytest.mark.parametrize("axes", AXES)
def test_what_is_saved_in_any_basis_is_loaded_again(tmp_path, basis, axes):
    path = save_fodf(fodfs(axes), AXES[axes].numpy(), tmp_path / "fod.nii.gz", basis)
    write_sidecar(
        tmp_path / "fod.json", SphericalHarmonicBasis=sidecar_name(basis), Reference="xyz"
    )
    image = load_fodf(path)
    assert image.basis_found == basis
    assert image.lmax == check_fodf_image(path) == 4
    assert image.sh_coeffs.dtype == np.float32
    np.testing.assert_allclose(image.sh_coeffs, fodfs(axes), atol=1e-7)
    np.testing.assert_allclose(image.vox2ras, AXES[axes], atol=1e-5)


@pytest.mark.parametrize("legacy", [False, True])
def test_dipy_finds_our_amplitudes_in_the_file_we_write(tmp_path, legacy, recwarn):
    basis = "descoteaux07_legacy" if legacy else "descoteaux07"
    path = save_fodf(fodfs().numpy(), AXES["scanner"].numpy(), tmp_path / "fod.nii", basis)
    directions = torch.nn.functional.normalize(
        torch.randn(60, 3, generator=torch.Generator().manual_seed(0)), dim=1
    )
    theirs = sh_to_sf(
        nib.load(path).get_fdata(),
        Sphere(xyz=directions.numpy()),
        sh_order_max=4,
        basis_type="descoteaux07",
        legacy=legacy,
    )
    recwarn.clear()  # DIPY says each time that the legacy basis is an old one
    ours = fodfs() @ sh_basis(directions, 4).T
    np.testing.assert_allclose(theirs, ours, atol=1e-6)


def test_streamlines_of_a_loaded_image_are_those_of_the_fodfs_in_memory(tmp_path):
    affine, fodf = AXES["oblique"], fodfs("oblique")
    write_nifti(tmp_path / "fod.nii", to_basis(fodf, "descoteaux07").numpy(), affine.numpy())
    loaded = load_fodf(tmp_path / "fod.nii", "descoteaux07")
    mask = torch.ones(SHAPE, dtype=torch.bool)
    seeds_mm, directions = random_seeds(mask, affine, 50, random_seed=1, dtype=torch.float32)
    config = TrackingConfig(min_length_mm=0.0)
    ours = track(fodf, seeds_mm, directions, affine, config)
    again, same_affine = torch.from_numpy(loaded.sh_coeffs), torch.from_numpy(loaded.vox2ras)
    theirs = track(again, seeds_mm, directions, same_affine, config)
    assert len(ours.points) > 500
    torch.testing.assert_close(theirs.points, ours.points, atol=1e-3, rtol=0)


def test_mrtrixs_format_holds_the_same_fodfs_as_nifti(tmp_path):
    data, affine = fodfs("oblique").numpy(), AXES["oblique"].numpy()
    nifti = load_fodf(write_nifti(tmp_path / "fod.nii.gz", data, affine))
    mif = load_fodf(write_mif(tmp_path / "fod.mif", data, affine))
    assert check_fodf_image(tmp_path / "fod.mif") == 4
    # Its first axis runs the other way in the file, and so in the array.
    np.testing.assert_array_equal(mif.sh_coeffs[::-1], nifti.sh_coeffs)
    last = nifti.vox2ras @ [SHAPE[0] - 1, 0, 0, 1]
    np.testing.assert_allclose(mif.vox2ras[:, 3], last, atol=1e-5)
    assert torch.from_numpy(mif.sh_coeffs).shape == (*SHAPE, 15)


@pytest.mark.parametrize(
    ("word", "basis"),
    [
        ("mrtrix3", "mrtrix3"),
        ("MRtrix3", "mrtrix3"),
        ("tournier07", "mrtrix3"),
        ("Descoteaux", "descoteaux07_legacy"),
        ("descoteaux07", "descoteaux07"),
        ("descoteaux07_legacy", "descoteaux07_legacy"),
    ],
)
def test_the_sidecar_names_the_basis(tmp_path, word, basis):
    path = write_nifti(tmp_path / "fod.nii.gz", to_basis(fodfs(), basis).numpy())
    write_sidecar(tmp_path / "fod.json", SphericalHarmonicBasis=word)
    image = load_fodf(path)
    assert image.basis_found == basis
    np.testing.assert_allclose(image.sh_coeffs, fodfs(), atol=1e-7)
    assert bool(image.notes) == (word == "descoteaux07")


def test_the_users_word_on_the_basis_comes_before_the_sidecars(tmp_path):
    path = write_nifti(tmp_path / "fod.nii.gz", to_basis(fodfs(), "descoteaux07").numpy())
    write_sidecar(tmp_path / "fod.json", SphericalHarmonicBasis="mrtrix3")
    np.testing.assert_allclose(load_fodf(path, "descoteaux07").sh_coeffs, fodfs(), atol=1e-7)


def test_without_a_sidecar_mrtrixs_basis_is_assumed_and_told(tmp_path):
    path = write_nifti(tmp_path / "fod.nii.gz", fodfs().numpy())
    assert load_fodf(path).notes == (UNSAID,)
    (tmp_path / "fod.json").write_text('{"Description": "no word on orientations"}')
    assert load_fodf(path).notes == (UNSAID,)


def test_unknown_bases_are_refused_before_anything_long(tmp_path):
    path = write_nifti(tmp_path / "fod.nii.gz", fodfs().numpy())
    with pytest.raises(FodfError, match="basis 'tesseral' is not known"):
        check_fodf_image(path, "tesseral")
    write_sidecar(tmp_path / "fod.json", SphericalHarmonicBasis="qball")
    with pytest.raises(FodfError, match="names the spherical harmonic basis 'qball'"):
        check_fodf_image(path)
    (tmp_path / "fod.json").write_text("{")
    with pytest.raises(InputError, match="sidecar cannot be read"):
        check_fodf_image(path)
    with pytest.raises(FodfError, match="'tesseral' is not known"):
        save_fodf(fodfs(), np.eye(4), tmp_path / "other.nii", "tesseral")


@pytest.mark.parametrize(
    ("axes", "basis", "reference", "told"),
    [
        ("oblique", "descoteaux", None, "DIPY's fODFs usually refer to voxel axes"),
        ("oblique", "mrtrix3", "ijk", "refer to 'ijk'"),
        ("oblique", "mrtrix3", None, None),
        ("oblique", "descoteaux", "xyz", None),
        ("scanner", "descoteaux", None, None),
        ("scanner", "mrtrix3", "ijk", None),
    ],
)
def test_axes_that_may_be_meant_otherwise_are_told(tmp_path, axes, basis, reference, told):
    path = write_nifti(tmp_path / "fod.nii.gz", fodfs(axes).numpy(), AXES[axes].numpy())
    said = {"Reference": reference} if reference else {}
    write_sidecar(tmp_path / "fod.json", SphericalHarmonicBasis=basis, **said)
    notes = load_fodf(path).notes
    assert [told in note for note in notes] == [True] if told else notes == ()


def test_axes_that_run_the_other_way_are_told_too(tmp_path):
    affine = np.diag([-2.0, 2, 2, 1])
    path = write_nifti(tmp_path / "fod.nii.gz", fodfs().numpy(), affine)
    assert "voxel axes" in load_fodf(path, "descoteaux07_legacy").notes[0]


def test_voxels_that_are_not_finite_are_set_to_zero_whole_and_counted(tmp_path):
    data = fodfs().numpy()
    data[0, 0, 0, 3], data[1, 2, 3] = np.nan, np.inf
    image = load_fodf(write_nifti(tmp_path / "fod.nii.gz", data))
    assert not image.sh_coeffs[0, 0, 0].any()
    assert not image.sh_coeffs[1, 2, 3].any()
    np.testing.assert_array_equal(image.sh_coeffs[2], data[2])
    assert image.notes[1].startswith("2 voxels held values that are not finite")


@pytest.mark.parametrize(
    ("n_volumes", "message"),
    [
        (1, "grey matter or CSF"),
        (9, "full basis of lmax 2"),
        (16, "full basis of lmax 3"),
        (25, "full basis of lmax 4"),
        (36, "full basis of lmax 5"),
        (49, "full basis of lmax 6"),
        (81, "full basis of lmax 8"),
        (120, "lmax 14; lmax 12 is the highest"),
        (12, "Are these 4 peaks"),
        (44, "44 coefficients belong to no even degree"),
    ],
)
def test_other_numbers_of_coefficients_are_recognised_and_refused(tmp_path, n_volumes, message):
    path = write_nifti(tmp_path / "fod.nii.gz", np.ones((2, 3, 4, n_volumes), dtype=np.float32))
    with pytest.raises(FodfError, match=message) as caught:
        check_fodf_image(path)
    assert str(path) in str(caught.value)
    assert caught.value.remedy


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 4, 1, 15)])
def test_other_numbers_of_dimensions_are_refused(tmp_path, shape):
    path = write_nifti(tmp_path / "fod.nii.gz", np.ones(shape, dtype=np.float32))
    with pytest.raises(FodfError, match=f"has {len(shape)} dimensions"):
        load_fodf(path)
    with pytest.raises(FodfError, match=f"has {len(shape)} dimensions"):
        save_fodf(np.ones(shape, dtype=np.float32), np.eye(4), tmp_path / "other.nii")


@pytest.mark.parametrize("damage", [np.diag([2.0, 2, 0, 1]), np.full((4, 4), 1.0)])
def test_affines_that_cannot_be_inverted_are_refused(tmp_path, damage):
    image = nib.Nifti1Image(fodfs().numpy(), None)
    image.header.set_sform(damage, code=1)
    nib.save(nib.Nifti1Image(fodfs().numpy(), None, image.header), tmp_path / "fod.nii")
    with pytest.raises(FodfError, match="affine cannot be inverted"):
        check_fodf_image(tmp_path / "fod.nii")


def test_values_that_cannot_be_fodfs_are_refused(tmp_path):
    generator = np.random.default_rng(0)
    peaks = generator.normal(size=(*SHAPE, 15)).astype(np.float32)
    signals = generator.uniform(100, 200, size=(*SHAPE, 28)).astype(np.float32)
    with pytest.raises(FodfError, match="zero everywhere"):
        load_fodf(write_nifti(tmp_path / "zero.nii", np.zeros((*SHAPE, 15), dtype=np.float32)))
    with pytest.raises(FodfError, match=r"mean, is negative in \d\d% of the voxels"):
        load_fodf(write_nifti(tmp_path / "peaks.nii", peaks))
    with pytest.raises(FodfError, match="as in a diffusion-weighted image"):
        load_fodf(write_nifti(tmp_path / "dwi.nii", signals))
    with pytest.raises(FodfError, match="holds complex64"):
        check_fodf_image(
            write_nifti(tmp_path / "c.nii", np.ones((2, 2, 2, 6), dtype=np.complex64))
        )


def test_a_few_small_negative_means_are_noise(tmp_path):
    data = fodfs().numpy()
    data[:2] *= -0.01
    load_fodf(write_nifti(tmp_path / "fod.nii", data))


def test_files_that_are_no_images_are_refused(tmp_path):
    (tmp_path / "fod.nii.gz").write_bytes(b"not an image")
    for name, message in (
        ("fod.nii.gz", "cannot be read"),
        ("absent.nii", "cannot be read"),
        ("absent.mif.gz", "cannot be read"),
        ("fod.mgz", "ends in none of"),
    ):
        with pytest.raises(InputError, match=message):
            check_fodf_image(tmp_path / name)


@pytest.mark.parametrize("name", ["fod.nii", "fod.nii.gz"])
def test_truncated_images_are_refused_before_they_are_loaded(tmp_path, name):
    path = write_nifti(tmp_path / name, fodfs().numpy())
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"truncated|cannot be read"):
        check_fodf_image(path)


def test_a_single_coefficient_can_be_saved_in_any_basis(tmp_path):
    grey = torch.rand(2, 3, 4, 1)
    path = save_fodf(grey, np.eye(4), tmp_path / "gm.nii.gz", "descoteaux07")
    np.testing.assert_array_equal(nib.load(path).get_fdata(dtype=np.float32), grey)


def test_coefficients_with_a_gradient_can_be_saved(tmp_path):
    sh_coeffs = fodfs().double().requires_grad_()
    path = save_fodf(sh_coeffs, AXES["scanner"].numpy(), tmp_path / "fod.nii.gz")
    assert nib.load(path).get_data_dtype() == np.float32
