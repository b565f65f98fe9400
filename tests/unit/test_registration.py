"""Registration: known motions and warps are found; transforms survive their files."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 (its customary name)
from scipy import ndimage
from scipy.spatial.transform import Rotation

from difftract_bids.errors import InputError
from difftract_bids.io.images import Volume, load_volume
from difftract_bids.io.transforms import (
    LinearTransform,
    NonlinearTransform,
    load_linear,
    load_nonlinear,
    save_linear,
    save_nonlinear,
)
from difftract_bids.phantom.geometry import load_geometry
from difftract_bids.phantom.pose import make_grid
from difftract_bids.phantom.signal import RELAXATION, add_rician_noise, t1w_volume
from difftract_bids.phantom.tissue import Tissue, map_tissue
from difftract_bids.preprocessing.mask import brain_mask
from difftract_bids.preprocessing.registration import (
    brain_mask_in_t1w,
    dilate_mm,
    pseudo_t1w,
    register_rigid,
    register_template,
    resample,
)

SHARED = Path(
    os.environ.get("DIFFTRACT_TEST_DATA", Path(__file__).parents[3] / "shared" / "data")
).resolve()


FIELD_OF_VIEW_MM = (186.0, 219.0, 171.0)


def rigid(angles_deg, shift_mm):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", angles_deg, degrees=True).as_matrix()
    matrix[:3, 3] = shift_mm
    return matrix


OBLIQUE = rigid((4, -5, 3), (0, 0, 0)) @ np.diag([-2.4, 2.5, 2.6, 1.0])
OBLIQUE[:3, 3] = -OBLIQUE[:3, :3] @ (21.5, 22.5, 17.5)


def head(points_mm):
    """A small head as a function of place: 'grey' and folded 'white' matter, fluid, nuclei."""
    x, y, z = np.moveaxis(points_mm, -1, 0)
    radius = np.sqrt((x / 40) ** 2 + ((y + 0.1 * z) / 55) ** 2 + (z / 36) ** 2)
    folds = 0.12 * np.sin(x / 6) * np.sin(y / 7 + 1)
    folds += 0.1 * np.sin(z / 6 + 2) * np.sin(x / 9 + y / 8)
    image = np.where(radius < 0.95, 60.0, 0.0) + np.where(radius + folds < 0.7, 40.0, 0.0)
    fluid = ((np.abs(x) - 8) / 5) ** 2 + ((y + 5) / 20) ** 2 + ((z - 4) / 7) ** 2 < 1
    notch = (np.abs(x) < 2) & (z > 10) | (z < -12) & (np.abs(y + 18) < 3)
    return np.where(radius < 0.95, np.where(fluid | notch, 20.0, image), 0.0)


def sampled(function, vox2ras, shape):
    points = nib.affines.apply_affine(vox2ras, np.moveaxis(np.indices(shape), 0, -1))
    return Volume(ndimage.gaussian_filter(function(points), 0.5).astype(np.float32), vox2ras)


def grid(size_mm, half_mm):
    vox2ras = np.diag([size_mm] * 3 + [1.0])
    vox2ras[:3, 3] = -half_mm
    return vox2ras, (int(2 * half_mm / size_mm) + 1,) * 3


def error_mm(found, true_matrix):
    points = np.array([[0, 0, 0], [40, 0, 0], [0, 50, 0], [0, 0, 38], [-30, -30, 20.0]])
    wanted = LinearTransform(true_matrix).points(points)
    return np.linalg.norm(found.points(points) - wanted, axis=-1).max()


@pytest.mark.parametrize(
    ("angles_deg", "shift_mm"), [((8, -3, 2), (6, -7, 5)), ((-22, 4, 5), (15, 20, -30))]
)
def test_a_rigid_motion_between_two_contrasts_is_found(angles_deg, shift_mm):
    true = rigid(angles_deg, shift_mm)
    fixed = sampled(head, OBLIQUE, (44, 46, 36))
    # Fixed points mapped by `true` are moving points, so the moving head is the head moved by it.
    back = np.linalg.inv(true)
    vox2ras, shape = grid(2.0, 80.0)
    moving = sampled(
        lambda points: 110 - head(nib.affines.apply_affine(back, points)), vox2ras, shape
    )
    moving = Volume(np.where(moving.data > 109, 0, moving.data), vox2ras)
    found = register_rigid(fixed, moving, fixed_mask=dilate_mm(fixed.data > 10, OBLIQUE, 6.0))
    assert error_mm(found, true) < 0.5
    assert np.allclose(found.matrix[:3, :3] @ found.matrix[:3, :3].T, np.eye(3), atol=1e-8)


@pytest.fixture(scope="module")
def phantom():
    """Give the simulated head's geometry and its T1w, noise included."""
    geometry = load_geometry()
    t1w_grid = make_grid(FIELD_OF_VIEW_MM, 2.0, "PIR", 0.0)
    tissue = map_tissue(geometry, t1w_grid.shape, t1w_grid.vox2ras, samples_per_axis=2)
    noisy = add_rician_noise(t1w_volume(tissue), 1 / 60, np.random.default_rng(0))
    return geometry, Volume(noisy.astype(np.float32), t1w_grid.vox2ras)


