"""How alike two tractograms are, on bundles drawn by hand."""

from __future__ import annotations

import math

import pytest
import torch
from problems import fodf_of

from difftract_bids.errors import InputError
from difftract_bids.learn.evaluation import (
    Nodes,
    Tractogram,
    angular_error_deg,
    compare,
    r_connectome,
    track_whole,
)

SHAPE, AFFINE = (20, 8, 6), torch.eye(4, dtype=torch.float64)


def nodes() -> Nodes:
    """Two slabs at either end, each of two nodes: left 1 and 2, right 3 and 4."""
    labels = torch.zeros(SHAPE, dtype=torch.int64)
    labels[:2, :4], labels[:2, 4:], labels[18:, :4], labels[18:, 4:] = 1, 2, 3, 4
    return Nodes(labels, AFFINE, torch.tensor([1, 2, 3, 4]))


def straight(rows: list[float], n: int = 12, step_mm: float = 0.5) -> Tractogram:
    """Lay ``n`` streamlines along x at each of some y."""
    x = torch.arange(1.0, 18.01, step_mm)
    lines = [
        torch.stack([x, torch.full_like(x, row), torch.full_like(x, 2.0)], 1)
        for row in rows
        for _ in range(n)
    ]
    offsets = torch.arange(len(lines) + 1) * len(x)
    return Tractogram.of(torch.cat(lines), offsets, nodes())


def test_a_tractogram_agrees_with_itself():
    found = straight([1.0, 6.0, 6.0])
    agreement = compare(found, found)
    assert agreement.r_connectome == pytest.approx(1.0)
    assert agreement.bundle_overlap == 1.0
    assert agreement.n_bundles == 2
    expected = torch.zeros(4, 4, dtype=torch.float64)
    expected[0, 2] = expected[2, 0] = 12
    expected[1, 3] = expected[3, 1] = 24
    assert torch.equal(found.connectome, expected)


def test_overlap_is_the_share_of_voxels_that_two_bundles_have_in_common():
    # Of the first bundle one of two rows of voxels; the second is not found at all.
    agreement = compare(straight([1.0]), straight([1.0, 2.0, 6.0]))
    assert agreement.n_bundles == 2
    assert agreement.bundle_overlap == pytest.approx((2 * 1 / (1 + 2) + 0) / 2)


def test_edges_of_a_few_streamlines_are_no_bundles():
    agreement = compare(straight([1.0]), straight([1.0], n=9))
    assert agreement.n_bundles == 0
    assert math.isnan(agreement.bundle_overlap)


def test_correlation_is_of_logarithms_over_the_edges_that_either_has():
    found = torch.tensor([[5.0, 1, 0, 7], [1, 0, 3, 0], [0, 3, 0, 0], [7, 0, 0, 0]])
    wanted = torch.tensor([[9.0, 2, 0, 3], [2, 0, 0, 0], [0, 0, 0, 0], [3, 0, 0, 0]])
    logs = torch.tensor([[1.0, 7, 3], [2.0, 3, 0]]).log1p()
    assert r_connectome(found, wanted) == pytest.approx(float(torch.corrcoef(logs)[0, 1]))
    assert math.isnan(r_connectome(torch.zeros(4, 4), wanted))


def test_connectomes_of_other_nodes_are_refused():
    few = Nodes(nodes().parcellation.clamp(max=3), AFFINE, torch.tensor([1, 2, 3]))
    one = straight([1.0])
    other = Tractogram.of(one.points_mm, one.offsets, few)
    with pytest.raises(InputError, match="4 nodes, the other 3"):
        compare(one, other)


@pytest.mark.parametrize("angle_deg", [0.0, 7.0, 20.0])
def test_the_angle_is_that_between_peaks_and_segments(angle_deg):
    turned = math.radians(angle_deg)
    along = torch.tensor([math.cos(turned), math.sin(turned), 0.0], dtype=torch.float64)
    fodf = fodf_of(along.expand_as, SHAPE, AFFINE, 8)
    assert angular_error_deg(fodf, straight([2.0])) == pytest.approx(angle_deg, abs=0.02)


def test_tracking_a_straight_bundle_finds_its_edges():
    along = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    fodf = fodf_of(along.expand_as, SHAPE, AFFINE, 8).float()
    mask = torch.ones(SHAPE, dtype=torch.bool)
    found = track_whole(fodf, mask, nodes(), n_seeds=300)
    straight_on = found.connectome[0, 2] + found.connectome[1, 3]
    assert straight_on > 40
    assert found.connectome.sum() <= 2.2 * straight_on  # a tenth starts on a side lobe
    assert 0 < compare(found, straight([1.0, 6.0])).bundle_overlap < 1
