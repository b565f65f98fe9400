"""Files of transforms: what they mean to us, to ITK and to nitransforms."""

from __future__ import annotations

import h5py
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 (its customary name)
from nitransforms.manip import TransformChain
from scipy import ndimage
from scipy.spatial.transform import Rotation

from difftract_bids.errors import InputError
from difftract_bids.io.composite_transforms import load_transform, save_composite_h5
from difftract_bids.io.images import Volume
from difftract_bids.io.transforms import (
    CompositeTransform,
    LinearTransform,
    NonlinearTransform,
    save_linear,
)
from difftract_bids.preprocessing.registration import resample

LPS = np.array([-1.0, -1.0, 1.0])


def affine(angles_deg, shift_mm, scale=1.0):
    matrix = np.eye(4)
    matrix[:3, :3] = scale * Rotation.from_euler("xyz", angles_deg, degrees=True).as_matrix()
    matrix[:3, 3] = shift_mm
    return matrix


GRID = affine((5, 0, 20), (-10, 4, 3)) @ np.diag([2.0, 2.5, 3, 1])
PLACE = LinearTransform(affine((10, -20, 30), (1, 2, 3), 1.1))


def field(amplitude_mm=3.0):
    """Give displacements that are linear in place, so that every interpolation is exact."""
    points = nib.affines.apply_affine(GRID, np.moveaxis(np.indices((12, 13, 14)), 0, -1))
    slopes = np.array([[0.03, -0.02, 0.01], [0.0, 0.04, 0.02], [-0.05, 0.01, 0.02]])
    return (points @ slopes.T + amplitude_mm).astype(np.float32)


def warp(after=None):
    return NonlinearTransform(np.eye(4) if after is None else after, field(), GRID)


def points(n=30):
    voxels = np.random.default_rng(0).uniform(3, 8, (n, 3))
    return nib.affines.apply_affine(GRID, voxels)


def to_template():
    return [warp(PLACE.matrix)]


def from_template():
    return [LinearTransform(affine((2, 3, 4), (1, -1, 2))), warp()]


@pytest.mark.parametrize("chain", [to_template, from_template, lambda: [PLACE], lambda: [warp()]])
def test_a_chain_survives_its_file_and_means_the_same_to_itk(chain, tmp_path):
    parts = chain()
    path = save_composite_h5(parts, tmp_path / "xfm.h5")
    wanted = CompositeTransform(tuple(parts)).points(points())
    assert np.abs(load_transform(path).points(points()) - wanted).max() < 1e-4
    itk = sitk.ReadTransform(str(path))
    there = [itk.TransformPoint((point * LPS).tolist()) for point in points()]
    assert np.abs(np.array(there) * LPS - wanted).max() < 1e-3


@pytest.mark.filterwarnings("ignore:Reference space not set:UserWarning")
@pytest.mark.parametrize("chain", [to_template, from_template])
def test_nitransforms_maps_the_same_points(chain, tmp_path):
    path = save_composite_h5(chain(), tmp_path / "xfm.h5")
    # It interpolates fields by cubic splines, we linearly as ITK does: they agree on grid points.
    first = chain()[0]
    on_grid = nib.affines.apply_affine(GRID, np.argwhere(np.ones((5, 6, 7))) + 3)
    if isinstance(first, LinearTransform):
        on_grid = first.inverse().points(on_grid)
    theirs = TransformChain.from_filename(path, fmt="itk").map(on_grid)
    assert np.abs(theirs - load_transform(path).points(on_grid)).max() < 1e-3


@pytest.mark.parametrize("precision", [sitk.sitkVectorFloat32, sitk.sitkVectorFloat64])
def test_what_itk_writes_is_read_in_the_order_in_which_itk_applies_it(precision, tmp_path):
    vectors = np.ascontiguousarray(field().transpose(2, 1, 0, 3) * LPS)
    image = sitk.Cast(sitk.GetImageFromArray(vectors, isVector=True), sitk.sitkVectorFloat64)
    lps = np.diag([-1.0, -1, 1, 1]) @ GRID
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    turned = sitk.AffineTransform(3)
    turned.SetMatrix((affine((2, -3, 4), 0, 1.02)[:3, :3] * np.outer(LPS, LPS)).ravel().tolist())
    turned.SetCenter((3.0, -14.0, 25.0))  # beyond its grid, ITK's fields are 0
    turned.SetTranslation((1.0, 0.5, -1.0))
    chain = sitk.CompositeTransform(3)
    chain.AddTransform(sitk.DisplacementFieldTransform(image))  # the last one is applied first
    chain.AddTransform(turned)
    path = tmp_path / "xfm.h5"
    sitk.WriteTransform(chain, str(path))
    if precision == sitk.sitkVectorFloat32:
        _in_single_precision(path)
    wanted = [chain.TransformPoint((point * LPS).tolist()) for point in points()]
    found = load_transform(path)
    assert isinstance(found, CompositeTransform)  # the affine comes first: they cannot be joined
    assert np.abs(found.points(points()) - np.array(wanted) * LPS).max() < 1e-3


