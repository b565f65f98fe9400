"""Counter-based seeds."""

from __future__ import annotations

from itertools import permutations, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import oblique

from difftract_bids.core import random_seeds
from difftract_bids.core.interpolation import Grid
from difftract_bids.core.philox import philox, uniform_53_bits
from difftract_bids.core.seeding import (
    GivenSeeds,
    RandomSeeds,
    SeedGrid,
    SeedsPerVoxel,
    SphereSeeds,
    WeightedSeeds,
)
from difftract_bids.errors import SeedError


def some_mask() -> torch.Tensor:
    return torch.rand(6, 5, 4, generator=torch.Generator().manual_seed(0)) > 0.6


def some_weights() -> torch.Tensor:
    return torch.rand(6, 5, 4, generator=torch.Generator().manual_seed(1)) * some_mask()


def some_rows() -> torch.Tensor:
    return torch.randn(300, 3, generator=torch.Generator().manual_seed(2)).double()


def all_sources() -> dict:
    sources = [
        RandomSeeds(some_mask(), oblique(), 3),
        WeightedSeeds(some_weights(), oblique(), 3),
        SeedsPerVoxel(some_mask(), oblique(), 9, 3),
        SeedGrid(some_mask(), oblique(), 2, 3),
        SphereSeeds((3.0, -4.0, 5.0), 2.5, 3),
        GivenSeeds(some_rows()),
        GivenSeeds(some_rows(), some_rows().flip(0)),
    ]
    names = [type(source).__name__ for source in sources]
    return dict(zip([*names[:-1], "GivenSeedsAndDirections"], sources, strict=True))


# Drawn by version 0.1.0.
FROZEN_SEEDS = [
    [1.0940430123591796, 2.4528966353973374, -0.3910355636617169],
    [-0.41892861935775727, 0.4582324054790661, 1.0709008764242753],
]
FROZEN_DIRECTIONS = [
    [0.9422030910219662, 0.0718474957926604, -0.3272480292025852],
    [0.3492660951792203, 0.6608812899356962, 0.6642658469100983],
]
SOURCES = all_sources()
each_source = pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())


def to_voxel(seeds_mm: torch.Tensor) -> torch.Tensor:
    shape = tuple(some_mask().shape)
    return Grid.from_affine(shape, oblique(), seeds_mm.device).to_voxel(seeds_mm.T).T


def count_per_voxel(seeds_mm: torch.Tensor) -> torch.Tensor:
    nearest = torch.floor(to_voxel(seeds_mm) + 0.5).long()
    counts = torch.zeros(some_mask().shape, dtype=torch.long)
    ones = torch.ones(len(nearest), dtype=torch.long)
    return counts.index_put_(tuple(nearest.T), ones, accumulate=True)


def deviations(counts: torch.Tensor, expected: torch.Tensor) -> float:
    """Chi-square, in standard deviations from its mean."""
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    degrees = len(counts) - 1
    return abs(chi_square - degrees) / (2 * degrees) ** 0.5


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ("00000000" * 4, "00000000" * 2, "6627e8d5e169c58dbc57ac4c9b00dbd8"),
        ("ffffffff" * 4, "ffffffff" * 2, "408f276d41c83b0ea20bc7c66d5451fd"),
        (
            "243f6a8885a308d313198a2e03707344",
            "a4093822299f31d0",
            "d16cfe0994fdcceb5001e42024126ea1",
        ),
    ],
)
def test_philox_gives_the_words_published_with_it(counter, key, expected):
    def words(text):
        return [int(text[i : i + 8], 16) for i in range(0, len(text), 8)]

    result = philox([torch.tensor([word]) for word in words(counter)], tuple(words(key)))
    assert [int(word) for word in result] == words(expected)


def test_a_seed_depends_on_its_number_only():
    mask = some_mask()
    whole = random_seeds(mask, oblique(), 1000, random_seed=3)
    for size in (1, 7, 333):
        parts = [
            random_seeds(mask, oblique(), min(size, 1000 - i), random_seed=3, first=i)
            for i in range(0, 1000, size)
        ]
        for k in range(2):
            assert torch.equal(torch.cat([part[k] for part in parts]), whole[k])


def test_numbers_beyond_32_bits_are_numbers_of_their_own():
    far = random_seeds(some_mask(), oblique(), 5, random_seed=3, first=2**32)
    near = random_seeds(some_mask(), oblique(), 5, random_seed=3)
    assert not (far[0] == near[0]).any()


def test_another_random_seed_gives_other_seeds():
    one, two = (random_seeds(some_mask(), oblique(), 50, random_seed=s)[0] for s in (0, 1))
    assert not (one == two).any()


