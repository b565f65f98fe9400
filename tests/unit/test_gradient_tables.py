"""Gradient tables and their frames."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from difftract_bids.errors import GradientError
from difftract_bids.io.gradients import read_gradients, to_fsl_bvecs

IDENTITY = np.eye(4)


def directions(n=8, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(n, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def write(folder, bvals, bvecs_fsl):
    np.savetxt(folder / "a.bval", np.atleast_2d(bvals))
    np.savetxt(folder / "a.bvec", bvecs_fsl)
    return folder / "a.bval", folder / "a.bvec"


def table_files(folder, vox2ras=IDENTITY, n=8):
    bvecs = np.vstack([np.zeros(3), directions(n)])
    return write(folder, [0] + [1000] * n, to_fsl_bvecs(bvecs, vox2ras)), bvecs


def test_fsl_reverses_the_first_axis_where_the_affine_has_a_positive_determinant(tmp_path):
    vectors = np.vstack([np.zeros(3), [1, 0, 0], directions(7)])
    files = write(tmp_path, [0] + [1000] * 8, vectors.T)
    assert read_gradients(*files, np.diag([2.0, 2, 2, 1])).bvecs[1].tolist() == [-1, 0, 0]
    # In radiological storage (LAS) FSL's x is the stored x, which points left: -1 in RAS.
    assert read_gradients(*files, np.diag([-2.0, 2, 2, 1])).bvecs[1].tolist() == [-1, 0, 0]


@given(
    angles=st.tuples(*[st.floats(-40, 40)] * 3),
    flips=st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3),
    sizes=st.tuples(*[st.floats(0.5, 4)] * 3),
)
def test_vectors_survive_any_oblique_flipped_anisotropic_frame(
    tmp_path_factory, angles, flips, sizes
):
    vox2ras = np.eye(4)
    rotation = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    vox2ras[:3, :3] = rotation @ np.diag(np.multiply(flips, sizes))
    files, bvecs = table_files(tmp_path_factory.mktemp("g"), vox2ras)
    np.testing.assert_allclose(read_gradients(*files, vox2ras).bvecs, bvecs, atol=1e-9)


def test_vectors_in_columns_are_read_like_vectors_in_rows(tmp_path):
    (bval, bvec), bvecs = table_files(tmp_path)
    np.savetxt(bvec, np.loadtxt(bvec).T)
    np.testing.assert_allclose(read_gradients(bval, bvec, IDENTITY).bvecs, bvecs, atol=1e-9)


def test_shells_are_grouped_in_spite_of_jitter(tmp_path):
    bvals = [0, 5, 995, 1000, 1005, 2000, 2010, 1990, 2995]
    files = write(tmp_path, bvals, np.vstack([np.zeros((2, 3)), directions(7)]).T)
    assert read_gradients(*files, IDENTITY).shells() == [(0, 2), (1000, 3), (2000, 3), (2995, 1)]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda bvals, bvecs: (bvals[:-1], bvecs), "8 b-values and 9 b-vectors"),
        (lambda bvals, bvecs: (bvals, bvecs[:2]), r"shape \(2, 9\)"),
        (lambda bvals, bvecs: (bvals + 500, bvecs), "no b=0 volume"),
        (
            lambda bvals, bvecs: (bvals, bvecs * 0.5),
            "8 diffusion-weighted b-vectors are not of unit",
        ),
        (
            lambda bvals, bvecs: (bvals, np.where(bvecs == bvecs[0, 3], np.nan, bvecs)),
            "not finite",
        ),
        (lambda bvals, bvecs: (np.where(np.arange(9) > 5, 0, bvals), bvecs), "Only 5 volumes"),
        (lambda bvals, bvecs: (-bvals, bvecs), "negative"),
    ],
)
def test_damage_is_named(tmp_path, damage, message):
    bvals, bvecs = np.array([0.0] + [1000.0] * 8), np.vstack([np.zeros(3), directions()]).T
    damaged = damage(bvals, bvecs)
    with pytest.raises(GradientError, match=message):
        read_gradients(*write(tmp_path, *damaged), IDENTITY)


def test_a_table_of_another_image_is_refused(tmp_path):
    files, _ = table_files(tmp_path)
    with pytest.raises(GradientError, match="image has 30 volumes, the gradient table 9"):
        read_gradients(*files, IDENTITY, n_volumes=30)


def test_undefined_vectors_of_unweighted_volumes_are_no_fault(tmp_path):
    files, bvecs = table_files(tmp_path)
    text = np.loadtxt(files[1])
    text[:, 0] = np.nan
    np.savetxt(files[1], text)
    np.testing.assert_allclose(read_gradients(*files, IDENTITY).bvecs, bvecs, atol=1e-9)