@pytest.mark.parametrize(
    ("axes", "oblique_deg", "angles_deg", "shift_mm"),
    [
        ("LAS", 5.0, (0, 0, 0), (0, 0, 0)),
        ("LAS", 5.0, (8, 0, 0), (6, -6, 5)),  # 10 mm and 8 degrees, as in a real header
        ("RPI", 15.0, (-5, 5, 4), (-3, 8, -6)),
        ("SLA", -10.0, (3, -6, 5), (8, 4, 5)),
    ],
)
def test_the_phantom_s_t1w_is_found_within_a_millimetre(
    axes, oblique_deg, angles_deg, shift_mm, phantom
):
    geometry, t1w = phantom
    grid = make_grid(FIELD_OF_VIEW_MM, 3.0, axes, oblique_deg)
    fractions = map_tissue(geometry, grid.shape, grid.vox2ras, samples_per_axis=2).fractions
    signal = fractions @ np.array([RELAXATION[kind].b0 for kind in Tissue])
    b0 = add_rician_noise(signal, 1 / 30, np.random.default_rng(1)).astype(np.float32)
    brain = fractions[..., [Tissue.GREY, Tissue.WHITE, Tissue.CSF]].sum(axis=-1) > 0.5
    header = rigid(angles_deg, shift_mm)
    found = register_rigid(
        Volume(b0, grid.vox2ras),
        Volume(t1w.data, header @ t1w.vox2ras),
        fixed_mask=dilate_mm(brain, grid.vox2ras, 8.0),
    )
    places = nib.affines.apply_affine(grid.vox2ras, np.argwhere(brain))
    wrong_mm = np.linalg.norm(
        found.points(places) - LinearTransform(header).points(places), axis=1
    )
    assert wrong_mm.mean() < 0.5
    assert wrong_mm.max() < 1.0


def test_registering_twice_gives_the_same_bits():
    fixed, moving = sampled(head, *grid(4.0, 60.0)), sampled(head, OBLIQUE, (44, 46, 36))
    assert np.array_equal(
        register_rigid(fixed, moving).matrix, register_rigid(fixed, moving).matrix
    )


def test_an_empty_image_is_refused():
    empty = Volume(np.zeros((8, 8, 8), np.float32), np.eye(4))
    with pytest.raises(InputError, match="empty"):
        register_rigid(empty, sampled(head, *grid(6.0, 60.0)))