def test_seeds_fill_the_voxels_of_the_mask_evenly_and_no_others():
    mask = some_mask()
    n = 200_000
    seeds_mm, _ = random_seeds(mask, oblique(), n, random_seed=0)
    voxel = Grid.from_affine(mask.shape, oblique(), seeds_mm.device).to_voxel(seeds_mm.T)
    nearest = torch.floor(voxel + 0.5).long()
    counts = torch.zeros(mask.shape).index_put_(tuple(nearest), torch.ones(n), accumulate=True)
    assert (counts[~mask] == 0).all()
    expected = n / int(mask.sum())
    chi_square = float(((counts[mask] - expected) ** 2 / expected).sum())
    degrees = int(mask.sum()) - 1
    assert abs(chi_square - degrees) < 5 * (2 * degrees) ** 0.5
    within = voxel - nearest
    assert (within.mean(1).abs() < 0.005).all()
    torch.testing.assert_close(within.var(1), torch.full((3,), 1 / 12).double(), rtol=0.02, atol=0)


def test_directions_are_uniform_unit_vectors():
    _, directions = random_seeds(some_mask(), oblique(), 200_000, random_seed=0)
    torch.testing.assert_close(directions.norm(dim=1), torch.ones(200_000).double())
    assert (directions.mean(0).abs() < 0.006).all()
    second_moment = directions.T @ directions / 200_000
    torch.testing.assert_close(second_moment, torch.eye(3).double() / 3, atol=0.005, rtol=0)
    # By Archimedes each coordinate is uniform on (-1, 1).
    quantiles = torch.quantile(directions, torch.tensor([0.1, 0.5, 0.9]).double(), dim=0)
    expected = torch.tensor([-0.8, 0.0, 0.8]).double()[:, None].expand(3, 3)
    torch.testing.assert_close(quantiles, expected, atol=0.01, rtol=0)


def test_dtype_is_as_asked():
    seeds_mm, directions = random_seeds(
        some_mask(), oblique(), 4, random_seed=0, dtype=torch.float32
    )
    assert seeds_mm.dtype == directions.dtype == torch.float32


@pytest.mark.parametrize("mask", [torch.zeros(3, 3, 3).bool(), torch.ones(3, 3, 3)])
def test_a_mask_without_voxels_is_refused(mask):
    with pytest.raises(SeedError, match="no voxel"):
        random_seeds(mask, oblique(), 4, random_seed=0)


def test_results_are_those_of_the_first_version_to_the_last_bit():
    mask = torch.zeros(3, 3, 3, dtype=torch.bool)
    mask[1, 2, 0] = mask[0, 0, 1] = True
    seeds_mm, directions = random_seeds(mask, torch.eye(4), 2, random_seed=5, first=7)
    assert seeds_mm.tolist() == FROZEN_SEEDS
    assert directions.tolist() == FROZEN_DIRECTIONS


@each_source
@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_a_seed_is_the_same_whatever_it_is_drawn_with(source, data):
    n = source.total or 500
    first = data.draw(st.integers(0, n))
    last = data.draw(st.integers(first, n))
    whole, part = source.draw(0, n), source.draw(first, last - first)
    for drawn, all_drawn in zip(part, whole, strict=True):
        assert torch.equal(drawn, all_drawn[first:last])


@each_source
def test_sources_give_float64_positions_and_unit_directions(source):
    seeds_mm, directions = source.draw(3, 200)
    assert seeds_mm.shape == directions.shape == (200, 3)
    assert seeds_mm.dtype == directions.dtype == torch.float64
    torch.testing.assert_close(directions.norm(dim=1), torch.ones(200).double())
    assert len(directions.unique(dim=0)) == 200


@each_source
def test_there_are_no_seeds_before_the_first_or_after_the_last(source):
    with pytest.raises(SeedError, match=r"numbered from 0|there are"):
        source.draw(-1, 3)
    if source.total is not None:
        source.draw(source.total - 1, 1)
        with pytest.raises(SeedError, match=f"there are {source.total} seeds"):
            source.draw(source.total - 1, 2)


