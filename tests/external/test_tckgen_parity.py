"""Streamlines and connectomes vertex by vertex against MRtrix3's own programs."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from datasets import real_data
from problems import crossing_bundles, oblique, scaling

from difftract_bids.core import (
    Streamlines,
    TrackingConfig,
    assign_ends,
    connectome,
    random_seeds,
    track,
)

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(shutil.which("tckgen") is None, reason="MRtrix3's tckgen is not installed"),
]

DIRECTION = (0.3, 0.8, 0.52)
TOLERANCE_MM = 0.01


def run_mrtrix(*command: object) -> None:
    environment = dict(os.environ, MRTRIX_RNG_SEED="7")
    words = [str(word) for word in command]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stderr}"


def write_image(data: torch.Tensor, affine: torch.Tensor, path: Path) -> Path:
    nib.save(nib.Nifti1Image(data.numpy(), affine.numpy()), path)
    return path


def tckgen(
    fod: Path, seed_image: Path, folder: Path, *options: object
) -> tuple[list[np.ndarray], torch.Tensor]:
    """Track with a fixed initial direction: streamlines, and the seeds of the accepted ones."""
    tck, seeds = folder / "theirs.tck", folder / "seeds.csv"
    run_mrtrix(
        *("tckgen", "-algorithm", "SD_STREAM", fod, tck, "-seed_image", seed_image),
        *("-select", 0, "-seed_direction", ",".join(map(str, DIRECTION))),
        *("-output_seeds", seeds, "-nthreads", 0, "-quiet", "-force", *options),
    )
    table = np.loadtxt(seeds, delimiter=",", usecols=(2, 3, 4), ndmin=2)
    return list(nib.streamlines.load(tck).streamlines), torch.from_numpy(table).float()


def share_within_tolerance(theirs: list[np.ndarray], ours: Streamlines) -> float:
    """Share of their streamlines that have the same vertices here; lost ones count as failed."""
    place = {seed: i for i, seed in enumerate(ours.seed_index.tolist())}
    agree = 0
    for seed, their in enumerate(theirs):
        our = ours[place[seed]].numpy() if seed in place else np.zeros((0, 3))
        if our.shape == their.shape:
            agree += np.linalg.norm(our - their, axis=1).max() < TOLERANCE_MM
    return agree / len(theirs)


def track_like_tckgen(fodf, seeds, affine, config, mask=None) -> Streamlines:
    return track(fodf, seeds, torch.tensor([DIRECTION]).expand_as(seeds), affine, config, mask)


@pytest.fixture(scope="module", params=["oblique", "isotropic"])
def phantom(request, tmp_path_factory):
    affine = oblique() if request.param == "oblique" else scaling(2.0, (-20.0, 5.0, 3.0))
    fodf = crossing_bundles(affine).float()
    folder = tmp_path_factory.mktemp(request.param)
    fod = write_image(fodf, affine, folder / "fod.nii.gz")
    inside = write_image((fodf[..., 0] != 0).to(torch.uint8), affine, folder / "mask.nii.gz")
    return fodf, affine, fod, inside, folder


@pytest.mark.parametrize("integrator", ["euler", "rk4"])
def test_streamlines_on_a_phantom_equal_tckgens(phantom, integrator, record_property):
    fodf, affine, fod, inside, folder = phantom
    options = ["-rk4"] if integrator == "rk4" else []
    theirs, seeds = tckgen(fod, inside, folder, "-seeds", 2000, *options)
    ours = track_like_tckgen(fodf, seeds, affine, TrackingConfig(integrator=integrator))
    share = share_within_tolerance(theirs, ours)
    record_property("share_within_0.01_mm", share)
    assert len(theirs) >= 1000
    assert share >= 0.99


def test_settings_and_masks_mean_what_they_mean_to_tckgen(phantom, record_property):
    fodf, affine, fod, inside, folder = phantom
    mask = torch.zeros(fodf.shape[:3], dtype=torch.bool)
    mask[4:22, 3:20, 3:16] = True
    region = write_image(mask.to(torch.uint8), affine, folder / "region.nii.gz")
    settings = {"step": 0.37, "angle": 9, "cutoff": 0.25, "minlength": 8.3, "maxlength": 31.7}
    options = [word for name, value in settings.items() for word in (f"-{name}", value)]
    theirs, seeds = tckgen(fod, inside, folder, "-seeds", 5000, "-mask", region, *options)
    config = TrackingConfig(
        step_size_mm=0.37, max_angle_deg=9, cutoff=0.25, min_length_mm=8.3, max_length_mm=31.7
    )
    ours = track_like_tckgen(fodf, seeds, affine, config, mask)
    share = share_within_tolerance(theirs, ours)
    record_property("share_within_0.01_mm", share)
    assert len(theirs) >= 1000
    assert max(map(len, theirs)) == int(ours.n_vertices().max())
    assert share >= 0.99


def test_tckgen_keeps_no_other_seeds_than_we_do(phantom):
    fodf, affine, fod, inside, folder = phantom
    options = ("-seeds", 1000, "-maxlength", 400)
    everything, kept = tckgen(fod, inside, folder, *options, "-minlength", 0)
    theirs, _ = tckgen(fod, inside, folder, *options, "-minlength", 25)
    config = TrackingConfig(min_length_mm=25, max_length_mm=400)
    ours = track_like_tckgen(fodf, kept, affine, config)
    assert len(theirs) < len(everything)
    assert len(ours) == pytest.approx(len(theirs), abs=0.01 * len(theirs))


@pytest.fixture(scope="module")
def human_fod(tmp_path_factory):
    """fODF of a real subject at 3 mm, made by MRtrix alone."""
    raw = real_data() / "ds-human-3mm" / "sub-01" / "dwi" / "sub-01_dwi"
    folder = tmp_path_factory.mktemp("human")
    dwi, mask, fod = folder / "dwi.mif", folder / "mask.nii.gz", folder / "fod.nii.gz"
    quiet = ("-quiet", "-force", "-nthreads", 2)
    gradients = ("-fslgrad", f"{raw}.bvec", f"{raw}.bval")
    run_mrtrix("mrconvert", f"{raw}.nii.gz", dwi, *gradients, *quiet)
    run_mrtrix("dwi2mask", dwi, mask, *quiet)
    response = folder / "response.txt"
    run_mrtrix("dwi2response", "tournier", dwi, response, "-mask", mask, "-max_iters", 2, *quiet)
    run_mrtrix("dwi2fod", "csd", dwi, response, fod, "-mask", mask, *quiet)
    return fod, mask, folder


@pytest.mark.parametrize("integrator", ["euler", "rk4"])
def test_streamlines_in_a_human_brain_equal_tckgens(human_fod, integrator, record_property):
    fod, mask, folder = human_fod
    image = nib.load(fod)
    fodf = torch.from_numpy(np.asarray(image.dataobj, dtype=np.float32)).nan_to_num()
    options = ["-rk4"] if integrator == "rk4" else []
    theirs, seeds = tckgen(fod, mask, folder, "-seeds", 3000, *options)
    affine = torch.from_numpy(image.affine)
    ours = track_like_tckgen(fodf, seeds, affine, TrackingConfig(integrator=integrator))
    share = share_within_tolerance(theirs, ours)
    record_property("share_within_0.01_mm", share)
    assert len(theirs) >= 1000
    # Every vertex that both have agrees; what differs is where they stop, when an amplitude is
    # within the error of MRtrix's own Legendre table of the cutoff, or a search fails to converge.
    assert share >= 0.985


def test_connectomes_equal_tck2connectomes(phantom):
    fodf, affine, _, _, folder = phantom
    inside = fodf[..., 0] != 0
    seeds, starts = random_seeds(inside, affine, 1500, random_seed=0, dtype=torch.float32)
    ours = track(fodf, seeds, starts, affine, TrackingConfig(max_length_mm=40.0))
    generator = torch.Generator().manual_seed(0)
    fine = affine.clone()
    fine[:3, :3] /= 1.3
    shape = tuple(int(size * 1.3) for size in fodf.shape[:3])
    labels = torch.randint(1, 31, shape, generator=generator, dtype=torch.int32)
    labels[torch.rand(shape, generator=generator) > 0.03] = 0
    nodes = write_image(labels, fine, folder / "nodes.nii.gz")
    tck = folder / "ours.tck"
    vertices = [ours[i].numpy() for i in range(len(ours))]
    nib.streamlines.save(nib.streamlines.Tractogram(vertices, affine_to_rasmm=np.eye(4)), tck)
    count, length = folder / "count.csv", folder / "length.csv"
    assigned = folder / "assignments.txt"
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
