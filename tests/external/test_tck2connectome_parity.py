"""Connectomes against MRtrix3's tck2connectome: on a phantom, and on a human brain."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import nibabel as nib
import numpy as np
import pytest
import torch
from human import HumanStreamlines, human_streamlines
from mrtrix import phantom_scene, run_mrtrix, write_image

from difftract_bids.core import TrackingConfig, assign_ends, connectome, random_seeds, track
from difftract_bids.core.connectome.assignment import assign_streamlines, visited_labels
from difftract_bids.core.connectome.edges import EdgeSums
from difftract_bids.core.connectome.nodes import node_voxels
from difftract_bids.core.connectome.scalings import (
    inverse_lengths_per_mm,
    inverse_node_volumes,
    streamline_lengths_mm,
)
from difftract_bids.io.tractogram_reader import count_streamlines, iter_tractogram

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(
        shutil.which("tck2connectome") is None, reason="MRtrix3's tck2connectome is not installed"
    ),
]
NODES = torch.arange(1, 117)
#: Each rule: what it is called here, how far it looks, and MRtrix's option.
RULES = [
    ("radial_search", None, ()),
    ("radial_search", 2.0, ("-assignment_radial_search", 2)),
    ("radial_search", 6.0, ("-assignment_radial_search", 6)),
    ("end_voxels", None, ("-assignment_end_voxels",)),
    ("reverse_search", None, ("-assignment_reverse_search", 0)),
    ("reverse_search", 10.0, ("-assignment_reverse_search", 10)),
    ("forward_search", None, ("-assignment_forward_search", 3)),
    ("forward_search", 5.0, ("-assignment_forward_search", 5)),
    ("forward_search", 12.0, ("-assignment_forward_search", 12)),
    ("all_voxels", None, ("-assignment_all_voxels",)),
]
ALL_VOXELS = ("-assignment_all_voxels",)


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
    assert np.array_equal(ends.numpy(), np.loadtxt(assigned, int))
    counts = connectome(ends, node_labels)
    assert int(counts.sum()) > 400
    assert np.array_equal(counts.numpy(), np.loadtxt(count, delimiter=","))
    mean_mm = connectome(ends, node_labels, ours.lengths_mm())
    np.testing.assert_allclose(mean_mm.numpy(), np.loadtxt(length, delimiter=","), rtol=1e-6)


@pytest.fixture(scope="module")
def human(tmp_path_factory):
    made = human_streamlines(tmp_path_factory.mktemp("human"))
    assert count_streamlines(made.tck) > 20_000
    assert len(torch.unique(made.labels)) == 117
    return made


def theirs(human: HumanStreamlines, folder, *options, nodes=None) -> tuple[np.ndarray, list[str]]:
    """Their matrix, and their assignments line by line."""
    matrix, assigned = folder / "matrix.csv", folder / "assignments.txt"
    run_mrtrix(
        *("tck2connectome", human.tck, nodes or human.nodes, matrix, "-quiet", "-force"),
        *("-nthreads", 0, "-out_assignments", assigned, *options),
    )
    lines = [line for line in assigned.read_text().splitlines() if not line.startswith("#")]
    return np.loadtxt(matrix, delimiter=","), lines


def batches(human: HumanStreamlines, rule="radial_search", distance_mm=None, labels=None):
    """Read the file in parts, and assign each."""
    image = human.labels if labels is None else labels
    for block in iter_tractogram(human.tck, max_points=300_000):
        where = (torch.from_numpy(block.points), torch.from_numpy(block.offsets), image)
        if rule == "all_voxels":
            yield where, visited_labels(*where, human.vox2ras)
        else:
            yield where, assign_streamlines(*where, human.vox2ras, rule, distance_mm)


def as_lines(labels) -> Iterator[str]:
    """Write assignments as MRtrix does: 0 stands for none."""
    if isinstance(labels, torch.Tensor):
        yield from (f"{first} {last}" for first, last in labels.tolist())
    else:
        for part in labels[0].split(labels[1].diff().tolist()):
            yield " ".join(map(str, part.tolist())) or "0"


@pytest.mark.parametrize(("rule", "distance_mm", "option"), RULES)
def test_every_streamline_of_a_brain_is_assigned_as_tck2connectome_does(
    human, tmp_path, rule, distance_mm, option
):
    matrix, lines = theirs(human, tmp_path, "-symmetric", *option)
    sums, ours = EdgeSums(NODES), []
    for _, labels in batches(human, rule, distance_mm):
        sums.add(labels)
        ours += as_lines(labels)
    assert ours == lines
    assert np.array_equal(sums.matrix().numpy(), matrix)
    assert np.array_equal(sums.count.numpy(), matrix)
    assert sums.assigned > 1000
    assert sums.total == len(lines)


@pytest.mark.parametrize("n_nodes", [2, 5000])
def test_few_nodes_and_many_are_counted_as_tck2connectome_does(human, tmp_path, n_nodes):
    generator = torch.Generator().manual_seed(n_nodes)
    shape = tuple(human.labels.shape)
    labels = torch.randint(1, n_nodes + 1, shape, generator=generator, dtype=torch.int32)
    labels[torch.rand(shape, generator=generator) > 0.4] = 0
    nodes = write_image(labels, human.vox2ras, tmp_path / "nodes.nii.gz")
    matrix, lines = theirs(human, tmp_path, "-symmetric", nodes=nodes)
    sums, ours = EdgeSums(torch.arange(1, n_nodes + 1)), []
    for _, assigned in batches(human, labels=labels):
        sums.add(assigned)
        ours += as_lines(assigned)
    assert ours == lines
    assert np.array_equal(sums.matrix().numpy(), matrix)


def test_matrices_are_symmetric_or_not_and_have_a_diagonal_or_not_as_theirs(human, tmp_path):
    sums = EdgeSums(NODES)
    for _, labels in batches(human):
        sums.add(labels)
    matrix = sums.matrix().numpy()
    assert np.diag(matrix).any()
    assert np.array_equal(np.triu(matrix), theirs(human, tmp_path)[0])
    hollow = matrix - np.diag(np.diag(matrix))
    assert np.array_equal(hollow, theirs(human, tmp_path, "-symmetric", "-zero_diagonal")[0])


@pytest.mark.parametrize("statistic", ["sum", "mean"])
@pytest.mark.parametrize("option", [(), ALL_VOXELS], ids=["radial", "all"])
def test_weighted_streamlines_make_tck2connectomes_sums_and_means(
    human, tmp_path, statistic, option
):
    n = count_streamlines(human.tck)
    rng = np.random.default_rng(0)
    # They keep both in float32: these are the same in it.
    weights, values = rng.integers(1, 300, n) / 64, rng.integers(-500, 500, n) / 64
    np.savetxt(tmp_path / "weights.txt", weights, fmt="%.10g")
    np.savetxt(tmp_path / "values.txt", values, fmt="%.17g")
    matrix, _ = theirs(
        human,
        tmp_path,
        *("-symmetric", "-stat_edge", statistic, "-tck_weights_in", tmp_path / "weights.txt"),
        *("-scale_file", tmp_path / "values.txt", *option),
    )
    sums = EdgeSums(NODES, statistic)
    for (_, offsets, _), labels in batches(human, "all_voxels" if option else "radial_search"):
        part = slice(sums.total, sums.total + len(offsets) - 1)
        sums.add(labels, torch.from_numpy(values[part]), torch.from_numpy(weights[part]))
    np.testing.assert_allclose(sums.matrix().numpy(), matrix, rtol=1e-12)


def scaled_by(scaling: str, points, offsets, image, labels) -> torch.Tensor:
    """One number for each streamline; their lengths are summed in float32."""
    if scaling == "invnodevol":
        return inverse_node_volumes(labels, NODES, node_voxels(image, NODES))
    lengths_mm = streamline_lengths_mm(points, offsets, dtype=torch.float32)
    return lengths_mm if scaling == "length" else inverse_lengths_per_mm(lengths_mm.double())


@pytest.mark.parametrize("statistic", ["sum", "mean", "min", "max"])
@pytest.mark.parametrize("scaling", ["length", "invlength", "invnodevol"])
@pytest.mark.parametrize("option", [(), ALL_VOXELS], ids=["radial", "all"])
def test_scaled_streamlines_make_tck2connectomes_matrices(
    human, tmp_path, statistic, scaling, option
):
    matrix, _ = theirs(
        human, tmp_path, "-symmetric", f"-scale_{scaling}", "-stat_edge", statistic, *option
    )
    sums = EdgeSums(NODES, statistic)
    for (points, offsets, image), labels in batches(
        human, "all_voxels" if option else "radial_search"
    ):
        values = scaled_by(scaling, points, offsets, image, labels)
        sums.add(labels, values)
    np.testing.assert_allclose(sums.matrix().numpy(), matrix, rtol=1e-6)


@pytest.mark.parametrize("statistic", ["sum", "mean", "min", "max"])
@pytest.mark.parametrize("along", ["mean", "median", "min", "max"])
def test_values_from_a_file_make_tck2connectomes_matrices(human, tmp_path, statistic, along):
    image, values = tmp_path / "image.mif", tmp_path / "values.txt"
    run_mrtrix("mrconvert", human.fod, image, "-coord", 3, 0, "-axes", "0,1,2", "-quiet")
    run_mrtrix("tcksample", human.tck, image, values, "-stat_tck", along, "-quiet")
    matrix, _ = theirs(
        human, tmp_path, "-symmetric", "-scale_file", values, "-stat_edge", statistic
    )
    found = torch.from_numpy(np.loadtxt(values).ravel())
    sums = EdgeSums(NODES, statistic)
    for (_, offsets, _), labels in batches(human):
        sums.add(labels, found[sums.total : sums.total + len(offsets) - 1])
    np.testing.assert_allclose(sums.matrix().numpy(), matrix, rtol=1e-6)
