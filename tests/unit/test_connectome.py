"""Hard assignment of ends and edge measures."""

from __future__ import annotations

import pytest
import torch
from problems import oblique, scaling, voxel_centres_mm

from difftract_bids.core import assign_ends, connectome
from difftract_bids.errors import AtlasError, InputError

SHAPE = (8, 7, 6)


def some_parcellation() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(1, 40, SHAPE, generator=generator) * 100_003
    return labels * (torch.rand(SHAPE, generator=generator) < 0.08)


def some_ends(n: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    voxel = torch.rand(n * 2, 3, generator=generator, dtype=torch.float64) * 12 - 3
    affine = oblique()
    return (voxel @ affine[:3, :3].T + affine[:3, 3]).reshape(n, 2, 3)


@pytest.mark.parametrize("radius_mm", [1.0, 4.0, 9.0])
def test_the_nearest_labelled_centre_within_the_radius_wins(radius_mm):
    parcellation, ends = some_parcellation(), some_ends(500)
    centres = voxel_centres_mm(SHAPE, oblique())[parcellation != 0]
    distance, index = torch.cdist(ends.reshape(-1, 3), centres).min(1)
    expected = torch.where(distance < radius_mm, parcellation[parcellation != 0][index], 0)
    labels = assign_ends(ends, parcellation, oblique(), radius_mm)
    assert torch.equal(labels, expected.reshape(-1, 2))


def test_a_centre_at_exactly_the_radius_is_too_far():
    parcellation = torch.zeros(5, 5, 5, dtype=torch.int32)
    parcellation[4, 2, 2] = 7
    ends = torch.tensor([[[4.0, 4.0, 4.0], [4.001, 4.0, 4.0]]])
    assert assign_ends(ends, parcellation, scaling(2.0), 4.0).tolist() == [[0, 7]]


def test_no_streamlines_have_no_labels():
    assert assign_ends(torch.zeros(0, 2, 3), some_parcellation(), oblique()).shape == (0, 2)


def test_counts_are_symmetric_keep_the_diagonal_and_drop_the_unassigned():
    labels = torch.tensor([[5, 2], [2, 5], [9, 9], [0, 5], [2, 77]])
    matrix = connectome(labels, torch.tensor([9, 2, 5, 3]))
    assert matrix.tolist() == [[1, 0, 0, 0], [0, 0, 2, 0], [0, 2, 0, 0], [0, 0, 0, 0]]


def test_mean_of_a_value_is_over_the_edge_and_zero_where_nothing_is():
    labels = torch.tensor([[1, 2], [2, 1], [1, 1], [0, 1]])
    matrix = connectome(labels, torch.tensor([1, 2]), torch.tensor([10.0, 30.0, 7.0, 99.0]))
    assert matrix.tolist() == [[7, 20], [20, 0]]


def test_mean_passes_gradients_to_the_values():
    labels = torch.tensor([[1, 2], [2, 1], [0, 1]])
    values = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    connectome(labels, torch.tensor([1, 2]), values)[0, 1].backward()
    assert values.grad.tolist() == [0.5, 0.5, 0.0]


def test_an_empty_tractogram_has_a_connectome_of_zeros():
    assert connectome(torch.zeros(0, 2).long(), torch.tensor([4, 1])).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("nodes", [[1, 1], [0, 1], []])
def test_nodes_must_be_distinct_labels(nodes):
    with pytest.raises(AtlasError, match="labels"):
        connectome(torch.tensor([[1, 1]]), torch.tensor(nodes, dtype=torch.int64))


def test_what_does_not_fit_is_refused():
    ends, parcellation = some_ends(3), some_parcellation()
    with pytest.raises(InputError, match="shape"):
        assign_ends(ends[:, 0], parcellation, oblique())
    with pytest.raises(InputError, match="integers"):
        assign_ends(ends, parcellation.float(), oblique())
    ends[1, 0, 2] = torch.nan
    with pytest.raises(InputError, match="1 of 3"):
        assign_ends(ends, parcellation, oblique())
    with pytest.raises(InputError, match="values"):
        connectome(torch.tensor([[1, 1]]), torch.tensor([1]), torch.tensor([1.0, 2.0]))