def test_a_smooth_warp_is_found_where_the_image_shows_it():
    def warp(points):
        x, y, z = np.moveaxis(points, -1, 0)
        return points + 3 * np.stack([np.sin(y / 12), np.cos(z / 12), np.sin(x / 12)], axis=-1)

    vox2ras, shape = grid(2.0, 62.0)
    moving = sampled(head, vox2ras, shape)
    # The fixed image shows at x what the moving one shows at warp(x).
    fixed = sampled(lambda points: head(warp(points)), vox2ras, shape)
    found, back = register_template(fixed, moving, fixed_mask=fixed.data > 10)
    # Along an edge a displacement leaves no trace: only the error across edges can be small.
    gradient = np.stack(np.gradient(ndimage.gaussian_filter(fixed.data, 1)), axis=-1)
    steepness = np.linalg.norm(gradient, axis=-1)
    edges = (steepness > 6) & (fixed.data > 30)
    normals = gradient[edges] / steepness[edges][:, None]
    points = nib.affines.apply_affine(vox2ras, np.argwhere(edges))

    def error_across_edges_mm(transform):
        return np.median(np.abs(np.sum((transform.points(points) - warp(points)) * normals, -1)))

    assert error_across_edges_mm(LinearTransform(np.eye(4))) > 0.8
    assert error_across_edges_mm(found) < 0.35
    brain = fixed.data > 10
    warped = resample(moving, shape, vox2ras, [found])
    assert np.corrcoef(warped[brain], fixed.data[brain])[0, 1] > 0.95
    places = nib.affines.apply_affine(vox2ras, np.argwhere(brain)[::50])
    there_and_back_mm = np.linalg.norm(back.points(found.points(places)) - places, axis=1)
    assert np.median(there_and_back_mm) < 0.1
    assert there_and_back_mm.max() < 1.0


def test_resampling_without_a_transform_finds_the_same_places_on_another_grid():
    vox2ras, shape = grid(2.0, 60.0)
    labels = Volume(np.arange(np.prod(shape), dtype=np.int32).reshape(shape), vox2ras)
    moved = resample(labels, (44, 46, 36), OBLIQUE, [], labels=True)
    voxel = (20, 25, 10)
    place = np.linalg.solve(vox2ras, OBLIQUE @ [*voxel, 1])[:3]
    assert moved[voxel] == labels.data[tuple(np.rint(place).astype(int))]
    assert moved.dtype == np.int32


def test_a_chain_is_applied_from_the_fixed_grid_outwards():
    turn, shift = LinearTransform(rigid((0, 0, 90), (0, 0, 0))), LinearTransform(np.eye(4))
    shift.matrix[0, 3] = 4.0
    vox2ras = np.diag([2.0, 2, 2, 1])
    vox2ras[:2, 3] = -20
    source = Volume(np.zeros((21, 21, 3), np.int16), vox2ras)
    source.data[6, 16, 1] = 7  # at (-8, 12, 2)

    def place_mm(*transforms):
        moved = resample(source, (21, 21, 3), vox2ras, transforms, labels=True)
        return nib.affines.apply_affine(vox2ras, np.argwhere(moved)).tolist()

    assert place_mm(shift) == [[-12, 12, 2]]
    assert place_mm(shift, turn) == [[8, 8, 2]]  # turn(shift(8, 8)) = turn(12, 8) = (-8, 12)
    assert place_mm(turn, shift) == [[12, 12, 2]]


def test_outside_the_moving_image_is_zero_for_labels_and_values():
    source = Volume(np.ones((3, 3, 3), np.int16), np.eye(4))
    for labels in (True, False):
        moved = resample(source, (9, 9, 9), np.diag([1.0, 1, 1, 1]), [], labels=labels)
        assert moved.sum() == 27


def test_a_brain_mask_follows_the_head_into_the_t1w():
    motion = LinearTransform(rigid((10, 5, 0), (5, 10, -6)))
    fixed = sampled(head, OBLIQUE, (44, 46, 36))
    vox2ras, shape = grid(2.0, 70.0)
    t1w = sampled(lambda points: head(motion.inverse().points(points)), vox2ras, shape)
    carried = brain_mask_in_t1w(Volume(fixed.data > 10, OBLIQUE), t1w, motion)
    brain = t1w.data > 10
    assert 2 * (carried & brain).sum() / (carried.sum() + brain.sum()) > 0.96


def test_the_pseudo_t1w_has_white_brighter_than_grey_brighter_than_fluid():
    fa, md = np.array([[[0.5, 0.15, 0.05, 0.5]]]), np.array([[[0.75e-3, 0.8e-3, 2.8e-3, np.nan]]])
    white, grey, fluid, broken = pseudo_t1w(fa, md, np.array([[[True, True, True, True]]]))[0, 0]
    assert white > 1.3 * grey > 1.3 * 4 * fluid
    assert broken == 0
    assert not pseudo_t1w(fa, md, np.zeros_like(fa, dtype=bool)).any()


