"""Streamlines are cut at the faces of voxels, and each part belongs to a fixel."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from problems import oblique, scaling, sharp_sh

from difftract_bids.core.sift2 import Visits, map_streamlines, segment_fodf
from difftract_bids.errors import InputError

X, Y, Z = torch.eye(3, dtype=torch.float64)
SHAPE = (9, 8, 7)
AFFINES = {"oblique": oblique(), "isotropic": scaling(2.0, (-6.0, 5.0, 3.0))}


def one_lobe_each(direction=X):
    """Fixel numbers are those of the voxels, the last axis fastest."""
    return segment_fodf(sharp_sh(direction).float().expand(*SHAPE, 45))


def crossing():
    """Voxel number v has the fixels 2v, along x, and 2v + 1, along y."""
    return segment_fodf((sharp_sh(X) + 0.8 * sharp_sh(Y)).float().expand(*SHAPE, 45))


def to_mm(voxels, affine):
    return torch.as_tensor(voxels, dtype=torch.float64) @ affine[:3, :3].T + affine[:3, 3]


def mapped(streamlines, fixels, affine):
    """Visits of streamlines given in voxels."""
    offsets = torch.tensor([0, *(len(line) for line in streamlines)]).cumsum(0)
    points = torch.cat([to_mm(line, affine) for line in streamlines])
    return map_streamlines(points, offsets, fixels, affine)


def as_dict(visits, streamline=0):
    part = slice(int(visits.offsets[streamline]), int(visits.offsets[streamline + 1]))
    lengths = visits.length_mm[part].double().tolist()
    return dict(zip(visits.fixel[part].tolist(), lengths, strict=True))


def wiggle(n, seed):
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randn(n, 3, generator=generator, dtype=torch.float64).cumsum(0)
    return 4 * (0.5 + 0.5 * torch.sin(steps / 3)) + torch.tensor([1.0, 1.0, 1.0])


def number_of(i, j, k):
    return (i * SHAPE[1] + j) * SHAPE[2] + k


@pytest.mark.parametrize("name", AFFINES)
def test_a_line_along_an_axis_has_a_voxel_of_length_in_each(name):
    affine = AFFINES[name]
    found = as_dict(mapped([[[1, 2, 3], [5.25, 2, 3]]], one_lobe_each(), affine))
    width = float(affine[:3, 0].norm())
    expected = dict.fromkeys((number_of(i, 2, 3) for i in range(2, 5)), width)
    expected |= {number_of(1, 2, 3): width / 2, number_of(5, 2, 3): 0.75 * width}
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", AFFINES)
def test_lengths_in_voxels_are_those_of_very_many_short_steps(name):
    affine = AFFINES[name]
    line = wiggle(12, seed=5)
    found = as_dict(mapped([line], one_lobe_each(), affine))
    share = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    expected: dict[int, float] = {}
    for start, stop in itertools.pairwise(line):
        mm = float((affine[:3, :3] @ (stop - start)).norm()) / len(share)
        places = (start + share[:, None] * (stop - start)).round().long().tolist()
        for place in places:
            number = number_of(*place)
            expected[number] = expected.get(number, 0.0) + mm
    assert found == pytest.approx(expected, abs=2e-3)


def test_segments_may_be_long_or_short():
    affine, fixels = AFFINES["oblique"], crossing()
    line = wiggle(8, seed=2)
    share = torch.linspace(0, 1, 41, dtype=torch.float64)[:-1, None]
    pieces = [a + share * (b - a) for a, b in itertools.pairwise(line)]
    cut = torch.cat([*pieces, line[-1:]])
    visits = mapped([line, cut], fixels, affine)
    assert as_dict(visits, 0) == pytest.approx(as_dict(visits, 1), rel=1e-5, abs=1e-5)
    assert len(as_dict(visits, 0)) > 5


def test_the_way_through_a_voxel_chooses_the_lobe():
    affine = AFFINES["isotropic"]
    visits = mapped([[[1, 2, 3], [4, 2.3, 3]], [[2, 1, 3], [2.3, 4, 3]]], crossing(), affine)
    assert {fixel % 2 for fixel in as_dict(visits, 0)} == {0}
    assert {fixel % 2 for fixel in as_dict(visits, 1)} == {1}


def test_lobes_are_in_scanner_axes():
    affine = AFFINES["oblique"]
    visits = mapped([[[1, 2, 3], [6, 2, 3]], [[2, 1, 3], [2, 6, 3]]], crossing(), affine)
    # The grid is turned by less than 45 degrees.
    assert {fixel % 2 for fixel in as_dict(visits, 0)} == {0}
    assert {fixel % 2 for fixel in as_dict(visits, 1)} == {1}


def test_a_turn_within_a_voxel_goes_by_where_it_enters_and_leaves():
    visits = mapped([[[2.6, 2, 3], [3.2, 2.45, 3], [3.4, 2, 3]]], crossing(), AFFINES["isotropic"])
    assert list(as_dict(visits)) == [2 * number_of(3, 2, 3)]


def test_a_streamline_that_comes_back_is_in_the_list_once():
    there_and_back = [[1, 2, 3], [4, 2, 3], [4, 2.2, 3], [1, 2.2, 3]]
    visits = mapped([there_and_back], one_lobe_each(), AFFINES["isotropic"])
    assert len(visits.fixel) == 4
    assert as_dict(visits)[number_of(2, 2, 3)] == pytest.approx(4.0, rel=1e-6)


def test_what_is_outside_the_image_is_left_out():
    inside_later = [[-3, 2, 3], [0, 2, 3]]
    never = [[-30, -20, 3], [-30, 40, 3]]
    visits = mapped([inside_later, never], one_lobe_each(), AFFINES["isotropic"])
    assert visits.n_streamlines == 2
    assert as_dict(visits, 0) == pytest.approx({number_of(0, 2, 3): 1.0}, rel=1e-6)
    assert as_dict(visits, 1) == {}


def test_what_is_far_outside_costs_nothing():
    through = [[-1e12, 2, 3], [1e12, 2, 3]]
    beside = [[-1e30, 1e20, 3], [1e25, 1e30, -1e15]]
    visits = mapped([through, beside], one_lobe_each(), AFFINES["isotropic"])
    numbers = [number_of(i, 2, 3) for i in range(SHAPE[0])]
    assert list(as_dict(visits, 0)) == numbers
    assert as_dict(visits, 1) == {}


def test_points_and_streamlines_of_no_length_visit_nothing():
    visits = mapped([[[1, 1, 1]], [[2, 2, 2], [2, 2, 2]]], one_lobe_each(), AFFINES["oblique"])
    assert visits.offsets.tolist() == [0, 0, 0]


def test_no_streamlines_give_no_visits():
    empty = torch.zeros(0, 3), torch.zeros(1, dtype=torch.int64)
    visits = map_streamlines(*empty, one_lobe_each(), AFFINES["oblique"])
    assert visits.n_streamlines == 0
    assert len(visits.fixel) == 0


def test_batches_joined_are_the_whole():
    affine, fixels = AFFINES["oblique"], crossing()
    lines = [wiggle(n, seed=n) for n in range(2, 30)]
    whole = mapped(lines, fixels, affine)
    joined = Visits.joined([mapped(lines[:9], fixels, affine), mapped(lines[9:], fixels, affine)])
    for one, other in zip(whole, joined, strict=True):
        assert torch.equal(one, other)
    assert Visits.joined([]).n_streamlines == 0


def test_vertices_that_are_not_finite_are_refused():
    line = wiggle(4, seed=0)
    line[2, 1] = np.nan
    with pytest.raises(InputError, match="1 of 4 vertices are not finite"):
        mapped([line], one_lobe_each(), AFFINES["oblique"])
