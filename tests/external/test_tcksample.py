"""Image values along real streamlines against MRtrix3's tcksample, and real soft connectomes."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from human import DATASET, streamlines_of, tensor_map_of
from mrtrix import Scene, human_scene, run_mrtrix

from difftract_bids.core import assign_ends, connectome
from difftract_bids.core.connectome.sampling import sample_along
from difftract_bids.core.connectome.soft import SoftConnectome

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(
        shutil.which("tcksample") is None, reason="MRtrix3's tcksample is not installed"
    ),
]


@dataclass(frozen=True)
class Tracked:
    """A real subject's FA image and streamlines, in memory and as files."""

    scene: Scene
    fa_file: Path
    tck_file: Path
    points: torch.Tensor
    offsets: torch.Tensor

    def ends(self) -> torch.Tensor:
        return torch.stack([self.points[self.offsets[:-1]], self.points[self.offsets[1:] - 1]], 1)


@pytest.fixture(scope="module")
def tracked(tmp_path_factory) -> Tracked:
    scene = human_scene(DATASET, tmp_path_factory.mktemp("tracked"))
    tck = streamlines_of(scene)
    lines = list(nib.streamlines.load(tck).streamlines)
    offsets = torch.from_numpy(np.cumsum([0, *map(len, lines)]))
    points = torch.from_numpy(np.concatenate(lines))
    return Tracked(scene, tensor_map_of(scene, "fa"), tck, points, offsets)


def fa_of(tracked: Tracked, folder: Path, image: str) -> Path:
    """The whole image; one that most streamlines leave; one with holes."""
    if image == "whole":
        return tracked.fa_file
    given = nib.load(tracked.fa_file)
    data = np.asarray(given.dataobj, dtype=np.float32)
    if image == "cut":
        return nib_save(given.slicer[20:-18, 15:30, 10:-10], folder / "cut.nii")
    holes = np.random.default_rng(0).random(data.shape) < 0.003
    return nib_save(
        nib.Nifti1Image(np.where(holes, np.nan, data), given.affine), folder / "holes.nii"
    )


def nib_save(image: nib.Nifti1Image, path: Path) -> Path:
    nib.save(image, path)
    return path


@pytest.mark.parametrize("image", ["whole", "cut", "holes"])
@pytest.mark.parametrize("statistic", ["mean", "median", "min", "max"])
def test_values_equal_tcksamples(tracked, tmp_path, statistic, image, record_property):
    fa_file, values = fa_of(tracked, tmp_path, image), tmp_path / "values.txt"
    options = ("-stat_tck", statistic, "-nthreads", 0, "-quiet")
    run_mrtrix("tcksample", tracked.tck_file, fa_file, values, *options)
    theirs = np.loadtxt(values)
    loaded = nib.load(fa_file)
    data = torch.from_numpy(np.asarray(loaded.dataobj, dtype=np.float32))
    affine = torch.from_numpy(loaded.affine)
    ours = sample_along(data, affine, tracked.points, tracked.offsets, statistic).numpy()
    assert np.array_equal(np.isnan(ours), np.isnan(theirs))
    if image == "holes" and statistic == "mean":
        assert np.isnan(theirs).sum() > 500
    if image == "cut" and statistic == "min":
        assert (theirs == 0).mean() > 0.5
    known = ~np.isnan(theirs)
    largest = np.abs(ours - theirs)[known] / np.maximum(np.abs(theirs[known]), 1e-12)
    record_property("largest_relative_difference", float(largest.max()))
    assert largest.max() <= 1e-6


def test_a_real_soft_connectome_becomes_the_hard_one(tracked):
    """Parcels are the cells of random points; their surface is that of the brain's mask."""
    rng = np.random.default_rng(0)
    affine = tracked.scene.vox2ras
    voxels = torch.nonzero(tracked.scene.mask)
    centres = voxels[torch.from_numpy(rng.choice(len(voxels), 116, replace=False))]
    nearest = torch.cdist(voxels.double(), centres.double()).argmin(1)
    parcellation = torch.zeros(tracked.scene.mask.shape, dtype=torch.int32)
    parcellation[tuple(voxels.T)] = nearest.int() + 1
    parcellation[torch.from_numpy(rng.random(parcellation.shape)) < 0.8] = 0
    ends = tracked.ends()
    labels = assign_ends(ends, parcellation, affine)
    hard = connectome(labels, torch.arange(1, 117))
    assert int(hard.sum()) > 15_000
    far = [
        float((SoftConnectome(parcellation, affine, sigma_mm=sigma)(ends) - hard).abs().max())
        for sigma in (1.0, 0.1, 1e-2, 1e-4)
    ]
    assert far[0] > far[1] > far[2] >= far[3] == 0.0
