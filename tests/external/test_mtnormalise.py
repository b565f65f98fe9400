"""Intensity normalisation beside MRtrix3's mtnormalise, on simulated coils and gains."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from mrtrix import run_mrtrix
from series import phantom_series

from difftract_bids.modelling.normalise import (
    Normalisation,
    apply_normalisation,
    normalise_tissues,
)

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(
        shutil.which("mtnormalise") is None, reason="MRtrix3's mtnormalise is not installed"
    ),
]

TISSUES = ("WM", "GM", "CSF")
QUIET = ("-quiet", "-force", "-nthreads", 1)
#: Gain of each subject's scanner, and where its coil is nearest.
SUBJECTS = {
    "low": (0.7, (1.5, 0.3, 0.0)),
    "unit": (1.0, (0.3, 0.2, -1.6)),
    "high": (1.6, (-0.2, -1.4, 0.8)),
}


@dataclass(frozen=True)
class Subject:
    """Tissues of a subject, and both programs' normalisation of them."""

    bias: np.ndarray
    mask: np.ndarray
    ours: Normalisation
    our_white: np.ndarray
    field: np.ndarray
    kept: np.ndarray
    white: np.ndarray
    balance: np.ndarray


def read(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def coil(shape, centre):
    """Sensitivity that decreases with the distance, and is no polynomial."""
    axes = np.meshgrid(*[np.linspace(-1, 1, size) for size in shape], indexing="ij")
    distance = np.linalg.norm(np.stack(axes, axis=-1) - centre, axis=-1)
    return 0.5 + np.exp(-((distance / 1.4) ** 2))


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    """A simulated acquisition of three shells, its mask and responses."""
    folder = tmp_path_factory.mktemp("phantom")
    phantom_series(folder, voxel_size_mm=5.0, n_directions=32)
    stem = folder / "raw" / "sub-01" / "dwi" / "sub-01_dwi"
    responses = [folder / f"{tissue}.txt" for tissue in TISSUES]
    dhollander = ("dwi2response", "dhollander", folder / "dwi.mif", *responses)
    run_mrtrix(*dhollander, "-mask", folder / "mask.nii", "-scratch", folder, *QUIET, cwd=folder)
    return folder, stem, responses


def deconvolved(phantom, bias, here) -> list[Path]:
    """Tissues of the phantom as a coil and a gain would have it, by its unbiased responses."""
    folder, stem, responses = phantom
    image = nib.load(f"{stem}.nii.gz")
    dwi = np.asarray(image.dataobj, dtype=np.float32) * bias[..., None].astype(np.float32)
    nib.save(nib.Nifti1Image(dwi, image.affine), here / "dwi.nii")
    files = [here / f"{tissue}.nii" for tissue in TISSUES]
    pairs = [part for pair in zip(responses, files, strict=True) for part in pair]
    options = ("-mask", folder / "mask.nii", "-lmax", "4,0,0")
    gradients = ("-fslgrad", f"{stem}.bvec", f"{stem}.bval")
    run_mrtrix("dwi2fod", "msmt_csd", here / "dwi.nii", *pairs, *options, *gradients, *QUIET)
    return files


@pytest.fixture(scope="module", params=SUBJECTS)
def subject(phantom, request, tmp_path_factory):
    here = tmp_path_factory.mktemp(request.param)
    mask_file = phantom[0] / "mask.nii"
    mask = read(mask_file) > 0
    gain, centre = SUBJECTS[request.param]
    bias = gain * coil(mask.shape, centre)
    files = deconvolved(phantom, bias, here)
    normed = [part for f in files for part in (f, f.with_name(f"norm_{f.name}"))]
    checks = ("-check_norm", "f.nii", "-check_mask", "k.nii", "-check_factors", "b.txt")
    run_mrtrix("mtnormalise", *normed, "-mask", mask_file, *checks, *QUIET, cwd=here)
    tissues = {name: read(file) for name, file in zip(TISSUES, files, strict=True)}
    ours = normalise_tissues(tissues, mask)
    return Subject(
        bias=bias,
        mask=mask,
        ours=ours,
        our_white=apply_normalisation(tissues, ours)["WM"],
        field=read(here / "f.nii"),
        kept=np.nan_to_num(read(here / "k.nii")) > 0,
        white=read(here / "norm_WM.nii"),
        balance=np.loadtxt(here / "b.txt"),
    )


def test_the_overall_scale_is_mtnormalises(subject):
    inside = subject.mask
    ratio = subject.our_white[inside][:, 0].mean() / subject.white[inside][:, 0].mean()
    assert ratio == pytest.approx(1.0, abs=1e-3)


def test_every_coefficient_is_mtnormalises(subject):
    inside = subject.mask
    np.testing.assert_allclose(
        subject.our_white[inside], subject.white[inside], rtol=1e-3, atol=1e-5
    )


def test_the_field_is_mtnormalises(subject):
    ours, theirs = subject.ours.field[subject.mask], subject.field[subject.mask]
    assert np.corrcoef(ours, theirs)[0, 1] > 0.9999
    np.testing.assert_allclose(ours, theirs, rtol=1e-3)


def test_balance_factors_and_outliers_are_mtnormalises(subject):
    ours = [subject.ours.balance[tissue] for tissue in TISSUES]
    np.testing.assert_allclose(ours, subject.balance, rtol=1e-3)
    differing = (subject.ours.kept != subject.kept) & subject.mask
    assert differing.sum() <= 1e-3 * subject.mask.sum()


@pytest.fixture(scope="module")
def anatomy(phantom, tmp_path_factory):
    """What the same head gives without any bias: its own sum is not quite constant."""
    mask = read(phantom[0] / "mask.nii") > 0
    files = deconvolved(phantom, np.ones(mask.shape), tmp_path_factory.mktemp("anatomy"))
    tissues = {name: read(file) for name, file in zip(TISSUES, files, strict=True)}
    found = normalise_tissues(tissues, mask)
    return found.field, apply_normalisation(tissues, found)["WM"][mask][:, 0].mean()


def test_gain_and_coil_are_recovered_whatever_the_anatomy(subject, anatomy):
    unbiased, white = anatomy
    inside = subject.mask
    ratio = subject.ours.field[inside] / (subject.bias * unbiased)[inside]
    assert ratio.std() < 0.005
    assert ratio.mean() == pytest.approx(1.0, abs=0.005)
    assert subject.our_white[inside][:, 0].mean() == pytest.approx(white, rel=0.005)
