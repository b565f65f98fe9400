"""Connectomes against MRtrix3's tck2connectome."""

from __future__ import annotations

import shutil

import nibabel as nib
import numpy as np
import pytest
import torch
from mrtrix import phantom_scene, run_mrtrix, write_image

from difftract_bids.core import TrackingConfig, assign_ends, connectome, random_seeds, track

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(
        shutil.which("tck2connectome") is None, reason="MRtrix3's tck2connectome is not installed"
    ),
]


@pytest.mark.parametrize("name", ["oblique", "isotropic"])
def test_connectomes_equal_tck2connectomes(name, tmp_path):
    scene = phantom_scene(name, tmp_path)
    affine = scene.vox2ras
    seeds, starts = random_seeds(scene.mask, affine, 1500, random_seed=0, dtype=torch.float32)
    ours = track(scene.fodf, seeds, starts, affine, TrackingConfig(max_length_mm=40.0))
    generator = torch.Generator().manual_seed(0)
    fine = affine.clone()
    fine[:3, :3] /= 1.3
    shape = tuple(int(size * 1.3) for size in scene.mask.shape)
    labels = torch.randint(1, 31, shape, generator=generator, dtype=torch.int32)
    labels[torch.rand(shape, generator=generator) > 0.03] = 0
    nodes = write_image(labels, fine, tmp_path / "nodes.nii.gz")
    tck = tmp_path / "ours.tck"
    vertices = [ours[i].numpy() for i in range(len(ours))]
    nib.streamlines.save(nib.streamlines.Tractogram(vertices, affine_to_rasmm=np.eye(4)), tck)
    count, length = tmp_path / "count.csv", tmp_path / "length.csv"
    assigned = tmp_path / "assignments.txt"
    common = ("-symmetric", "-quiet", "-force", "-nthreads", 0)
    run_mrtrix("tck2connectome", tck, nodes, count, *common, "-out_assignments", assigned)
    run_mrtrix(
        *("tck2connectome", tck, nodes, length, *common),
        *("-scale_length", "-stat_edge", "mean"),
    )
    ends = assign_ends(ours.ends(), labels, fine)
    node_labels = torch.arange(1, 31)
    assert np.array_equal(ends.sort(1).values.numpy(), np.sort(np.loadtxt(assigned, int), axis=1))
    counts = connectome(ends, node_labels)
    assert int(counts.sum()) > 400
    assert np.array_equal(counts.numpy(), np.loadtxt(count, delimiter=","))
    mean_mm = connectome(ends, node_labels, ours.lengths_mm())
    np.testing.assert_allclose(mean_mm.numpy(), np.loadtxt(length, delimiter=","), rtol=1e-6)