def _in_single_precision(path):
    with h5py.File(path, "r+") as file:
        item = file["TransformGroup/1"]
        values = item["TransformParameters"][()].astype(np.float32)
        del item["TransformParameters"], item["TransformType"]
        item["TranformParameters"] = values  # as ITK 4 spelt it
        item["TranformFixedParameters"] = item["TransformFixedParameters"][()]
        del item["TransformFixedParameters"]
        item["TransformType"] = [b"DisplacementFieldTransform_float_3_3"]


def test_a_field_and_the_affine_after_it_become_one_transform(tmp_path):
    path = save_composite_h5(to_template(), tmp_path / "xfm.h5")
    assert isinstance(load_transform(path), NonlinearTransform)
    path = save_composite_h5([PLACE, PLACE.inverse()], tmp_path / "linear.h5")
    assert np.allclose(load_transform(path).matrix, np.eye(4), atol=1e-5)


def test_itk_text_is_read_by_the_same_door(tmp_path):
    path = save_linear(PLACE, tmp_path / "xfm.txt")
    assert np.allclose(load_transform(path).matrix, PLACE.matrix, atol=1e-9)


def test_an_image_goes_through_a_chain_in_one_interpolation():
    shape = (12, 13, 14)
    shift = np.eye(4)
    shift[:3, 3] = GRID[:3, 0] / 2
    there_and_back = CompositeTransform((
        LinearTransform(shift), warp(), LinearTransform(np.linalg.inv(shift)),
    ))  # fmt: skip
    noise = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    smooth = ndimage.gaussian_filter(noise, 1)
    moved = resample(Volume(smooth, GRID), shape, GRID, [there_and_back])
    inner = nib.affines.apply_affine(GRID, np.argwhere(np.ones(shape)))
    voxels = nib.affines.apply_affine(np.linalg.inv(GRID), there_and_back.points(inner))
    wanted = ndimage.map_coordinates(smooth, voxels.T, order=1)
    assert np.abs(moved.ravel() - wanted).max() < 1e-5


@pytest.mark.parametrize("damage", ["text", "kind", "size", "nothing"])
def test_a_damaged_file_is_refused_with_a_remedy(damage, tmp_path):
    path = save_composite_h5(to_template(), tmp_path / "xfm.h5")
    if damage == "text":
        path.write_text("no HDF5")
    else:
        with h5py.File(path, "r+") as file:
            group = file["TransformGroup"]
            if damage == "kind":
                del group["1/TransformType"]
                group["1/TransformType"] = [b"BSplineTransform_double_3_3"]
            elif damage == "size":
                group["2/TransformFixedParameters"][0] = 99
            else:
                del group["1"], group["2"]
    with pytest.raises(InputError, match=r"transform") as error:
        load_transform(path)
    assert error.value.remedy


@pytest.mark.parametrize("kind", ["Euler3DTransform", "VersorRigid3DTransform"])
def test_rigid_stages_of_ants_are_read_too(kind, tmp_path):
    rigid = getattr(sitk, kind)()
    rigid.SetCenter((10.0, -20.0, 5.0))
    rigid.SetTranslation((3.0, -5.0, 4.0))
    rigid.SetMatrix(Rotation.from_euler("xyz", (5, -8, 12), degrees=True).as_matrix().ravel())
    path = tmp_path / "xfm.h5"
    sitk.WriteTransform(sitk.CompositeTransform([rigid]), str(path))
    point = np.array([5.0, -7.0, 9.0])
    expected = LPS * np.array(rigid.TransformPoint((LPS * point).tolist()))
    np.testing.assert_allclose(load_transform(path).points(point), expected, atol=1e-6)


def test_all_of_several_linear_transforms_in_one_text_count(tmp_path):
    one, other = sitk.AffineTransform(3), sitk.Euler3DTransform((1, 2, 3), 0.1, -0.05, 0.2)
    one.SetMatrix([1.1, 0.1, 0, 0, 0.9, 0, 0.05, 0, 1])
    one.SetTranslation([3, -5, 4])
    path, chain = tmp_path / "chain.txt", sitk.CompositeTransform([one, other])
    sitk.WriteTransform(chain, str(path))
    point = np.array([5.0, -7.0, 9.0])
    expected = LPS * np.array(chain.TransformPoint((LPS * point).tolist()))
    np.testing.assert_allclose(load_transform(path).points(point), expected, atol=1e-6)
