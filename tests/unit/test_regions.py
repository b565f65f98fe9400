"""Regions, and the bits they are made into."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import oblique, scaling, voxel_centres_mm

from difftract_bids.core.interpolation import Grid
from difftract_bids.core.regions import (
    EXCLUDED,
    IN_MASK,
    RegionImage,
    Regions,
    Sphere,
    bits_at,
    compile_regions,
)
from difftract_bids.errors import InputError

SHAPE = (6, 5, 4)
ELSEWHERE = torch.tensor([[1e4], [0.0], [0.0]])


def some_image(seed: int, affine: torch.Tensor | None = None, shape=SHAPE) -> RegionImage:
    inside = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) > 0.5
    return RegionImage(inside, oblique() if affine is None else affine)


def positions(n: int = 4000) -> torch.Tensor:
    """Around and in the oblique image, also within rounding of its borders."""
    generator = torch.Generator().manual_seed(9)
    size = torch.tensor(SHAPE).double()[:, None]
    voxel = torch.rand(3, n, generator=generator, dtype=torch.float64) * (size + 2) - 1.5
    voxel[:, ::3] = (voxel[:, ::3] * 2).round() / 2
    return oblique()[:3, :3] @ voxel + oblique()[:3, 3:]


def in_image(image: RegionImage, position_mm: torch.Tensor) -> torch.Tensor:
    """One position after the other, by plain numbers."""
    grid = Grid.from_affine(tuple(image.inside.shape), image.vox2ras, torch.device("cpu"))
    voxel = grid.to_voxel(position_mm)
    result = []
    for column in voxel.T.tolist():
        sizes = image.inside.shape
        in_bounds = all(-0.5 < v < n - 0.5 for v, n in zip(column, sizes, strict=True))
        index = [min(math.floor(v + 0.5), n - 1) for v, n in zip(column, sizes, strict=True)]
        result.append(in_bounds and bool(image.inside[tuple(index)]))
    return torch.tensor(result)


def at(regions: Regions, position_mm: torch.Tensor) -> torch.Tensor:
    return bits_at(compile_regions(regions, "cpu"), position_mm)


def test_without_regions_everywhere_is_in_the_mask_and_nothing_is_needed():
    compiled = compile_regions(Regions(), "cpu")
    assert compiled.needed == 0
    assert (bits_at(compiled, positions(10)) == IN_MASK).all()
    assert bits_at(compiled, positions(10)[:, :0]).shape == (0,)


def test_voxel_centres_of_an_oblique_image_have_its_values():
    image = some_image(0)
    centres = voxel_centres_mm(SHAPE, oblique()).reshape(-1, 3).T
    found = at(Regions(mask=(image,)), centres) == IN_MASK
    assert torch.equal(found.reshape(SHAPE), image.inside)


def test_images_count_by_the_nearest_voxel_and_are_false_outside():
    image = some_image(0)
    found = at(Regions(exclude=(image,)), positions())
    expected = in_image(image, positions())
    assert 500 < int(expected.sum()) < 2500
    assert torch.equal(found, IN_MASK + EXCLUDED * expected.long())


def test_the_half_voxel_rim_belongs_to_the_image_and_its_border_does_not():
    everywhere = RegionImage(torch.ones(2, 2, 2).bool(), torch.eye(4))
    x = torch.tensor([-0.5, -0.4999, 0.5, 1.4999, 1.5])
    position = torch.stack([x, torch.zeros(5), torch.zeros(5)])
    assert at(Regions(mask=(everywhere,)), position).tolist() == [0, 1, 1, 1, 0]


def test_half_way_between_two_voxels_is_in_the_upper_one():
    inside = torch.zeros(3, 1, 1, dtype=torch.bool)
    inside[1] = True
    position = torch.tensor([[0.4999, 0.5, 1.4999, 1.5], [0] * 4, [0] * 4])
    assert at(Regions(mask=(RegionImage(inside, torch.eye(4)),)), position).tolist() == [
        0,
        1,
        1,
        0,
    ]


def test_a_sphere_includes_its_surface():
    sphere = Sphere((4.0, 15.0, 15.0), 2.0)
    beyond = 13 - 1e-6
    position = torch.tensor(
        [
            [4.0, 4.0, 4.0, 6.0, 5.5],
            [15.0, 15.0, 15.0, 15.0, 16.5],
            [15.0, 13.0, beyond, 15.0, 15.0],
        ],
        dtype=torch.float64,
    )
    assert at(Regions(mask=(sphere,)), position).tolist() == [1, 1, 0, 1, 0]
    assert at(Regions(mask=(Sphere((4.0, 15.0, 15.0), 0.0),)), position).tolist() == [
        1,
        0,
        0,
        0,
        0,
    ]


def test_regions_of_mask_and_exclude_are_unions_and_each_include_has_its_bit():
    same, other, third = (
        some_image(0),
        some_image(1),
        some_image(2, scaling(3.0, (18, -32, 10)), (9, 8, 7)),
    )
    sphere = Sphere((28.0, -22.0, 15.0), 4.0)
    regions = Regions(mask=(same, sphere), exclude=(other, third), include=(same, third, sphere))
    where = positions()
    in_same, in_other, in_third = (in_image(image, where) for image in (same, other, third))
    offset = where - torch.tensor(sphere.centre_mm).double()[:, None]
    in_sphere = (offset**2).sum(0) <= 16
    assert all(100 < int(part.sum()) < 3900 for part in (in_same, in_other, in_third, in_sphere))
    expected = (
        1 * (in_same | in_sphere)
        + 2 * (in_other | in_third)
        + (4 * in_same + 8 * in_third + 16 * in_sphere)
    )
    assert torch.equal(at(regions, where), expected)
    assert compile_regions(regions, "cpu").needed == 4 + 8 + 16


def test_images_on_one_grid_share_a_table():
    images = (some_image(0), some_image(1), some_image(2, oblique().float()), some_image(3))
    other = some_image(4, shape=(6, 5, 3))
    compiled = compile_regions(Regions(include=(*images, other)), "cpu")
    grids = [SHAPE, SHAPE, (6, 5, 3)]  # an affine that was rounded is another one
    assert [tuple(row) for row in compiled.shape.tolist()] == grids
    assert compiled.first.tolist() == [0, 120, 240]
    assert len(compiled.bits) == 240 + 90


def test_compiled_regions_are_tensors_that_kernels_can_take():
    for regions in (Regions(), Regions(mask=(some_image(0),), include=(Sphere((0, 0, 0), 1),))):
        compiled = compile_regions(regions, "cpu")
        grids, spheres = len(regions.mask), len(regions.include)
        assert compiled.ras2vox.shape == (grids, 3, 4)
        assert compiled.shape.shape == (grids, 3)
        assert compiled.first.shape == (grids,)
        assert compiled.spheres.shape == (spheres, 4)
        assert compiled.sphere_bits.shape == (spheres,)
        assert compiled.ras2vox.dtype == compiled.spheres.dtype == torch.float64
        whole = (compiled.shape, compiled.first, compiled.bits, compiled.sphere_bits)
        assert {tensor.dtype for tensor in whole} == {torch.int64}
        assert all(tensor.is_contiguous() for tensor in compiled[:6])


def test_compiling_leaves_the_images_alone():
    images = (some_image(0), some_image(1))
    compile_regions(Regions(mask=images, exclude=images), "cpu")
    for seed, image in enumerate(images):
        assert torch.equal(image.inside, some_image(seed).inside)


@settings(deadline=None, max_examples=20)
@given(n=st.integers(1, 60), data=st.data())
def test_sixty_includes_are_told_apart(n, data):
    k = data.draw(st.integers(0, n - 1))
    spheres = tuple(Sphere((10.0 * i, 0.0, 0.0), 1.0) for i in range(n))
    compiled = compile_regions(Regions(include=spheres), "cpu")
    found = bits_at(compiled, torch.tensor([[10.0 * k], [0.0], [0.0]]))
    assert found.tolist() == [IN_MASK + 2 ** (2 + k)]
    assert compiled.needed == sum(2 ** (2 + i) for i in range(n))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 1e30])
def test_a_position_that_is_nowhere_is_in_no_region(value):
    regions = Regions(mask=(some_image(0),), include=(Sphere((0, 0, 0), 1e9),))
    assert at(regions, torch.full((3, 1), value)).tolist() == [0]


BAD = {
    "too many": (Regions(include=(Sphere((0, 0, 0), 1),) * 61), "61 regions to visit, 60"),
    "negative": (Regions(mask=(Sphere((0, 0, 0), -1.0),)), "radius -1.0 mm"),
    "nan": (Regions(include=(Sphere((0, torch.nan, 0), 1),)), "no sphere"),
    "two": (Regions(exclude=(Sphere((0, 0), 1),)), "no sphere"),
    "float": (Regions(mask=(RegionImage(torch.ones(2, 2, 2), torch.eye(4)),)), "float32"),
    "flat": (Regions(mask=(RegionImage(torch.ones(2, 2).bool(), torch.eye(4)),)), "2, 2"),
    "affine": (Regions(mask=(RegionImage(torch.ones(2, 2, 2).bool(), torch.zeros(4, 4)),)), "inv"),
}


@pytest.mark.parametrize(("regions", "message"), BAD.values(), ids=BAD.keys())
def test_regions_that_cannot_be_used_are_refused(regions, message):
    with pytest.raises(InputError, match=message) as caught:
        compile_regions(regions, "cpu")
    assert caught.value.where
    assert caught.value.remedy