@each_source
def test_seeds_by_their_numbers_are_those_drawn_in_any_order(source):
    n = source.total or 300
    number = torch.randperm(n, generator=torch.Generator().manual_seed(6))[: n // 2]
    number = torch.cat([number, number[:3]])
    for found, drawn in zip(source.at(number), source.draw(0, n), strict=True):
        assert torch.equal(found, drawn[number])
    assert all(part.shape == (0, 3) for part in source.at(number[:0]))
    with pytest.raises(SeedError, match="2 of 4 numbers are of no seed"):
        source.at(torch.tensor([0, -1, 5, -3]))
    if source.total is not None:
        with pytest.raises(SeedError, match="1 of 2 numbers") as caught:
            source.at(torch.tensor([0, source.total]))
        assert f"below {source.total}" in caught.value.remedy


@pytest.mark.parametrize("kind", [RandomSeeds, WeightedSeeds, SphereSeeds])
def test_random_sources_do_not_run_dry_and_depend_on_the_random_seed(kind):
    where = {
        RandomSeeds: (some_mask(), oblique()),
        WeightedSeeds: (some_weights(), oblique()),
        SphereSeeds: ((0.0, 0.0, 0.0), 1.0),
    }[kind]
    one, two = (kind(*where, random_seed).draw(2**33, 50)[0] for random_seed in (0, 2**64 - 1))
    assert kind(*where, 0).total is None
    assert not (one == two).any()


@pytest.mark.parametrize("length", [1e-200, 1.0, 1e200])
def test_one_direction_may_be_given_for_all_seeds(length):
    source = SeedGrid(some_mask(), oblique(), 1, 0, (3 * length, 0.0, -4 * length))
    _, directions = source.draw(0, 5)
    expected = torch.tensor([0.6, 0.0, -0.8]).double().expand(5, 3)
    torch.testing.assert_close(directions, expected)


def test_given_seeds_come_back_with_their_directions():
    source = GivenSeeds(some_rows().float(), 7 * some_rows().flip(0))
    seeds_mm, directions = source.draw(0, source.total)
    assert torch.equal(seeds_mm, some_rows().float().double())
    expected = some_rows().flip(0) / some_rows().flip(0).norm(dim=1, keepdim=True)
    torch.testing.assert_close(directions, expected)


def test_each_voxel_gets_its_number_of_random_seeds():
    source = SeedsPerVoxel(some_mask(), oblique(), 500, 0)
    seeds_mm, _ = source.draw(0, source.total)
    assert torch.equal(count_per_voxel(seeds_mm), 500 * some_mask().long())
    voxel = to_voxel(seeds_mm)
    within = voxel - torch.floor(voxel + 0.5)
    torch.testing.assert_close(within.mean(0), torch.zeros(3).double(), atol=0.01, rtol=0)
    torch.testing.assert_close(within.var(0), torch.full((3,), 1 / 12).double(), rtol=0.03, atol=0)


def test_a_grid_has_its_seeds_at_the_centres_of_equal_parts():
    mask = torch.zeros(2, 2, 2, dtype=torch.bool)
    mask[1, 0, 1] = mask[0, 1, 1] = True
    affine = torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0]))
    seeds_mm, _ = SeedGrid(mask, affine, 2, 0).draw(0, 16)
    parts = torch.tensor(list(product((-0.25, 0.25), repeat=3)))
    voxels = torch.tensor([[0.0, 1, 1], [1, 0, 1]])
    expected = (voxels[:, None] + parts).reshape(-1, 3) * torch.tensor([2.0, 3.0, 4.0])
    torch.testing.assert_close(seeds_mm, expected.double())


def test_a_grid_of_one_is_the_voxel_centres():
    source = SeedGrid(some_mask(), oblique(), 1, 0)
    voxel = to_voxel(source.draw(0, source.total)[0])
    torch.testing.assert_close(voxel, voxel.round(), atol=1e-12, rtol=0)
    assert torch.equal(count_per_voxel(source.draw(0, source.total)[0]), some_mask().long())


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_seeds_in_each_voxel_do_not_depend_on_how_the_image_is_stored(order):
    mask, affine = some_mask().permute(order), oblique()
    affine[:, :3] = affine[:, list(order)]
    for axis in (0, 2):
        mask = mask.flip(axis)
        affine[:, 3] += affine[:, axis] * (mask.shape[axis] - 1)
        affine[:, axis] *= -1
    for kind in (SeedGrid, SeedsPerVoxel):
        ours = kind(some_mask(), oblique(), 2, 0).draw(0, 80)[0]
        theirs = kind(mask, affine, 2, 0).draw(0, 80)[0]
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e308])
def test_voxels_are_drawn_by_their_weight(scale):
    weights = some_weights().double() * scale
    n = 100_000
    counts = count_per_voxel(WeightedSeeds(weights, oblique(), 0).draw(0, n)[0])
    heavy = weights > 0
    assert (counts[~heavy] == 0).all()
    expected = (n * (weights[heavy] / scale) / (weights / scale).sum()).double()
    assert deviations(counts[heavy].double(), expected) < 4


def test_weights_of_zero_and_one_are_a_mask():
    n = 100_000
    seeds_mm, _ = WeightedSeeds(some_mask().float(), oblique(), 0).draw(0, n)
    counts = count_per_voxel(seeds_mm)
    assert (counts[~some_mask()] == 0).all()
    inside = counts[some_mask()].double()
    assert deviations(inside, torch.full_like(inside, n / len(inside))) < 4


def test_the_extreme_random_numbers_choose_the_first_and_the_last_voxel():
    words = torch.tensor([0, 2**32 - 1])
    low, high = uniform_53_bits(words, words).tolist()
    assert low == 0
    assert high == 1 - 2.0**-53
    for total in (0.1, 1.0, 1 + 2.0**-52, 1.999, 3.0, 12345.678):
        assert high * total < total


