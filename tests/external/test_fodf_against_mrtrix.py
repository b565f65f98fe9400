"""The fODF, its response and its mask beside MRtrix3's, on a real acquisition and a crossing."""

import shutil
import subprocess

import nibabel as nib
import numpy as np
import pytest
from datasets import real_data
from dipy.core.subdivide_octahedron import create_unit_hemisphere

from difftract_bids.io.gradients import read_gradients
from difftract_bids.io.images import load_volume, save_volume
from difftract_bids.modelling.fodf import default_lmax, fit_fodf, sh_basis
from difftract_bids.modelling.response import Response, estimate_response
from difftract_bids.modelling.tensor import fit_tensor
from difftract_bids.preprocessing.mask import brain_mask
from difftract_bids.preprocessing.reference import b0_reference

N_VOXELS = 3000

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(shutil.which("dwi2fod") is None, reason="MRtrix3 is not on the PATH"),
]


def run(*arguments, cwd):
    subprocess.run([*map(str, arguments), "-quiet"], cwd=cwd, check=True)


@pytest.fixture(scope="module")
def stem():
    return real_data() / "ds-human-3mm" / "sub-01" / "dwi" / "sub-01_dwi"


@pytest.fixture(scope="module")
def human(stem):
    image = load_volume(f"{stem}.nii.gz", ndim=4)
    gradients = read_gradients(f"{stem}.bval", f"{stem}.bvec", image.vox2ras)
    mask = brain_mask(
        b0_reference(image.data, gradients),
        image.voxel_sizes_mm,
        image.data[..., ~gradients.b0_mask].mean(axis=-1),
    )
    fa = fit_tensor(image.data, gradients, mask).fa
    white = np.flatnonzero((fa > 0.3) & mask)
    sample = np.zeros(mask.size, dtype=bool)
    sample[np.random.default_rng(0).permutation(white)[:N_VOXELS]] = True
    return image, gradients, mask, sample.reshape(mask.shape), mask & (fa > 0.2)


@pytest.fixture(scope="module")
def mrtrix(stem, human, tmp_path_factory):
    """MRtrix's mask, response and fODF at the lmax that we choose too."""
    image, gradients, _, sample, anisotropic = human
    folder = tmp_path_factory.mktemp("mrtrix")
    save_volume(sample, image.vox2ras, folder / "sample.nii")
    # Leaves out grey matter and fluid, where no single fibre is looked for, to save time.
    save_volume(anisotropic, image.vox2ras, folder / "anisotropic.nii")
    bvals = ("-fslgrad", f"{stem}.bvec", f"{stem}.bval")
    run("mrconvert", f"{stem}.nii.gz", *bvals, "dwi.mif", cwd=folder)
    run("dwi2mask", "dwi.mif", "dwi2mask.nii", cwd=folder)
    lmax = default_lmax(gradients.n_directions)
    tournier = ("dwi2response", "tournier", "dwi.mif", "response.txt")
    run(*tournier, "-mask", "anisotropic.nii", "-scratch", folder, cwd=folder)
    fod = ("dwi2fod", "csd", "dwi.mif", "response.txt", "fod.nii")
    run(*fod, "-mask", "sample.nii", "-lmax", lmax, cwd=folder)
    return folder


def peaks(coefficients, lmax):
    sphere = create_unit_hemisphere(recursion_level=6).vertices
    amplitude = coefficients @ sh_basis(sphere, lmax).T
    return amplitude.max(axis=1), sphere[amplitude.argmax(axis=1)]


def assert_like(mine, theirs, lmax, *, correlation, ratio, angle_deg):
    (my_peak, my_direction), (their_peak, their_direction) = peaks(mine, lmax), peaks(theirs, lmax)
    cosine = np.abs((my_direction * their_direction).sum(axis=1)).clip(0, 1)
    figures = (
        np.corrcoef(mine.ravel(), theirs.ravel())[0, 1],
        np.median(my_peak / their_peak),
        np.median(np.degrees(np.arccos(cosine))),
    )
    print("correlation, peak ratio, median angle (degrees):", figures)  # noqa: T201
    assert figures[0] > correlation
    assert figures[1] == pytest.approx(1, abs=ratio)
    assert figures[2] < angle_deg


def test_with_the_same_response_the_fodf_is_that_of_dwi2fod(human, mrtrix):
    image, gradients, _, sample, _ = human
    lmax = default_lmax(gradients.n_directions)
    response = Response.from_text((mrtrix / "response.txt").read_text())
    mine = fit_fodf(image.data, gradients, response, sample, lmax)[sample]
    theirs = load_volume(mrtrix / "fod.nii").data[sample]
    assert_like(mine, theirs, lmax, correlation=0.99, ratio=0.03, angle_deg=1.5)


def test_with_our_own_response_the_fodf_is_still_close(human, mrtrix):
    image, gradients, mask, sample, _ = human
    lmax = default_lmax(gradients.n_directions)
    response = estimate_response(image.data, gradients, mask, lmax)
    theirs = Response.from_text((mrtrix / "response.txt").read_text())
    np.testing.assert_allclose(response.deconvolved[0], theirs.deconvolved[0], rtol=0.1)
    mine = fit_fodf(image.data, gradients, response, sample, lmax)[sample]
    fod = load_volume(mrtrix / "fod.nii").data[sample]
    assert_like(mine, fod, lmax, correlation=0.98, ratio=0.1, angle_deg=3)


def test_dwi2fod_reads_our_response_and_gives_our_fodf(human, mrtrix):
    image, gradients, mask, sample, _ = human
    lmax = default_lmax(gradients.n_directions)
    response = estimate_response(image.data, gradients, mask, lmax)
    (mrtrix / "ours.txt").write_text(response.to_text(with_b0=False))
    run("dwi2fod", "csd", "dwi.mif", "ours.txt", "theirs.nii", "-mask", "sample.nii", cwd=mrtrix)
    theirs = load_volume(mrtrix / "theirs.nii").data[sample][:, : (lmax + 1) * (lmax + 2) // 2]
    mine = fit_fodf(image.data, gradients, response, sample, lmax)[sample]
    assert_like(mine, theirs, lmax, correlation=0.99, ratio=0.03, angle_deg=1.5)


def test_the_brain_mask_agrees_with_dwi2mask(human, mrtrix):
    mask, theirs = human[2], load_volume(mrtrix / "dwi2mask.nii").data > 0
    assert 2 * (mask & theirs).sum() / (mask.sum() + theirs.sum()) > 0.97


def test_sh2peaks_finds_our_peaks_where_we_do(human, tmp_path):
    """MRtrix reads our basis and frame: its peaks are in scanner axes, like ours."""
    image, gradients, mask, sample, _ = human
    lmax = default_lmax(gradients.n_directions)
    response = estimate_response(image.data, gradients, mask, lmax)
    fodf = fit_fodf(image.data, gradients, response, sample, lmax)
    save_volume(fodf, image.vox2ras, tmp_path / "fodf.nii")
    run("sh2peaks", "fodf.nii", "peaks.nii", "-num", 1, cwd=tmp_path)
    vectors = np.asarray(nib.load(tmp_path / "peaks.nii").dataobj)[sample][:, :3]
    length = np.linalg.norm(vectors, axis=1)
    found = vectors / length[:, None]
    here = np.einsum("vc,vc->v", sh_basis(found, lmax), fodf[sample])
    np.testing.assert_allclose(here, length, rtol=1e-3)
    # Nowhere on a grid of 1.6 degrees is there a larger peak than theirs.
    assert np.mean(here >= 0.999 * peaks(fodf[sample], lmax)[0]) > 0.99