def test_dilation_is_in_millimetres_along_each_axis():
    mask = np.zeros((11, 11, 11), dtype=bool)
    mask[5, 5, 5] = True
    grown = dilate_mm(mask, np.diag([1.0, 2.0, 4.0, 1.0]), 4.0)
    assert (grown[:, 5, 5].sum(), grown[5, :, 5].sum(), grown[5, 5].sum()) == (9, 5, 3)


def test_a_linear_transform_survives_its_file_and_means_the_same_to_itk(tmp_path):
    transform = LinearTransform(rigid((10, -20, 30), (1, 2, 3)))
    path = save_linear(transform, tmp_path / "xfm.txt")
    assert np.allclose(load_linear(path).matrix, transform.matrix, atol=1e-12)
    point = np.array([10.0, -20.0, 30.0])
    lps = sitk.ReadTransform(str(path)).TransformPoint((point * [-1, -1, 1]).tolist())
    assert np.array(lps) * [-1, -1, 1] == pytest.approx(transform.points(point))


def test_a_nonlinear_transform_survives_its_files_and_means_the_same_to_itk(tmp_path):
    rng = np.random.default_rng(0)
    field = ndimage.gaussian_filter(rng.normal(0, 30, (12, 13, 14, 3)), (3, 3, 3, 0))
    vox2ras = rigid((5, 0, 20), (-10, 4, 3)) @ np.diag([2.0, 2.5, 3, 1])
    transform = NonlinearTransform(rigid((10, 0, 0), (0, 5, 0)), field, vox2ras)
    warp, affine = save_nonlinear(transform, tmp_path / "w.nii.gz", tmp_path / "a.txt")
    points = nib.affines.apply_affine(vox2ras, rng.uniform(1, 10, (20, 3)))
    again = load_nonlinear(warp, affine)
    assert np.allclose(again.points(points), transform.points(points), atol=1e-4)
    itk = sitk.DisplacementFieldTransform(sitk.ReadImage(str(warp), sitk.sitkVectorFloat64))
    outer = sitk.ReadTransform(str(affine))
    lps = [
        outer.TransformPoint(itk.TransformPoint((point * [-1, -1, 1]).tolist()))
        for point in points
    ]
    assert np.allclose(np.array(lps) * [-1, -1, 1], transform.points(points), atol=1e-3)


def test_nitransforms_reads_the_files_alike(tmp_path):
    linear = pytest.importorskip("nitransforms.linear")
    transform = LinearTransform(rigid((10, -20, 30), (1, 2, 3)))
    path = save_linear(transform, tmp_path / "xfm.txt")
    read = linear.Affine.from_filename(path, fmt="itk")
    points = np.array([[10.0, -20.0, 30.0]])
    assert np.allclose(read.map(points), transform.points(points), atol=1e-6)


@pytest.mark.parametrize("content", ["", "nonsense"])
def test_a_file_that_is_no_transform_is_refused(tmp_path, content):
    path = tmp_path / "xfm.txt"
    path.write_text(content)
    with pytest.raises(InputError, match="no transform"):
        load_linear(path)


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"the shared test data are not at {SHARED}")
def test_a_real_t1w_is_found_wherever_its_header_puts_it():
    folder = SHARED / "ds-human-3mm" / "sub-01"
    dwi = load_volume(folder / "dwi" / "sub-01_dwi.nii.gz")
    t1w = load_volume(folder / "anat" / "sub-01_T1w.nii.gz")
    b0 = Volume(dwi.data[..., 0], dwi.vox2ras)
    mask = brain_mask(b0.data, dwi.voxel_sizes_mm, dwi.data[..., 4:].mean(axis=-1))
    generous = dilate_mm(mask, dwi.vox2ras, 8.0)
    found = register_rigid(b0, t1w, fixed_mask=generous)
    centre = nib.affines.apply_affine(dwi.vox2ras, np.argwhere(mask).mean(axis=0))
    assert np.linalg.norm(found.points(centre) - centre) > 8
    misplaced = rigid((12, 0, -8), (20, -30, 25))
    moved = register_rigid(b0, Volume(t1w.data, misplaced @ t1w.vox2ras), fixed_mask=generous)
    points = nib.affines.apply_affine(dwi.vox2ras, np.argwhere(mask)[::500])
    difference = moved.points(points) - LinearTransform(misplaced).points(found.points(points))
    assert np.linalg.norm(difference, axis=1).max() < 1.0
