"""Counter-based seeds."""

from __future__ import annotations

import pytest
import torch
from problems import oblique

from difftract_bids.core import random_seeds
from difftract_bids.core.interpolation import Grid
from difftract_bids.core.seeding import philox
from difftract_bids.errors import SeedError


def some_mask() -> torch.Tensor:
    return torch.rand(6, 5, 4, generator=torch.Generator().manual_seed(0)) > 0.6


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