def test_seeds_in_a_sphere_are_uniform_in_its_volume():
    centre, radius_mm = torch.tensor([3.0, -4.0, 5.0]).double(), 2.5
    seeds_mm, _ = SphereSeeds((3.0, -4.0, 5.0), radius_mm, 0).draw(0, 100_000)
    offset = (seeds_mm - centre) / radius_mm
    distance = offset.norm(dim=1)
    assert (distance < 1).all()
    # The share of the volume within a distance is its cube.
    shares = torch.bincount((distance**3 * 20).long(), minlength=20).double()
    assert deviations(shares, torch.full((20,), 5000.0)) < 4
    assert (offset.mean(0).abs() < 0.008).all()
    torch.testing.assert_close(
        offset.T @ offset / 100_000, torch.eye(3).double() / 5, atol=3e-3, rtol=0
    )


@each_source
def test_a_direction_says_nothing_about_its_position(source):
    n = source.total or 20_000
    seeds_mm, directions = source.draw(0, n)
    scaled = (seeds_mm - seeds_mm.mean(0)) / seeds_mm.std(0)
    correlation = scaled.T @ directions / n * 3**0.5
    assert (correlation.abs() < 4 * n**-0.5).all()


def broken(rows: torch.Tensor, value: float) -> torch.Tensor:
    rows = rows.clone()
    rows[[3, 5]] = value
    return rows


BAD = {
    "empty mask": (lambda: RandomSeeds(torch.zeros(3, 3, 3).bool(), oblique(), 0), "no voxel"),
    "float mask": (lambda: SeedGrid(torch.ones(3, 3, 3), oblique(), 1, 0), "no voxel"),
    "flat mask": (lambda: SeedsPerVoxel(torch.ones(3, 3).bool(), oblique(), 1, 0), "no voxel"),
    "no affine": (lambda: RandomSeeds(some_mask(), torch.zeros(4, 4), 0), "invertible"),
    "nan affine": (lambda: WeightedSeeds(some_weights(), torch.eye(4) * torch.nan, 0), "invert"),
    "three rows": (lambda: SeedGrid(some_mask(), torch.eye(4)[:3], 1, 0), "4 by 4"),
    "no seed per voxel": (lambda: SeedsPerVoxel(some_mask(), oblique(), 0, 0), "per_voxel is 0"),
    "no seed per axis": (lambda: SeedGrid(some_mask(), oblique(), -1, 0), "per_axis is -1"),
    "random seed": (lambda: RandomSeeds(some_mask(), oblique(), -1), "random seed is -1"),
    "zero direction": (lambda: RandomSeeds(some_mask(), oblique(), 0, (0, 0, 0)), "1 of 1 .*zero"),
    "nan direction": (lambda: RandomSeeds(some_mask(), oblique(), 0, (0, torch.nan, 0)), "finite"),
    "two numbers": (lambda: RandomSeeds(some_mask(), oblique(), 0, (0, 1)), "three numbers"),
    "negative": (lambda: WeightedSeeds(some_weights() - 1, oblique(), 0), "120 of 120 .*negative"),
    "nan": (lambda: WeightedSeeds(broken(some_weights(), torch.nan), oblique(), 0), "not finite"),
    "all zero": (lambda: WeightedSeeds(torch.zeros(3, 3, 3), oblique(), 0), "are zero"),
    "mask as weights": (lambda: WeightedSeeds(some_mask(), oblique(), 0), "bool"),
    "nan seeds": (lambda: GivenSeeds(broken(some_rows(), torch.inf)), "2 of 300 .*not finite"),
    "column": (lambda: GivenSeeds(some_rows().T), "rows of three"),
    "whole numbers": (lambda: GivenSeeds(some_rows().long()), "int64"),
    "fewer": (lambda: GivenSeeds(some_rows(), some_rows()[:9]), "9 directions for 300 seeds"),
    "twice": (lambda: GivenSeeds(some_rows(), some_rows(), 0, (1, 0, 0)), "one direction for all"),
    "zeros": (lambda: GivenSeeds(some_rows(), broken(some_rows(), 0)), "2 of 300 .*zero"),
    "no radius": (lambda: SphereSeeds((0, 0, 0), 0.0, 0), "radius 0.0 mm"),
    "no centre": (lambda: SphereSeeds((0, torch.nan, 0), 1.0, 0), "no sphere"),
}


@pytest.mark.parametrize(("make", "message"), BAD.values(), ids=BAD.keys())
def test_what_cannot_be_seeded_is_refused_at_once(make, message):
    with pytest.raises(SeedError, match=message) as caught:
        make()
    assert caught.value.where
    assert caught.value.remedy
