"""Sums over edges as streamlines come, what they are scaled by, and the sizes of nodes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from problems import oblique, scaling

from difftract_bids.core import connectome
from difftract_bids.core.connectome.edges import EdgeSums
from difftract_bids.core.connectome.nodes import (
    node_areas_mm2,
    node_centroids_mm,
    node_volumes_mm3,
    node_voxels,
)
from difftract_bids.core.connectome.scalings import (
    connection_density,
    inverse_lengths_per_mm,
    inverse_node_volumes,
    streamline_lengths_mm,
)
from difftract_bids.errors import AtlasError, ConfigError, InputError

NODES = torch.tensor([30, 10, 20])
FOUR = torch.tensor([[10, 20], [20, 10], [30, 30], [10, 99], [0, 10]])
VALUES = torch.tensor([2.0, 5.0, 7.0, 11.0, 13.0])
WEIGHTS = torch.tensor([3.0, 1.0, 0.5, 1.0, 1.0])


def sums_of(statistic, values=VALUES, weights=WEIGHTS):
    sums = EdgeSums(NODES, statistic)
    sums.add(FOUR, values, weights)
    return sums


def symmetric(diagonal: list[float], edge: float, rest: float) -> list[list[float]]:
    """Fill a matrix: its diagonal, the edge between the second and the third node, the rest."""
    matrix = np.full((3, 3), rest, dtype=float)
    np.fill_diagonal(matrix, diagonal)
    matrix[1, 2] = matrix[2, 1] = edge
    return matrix


@pytest.mark.parametrize(
    ("statistic", "loop", "edge", "rest"),
    [
        ("sum", 3.5, 11.0, 0.0),
        ("mean", 7.0, 2.75, 0.0),
        ("min", 7.0, 2.0, math.nan),
        ("max", 7.0, 5.0, math.nan),
    ],
)
def test_a_statistic_is_taken_over_the_streamlines_of_an_edge(statistic, loop, edge, rest):
    matrix = sums_of(statistic).matrix()
    assert matrix.dtype == torch.float64
    np.testing.assert_array_equal(matrix, symmetric([loop, rest, rest], edge, rest))


def test_counts_know_nothing_of_weights_and_assigned_streamlines_are_told():
    sums = sums_of("mean")
    np.testing.assert_array_equal(sums.count, symmetric([1, 0, 0], 2, 0))
    assert (sums.assigned, sums.total) == (3, 5)


def test_without_values_and_weights_streamlines_are_counted():
    matrix = sums_of("sum", None, None).matrix()
    np.testing.assert_array_equal(matrix, symmetric([1, 0, 0], 2, 0))
    np.testing.assert_array_equal(sums_of("sum", None).matrix(), symmetric([0.5, 0, 0], 4, 0))


@pytest.mark.parametrize(
    ("n_nodes", "statistic"),
    [
        *((40, statistic) for statistic in ("sum", "mean", "min", "max")),
        (2, "mean"),
        (5000, "mean"),
    ],
)
def test_parts_make_the_same_as_the_whole_however_many_nodes_there_are(n_nodes, statistic):
    rng = np.random.default_rng(n_nodes)
    nodes = torch.from_numpy(rng.permutation(3 * n_nodes)[:n_nodes] + 1)
    labels = torch.from_numpy(rng.integers(0, 3 * n_nodes + 2, size=(20_000, 2)))
    values = torch.from_numpy(rng.uniform(1, 9, 20_000))
    weights = torch.from_numpy(rng.uniform(0, 2, 20_000))
    sums = EdgeSums(nodes, statistic)
    for part in np.array_split(np.arange(20_000), 7):
        sums.add(labels[part], values[part], weights[part])
    place = {label: i for i, label in enumerate(nodes.tolist())}
    edges: dict[tuple[int, int], list[int]] = {}
    for i, (a, b) in enumerate(labels.tolist()):
        if a in place and b in place:
            low, high = sorted((place[a], place[b]))
            edges.setdefault((low, high), []).append(i)
    v, w = values.numpy(), weights.numpy()
    expected = {
        "sum": lambda which: (v[which] * w[which]).sum(),
        "mean": lambda which: (v[which] * w[which]).sum() / w[which].sum(),
        "min": lambda which: v[which].min(),
        "max": lambda which: v[which].max(),
    }[statistic]
    found, count = sums.matrix().numpy(), sums.count.numpy()
    assert found.shape == (n_nodes, n_nodes)
    for (low, high), which in edges.items():
        assert found[low, high] == pytest.approx(expected(which), rel=1e-12)
        assert found[high, low] == found[low, high]
        assert count[low, high] == count[high, low] == len(which)
    loops = sum(low == high for low, high in edges)
    assert np.count_nonzero(count) == 2 * len(edges) - loops
    assert sums.assigned == sum(map(len, edges.values()))
    assert sums.total == 20_000


def test_it_counts_and_averages_as_connectome_does():
    rng = np.random.default_rng(3)
    labels = torch.from_numpy(rng.integers(0, 50, size=(3000, 2)))
    nodes, values = torch.arange(1, 45), torch.from_numpy(rng.uniform(1, 9, 3000))
    for statistic, given in (("sum", None), ("mean", values)):
        sums = EdgeSums(nodes, statistic)
        sums.add(labels, given)
        torch.testing.assert_close(sums.matrix(), connectome(labels, nodes, given))


def test_a_streamline_that_visits_several_nodes_counts_for_every_pair_and_each_itself():
    flat = torch.tensor([10, 20, 30, 10, 10, 99, 10, 30])
    offsets = torch.tensor([0, 3, 4, 4, 6, 8])
    sums = EdgeSums(NODES)
    sums.add((flat, offsets), torch.tensor([2.0, 50.0, 50.0, 50.0, 3.0]))
    # Rows are 30, 10, 20; one node, no node, and one besides a stranger connect nothing.
    assert sums.matrix().tolist() == [[5, 5, 2], [5, 5, 2], [2, 2, 2]]
    assert sums.count.tolist() == [[2, 2, 1], [2, 2, 1], [1, 1, 1]]
    assert (sums.assigned, sums.total) == (2, 5)


@pytest.mark.parametrize("statistic", ["sum", "mean", "min", "max"])
def test_a_value_that_is_no_number_spoils_its_edge_and_no_other(statistic):
    sums = EdgeSums(NODES, statistic)
    labels = torch.tensor([[10, 20], [10, 20], [10, 20], [10, 30]])
    sums.add(labels, torch.tensor([1.0, math.nan, 2.0, 4.0]))
    matrix = sums.matrix()
    assert math.isnan(matrix[1, 2])
    assert matrix[0, 1] == 4


def test_negative_values_have_a_smallest_and_a_largest():
    labels = torch.tensor([[10, 20], [10, 20]])
    for statistic, expected in (("min", -3.0), ("max", -2.0)):
        sums = EdgeSums(NODES, statistic)
        sums.add(labels, torch.tensor([-2.0, -3.0]))
        assert sums.matrix()[1, 2] == expected


def test_nothing_added_is_zero_or_nothing():
    for labels in (torch.zeros(0, 2).long(), (torch.zeros(0).long(), torch.zeros(1).long())):
        sums = EdgeSums(NODES)
        sums.add(labels, torch.zeros(0), torch.zeros(0))
        assert not sums.matrix().any()
        assert sums.total == sums.assigned == 0
    assert EdgeSums(NODES, "min").matrix().isnan().all()
    assert not EdgeSums(NODES, "mean").matrix().any()


def test_sums_that_make_no_sense_are_refused():
    with pytest.raises(AtlasError, match="labels"):
        EdgeSums(torch.tensor([1, 1]))
    with pytest.raises(ConfigError, match="median"):
        EdgeSums(NODES, "median")
    sums = EdgeSums(NODES)
    with pytest.raises(InputError, match=r"\(2,\) values for 5"):
        sums.add(FOUR, torch.ones(2))
    with pytest.raises(InputError, match=r"\(2,\) weights for 5"):
        sums.add(FOUR, None, torch.ones(2))
    for labels in (FOUR.ravel(), (FOUR.ravel(), torch.tensor([0, 3])), (FOUR, FOUR)):
        with pytest.raises(InputError, match="no labels of streamlines"):
            sums.add(labels)
    assert sums.total == 0


def test_inverse_lengths_are_zero_where_there_is_no_length():
    assert inverse_lengths_per_mm(torch.tensor([4.0, 0.0])).tolist() == [0.25, 0.0]


def test_inverse_volumes_are_over_the_mean_of_the_nodes():
    volumes = torch.tensor([6.0, 2.0, 0.0])
    pairs = torch.tensor([[30, 10], [10, 10], [20, 20], [20, 10], [0, 0]])
    found = inverse_node_volumes(pairs, NODES, volumes)
    assert found.tolist() == [2 / 8, 2 / 4, 0, 2 / 2, 0]
    lists = torch.tensor([10, 20, 30, 30]), torch.tensor([0, 3, 3, 4])
    assert inverse_node_volumes(lists, NODES, volumes).tolist() == [3 / 8, 0, 1 / 6]
    with pytest.raises(InputError, match="volumes"):
        inverse_node_volumes(pairs, NODES, volumes[:2])


def test_connection_density_is_hagmanns():
    sums = torch.tensor([[0.0, 3.0], [3.0, 0.5]], dtype=torch.float64)
    found = connection_density(sums, torch.tensor([10.0, 20.0], dtype=torch.float64))
    assert found.tolist() == [[0, 2 / 30 * 3], [2 / 30 * 3, 2 / 40 * 0.5]]
    assert not connection_density(sums, torch.zeros(2)).any()


def test_lengths_are_sums_of_segments_in_the_width_that_is_asked_for():
    steps = torch.full((2000, 3), 0.1)
    points = torch.cat([torch.zeros(1, 3), steps]).cumsum(0, dtype=torch.float64).float()
    points = torch.cat([points, torch.tensor([[3.0, 4.0, 0.0]]), torch.zeros(1, 3)])
    offsets = torch.tensor([0, 2001, 2001, 2003])
    exact = streamline_lengths_mm(points, offsets)
    assert exact.tolist() == pytest.approx([200 * math.sqrt(3), 0.0, 5.0], rel=1e-6)
    single = streamline_lengths_mm(points, offsets, dtype=torch.float32)
    assert single.dtype == torch.float32
    one_by_one = np.float32(0)
    for step in np.diff(points[:2001].numpy(), axis=0):
        one_by_one += np.sqrt(step[0] ** 2 + (step[1] ** 2 + step[2] ** 2))
    assert single[0] == float(one_by_one)
    assert single[0] != exact[0]


def test_a_box_has_the_volume_surface_and_centre_that_boxes_have():
    image = torch.zeros(8, 7, 6, dtype=torch.int32)
    image[1:4, 2:4, 0:5] = 20  # 3 by 2 by 5 voxels, at the edge of the image
    image[4:6, 2:4, 0:5] = 30  # beside it
    affine = oblique((1.5, 2.0, 2.5))
    nodes = torch.tensor([30, 77, 20])
    assert node_voxels(image, nodes).tolist() == [20, 0, 30]
    volumes = node_volumes_mm3(image, affine, nodes)
    assert volumes.tolist() == pytest.approx([20 * 7.5, 0, 30 * 7.5])
    areas = node_areas_mm2(image, affine, nodes)
    three = 2 * (4.5 * 4 + 4 * 12.5 + 4.5 * 12.5)
    two = 2 * (3 * 4 + 4 * 12.5 + 3 * 12.5)
    assert areas.tolist() == pytest.approx([two, 0, three])
    centres = node_centroids_mm(image, affine, nodes)
    expected = affine[:3, :3] @ torch.tensor([2.0, 2.5, 2.0]).double() + affine[:3, 3]
    torch.testing.assert_close(centres[2], expected)
    assert centres[1].isnan().all()


def test_sizes_of_nodes_need_labels_and_an_affine():
    image = torch.ones(2, 2, 2, dtype=torch.int64)
    with pytest.raises(AtlasError, match="labels"):
        node_voxels(image, torch.tensor([0]))
    with pytest.raises(InputError, match="integers"):
        node_volumes_mm3(image.float(), scaling(1.0), torch.tensor([1]))
    with pytest.raises(InputError, match="invertible"):
        node_areas_mm2(image, torch.zeros(4, 4), torch.tensor([1]))
