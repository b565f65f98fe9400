"""Streamlines of tensors vertex by vertex against ``tckgen -algorithm Tensor_Det``."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pytest
import torch
from acquisitions import scheme
from datasets import real_data
from problems import circles, oblique, scaling, voxel_centres_mm

from difftract_bids.config import TrackingConfig
from difftract_bids.core import Streamlines, mean_voxel_size_mm
from difftract_bids.core.field import TensorField
from difftract_bids.core.propagate import track_field
from difftract_bids.io.gradients import read_gradients, write_gradients

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(shutil.which("tckgen") is None, reason="MRtrix3's tckgen is not installed"),
]

TOLERANCE_MM = 0.01
SHAPE = (28, 26, 20)


class Series(NamedTuple):
    """A diffusion-weighted series on disk; ``stem`` has no extension."""

    stem: Path
    mask: Path
    folder: Path


def run_mrtrix(*command: object) -> None:
    environment = dict(os.environ, MRTRIX_RNG_SEED="7")
    words = [str(word) for word in command]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stderr}"


def tensor_det(
    series: Series, *options: object
) -> tuple[list[np.ndarray], torch.Tensor, torch.Tensor]:
    """Track with tckgen: streamlines, their seeds, and the sense of each first half.

    Tensor_Det starts along the eigenvector as its solver gives it, whatever the seed direction.
    """
    tck, seeds = series.folder / "theirs.tck", series.folder / "seeds.csv"
    run_mrtrix(
        *("tckgen", "-algorithm", "Tensor_Det", f"{series.stem}.nii.gz", tck),
        *("-fslgrad", f"{series.stem}.bvec", f"{series.stem}.bval"),
        *("-seed_image", series.mask, "-select", 0, "-output_seeds", seeds),
        *("-nthreads", 0, "-quiet", "-force", *options),
    )
    theirs = list(nib.streamlines.load(tck).streamlines)
    table = np.loadtxt(seeds, delimiter=",", usecols=(1, 2, 3, 4), ndmin=2)
    starts = [
        their[at - 1] - their[at] if at else their[0] - their[1]
        for their, at in zip(theirs, table[:, 0].astype(int), strict=True)
    ]
    directions = torch.from_numpy(np.array(starts))
    return (
        theirs,
        torch.from_numpy(table[:, 1:]).float(),
        directions / directions.norm(dim=1, keepdim=True),
    )


def follow_like_tckgen(
    series: Series, seeds: torch.Tensor, starts: torch.Tensor, config: TrackingConfig
) -> Streamlines:
    image = nib.load(f"{series.stem}.nii.gz")
    table = read_gradients(f"{series.stem}.bval", f"{series.stem}.bvec", image.affine)
    affine = torch.from_numpy(image.affine)
    settings = config.resolve(mean_voxel_size_mm(affine))
    # The vectors in the file are of unit length to six digits; MRtrix weights the b-values by it.
    length = np.linalg.norm(np.loadtxt(f"{series.stem}.bvec"), axis=0)
    field = TensorField.from_dwi(
        torch.from_numpy(np.asarray(image.dataobj, dtype=np.float32)),
        affine,
        torch.from_numpy(table.bvecs * length[:, None]),
        torch.from_numpy(table.bvals_s_mm2),
        cutoff=settings.cutoff,
    )
    return track_field(field, seeds, starts, settings)


def share_within_tolerance(theirs: list[np.ndarray], ours: Streamlines) -> float:
    """Share of their streamlines that have the same vertices here; lost ones count as failed."""
    place = {seed: i for i, seed in enumerate(ours.seed_index.tolist())}
    agree = 0
    for seed, their in enumerate(theirs):
        our = ours[place[seed]].numpy() if seed in place else np.zeros((0, 3))
        if our.shape == their.shape:
            agree += np.linalg.norm(our - their, axis=1).max() < TOLERANCE_MM
    return agree / len(theirs)


def compare(series: Series, config: TrackingConfig, *options: object) -> tuple[float, int]:
    rk4 = ["-rk4"] if config.integrator == "rk4" else []
    theirs, seeds, starts = tensor_det(series, *rk4, *options)
    ours = follow_like_tckgen(series, seeds, starts, config)
    return share_within_tolerance(theirs, ours), len(theirs)


@pytest.fixture(scope="module", params=["oblique", "isotropic"])
def phantom(request, tmp_path_factory) -> Series:
    """Helices whose anisotropy varies, with noise, in an ellipsoid; nothing around it."""
    affine = oblique() if request.param == "oblique" else scaling(2.0, (-20.0, 5.0, 3.0))
    table = scheme((700, 20), (1500, 30))
    bvecs, bvals = torch.from_numpy(table.bvecs), torch.from_numpy(table.bvals_s_mm2)
    position = voxel_centres_mm(SHAPE, affine)
    middle = position.reshape(-1, 3).mean(0)
    offset = position - middle
    along = circles(tuple((middle + torch.tensor([-35.0, 8.0, 0.0])).tolist()))(position)
    along = along + torch.tensor([0.0, 0.0, 8.0])
    along = along / along.norm(dim=-1, keepdim=True)
    excess = 0.2e-3 + 1.2e-3 * torch.sigmoid(offset[..., 2:] / 10 + 1)  # mm²/s
    dwi = 1000 * torch.exp(-bvals * (0.4e-3 + excess * (along @ bvecs.T) ** 2))
    generator = torch.Generator().manual_seed(1)
    dwi = dwi + 20 * torch.randn(dwi.shape, generator=generator, dtype=dwi.dtype)
    inside = ((offset / offset.reshape(-1, 3).abs().amax(0)) ** 2).sum(-1) < 0.9
    folder = tmp_path_factory.mktemp(request.param)
    stem, mask = folder / "dwi", folder / "mask.nii.gz"
    dwi = (dwi * inside[..., None]).float()
    nib.save(nib.Nifti1Image(dwi.numpy(), affine.numpy()), f"{stem}.nii.gz")
    nib.save(nib.Nifti1Image(inside.numpy().astype(np.uint8), affine.numpy()), mask)
    write_gradients(table, affine.numpy(), stem)
    return Series(stem, mask, folder)


@pytest.mark.parametrize("integrator", ["euler", "rk4"])
def test_streamlines_of_a_phantoms_tensors_equal_tckgens(phantom, integrator, record_property):
    config = TrackingConfig(integrator=integrator)
    share, count = compare(phantom, config, "-seeds", 3000)
    record_property("share_within_0.01_mm", share)
    assert count >= 2000
    assert share >= 0.999


def test_settings_mean_what_they_mean_to_tckgen(phantom, record_property):
    settings = {"step": 0.37, "angle": 6, "cutoff": 0.45, "minlength": 8.3, "maxlength": 31.7}
    options = [word for name, value in settings.items() for word in (f"-{name}", value)]
    config = TrackingConfig(
        step_size_mm=0.37, max_angle_deg=6, cutoff=0.45, min_length_mm=8.3, max_length_mm=31.7
    )
    share, count = compare(phantom, config, "-seeds", 3000, *options)
    record_property("share_within_0.01_mm", share)
    assert count >= 1000
    assert share >= 0.999


@pytest.fixture(scope="module")
def human(tmp_path_factory) -> Series:
    """A real subject at 3 mm, as it comes from the scanner."""
    stem = real_data() / "ds-human-3mm" / "sub-01" / "dwi" / "sub-01_dwi"
    folder = tmp_path_factory.mktemp("human")
    mask = folder / "mask.nii.gz"
    gradients = ("-fslgrad", f"{stem}.bvec", f"{stem}.bval")
    run_mrtrix("dwi2mask", f"{stem}.nii.gz", mask, *gradients, "-quiet", "-nthreads", 0)
    return Series(stem, mask, folder)


@pytest.mark.parametrize(
    ("integrator", "cutoff", "at_least"),
    [("euler", 0.1, 0.99), ("rk4", 0.1, 0.99), ("euler", 0.2, 0.999)],
)
def test_streamlines_of_human_tensors_equal_tckgens(
    human, integrator, cutoff, at_least, record_property
):
    config = TrackingConfig(integrator=integrator, cutoff=cutoff)
    share, count = compare(human, config, "-seeds", 5000, "-cutoff", cutoff)
    record_property("share_within_0.01_mm", share)
    assert count >= 1000
    # Where the two largest eigenvalues are nearly equal, float32's rounding grows to 0.01 mm
    # within the hundreds of Euler steps that a cutoff of 0.1 allows in grey matter.
    assert share >= at_least
