"""Trilinear lookups: values, bounds, rim and derivatives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from problems import oblique, scaling
from scipy.ndimage import map_coordinates

from difftract_bids.core.interpolation import Grid, apply_affine, interpolate
from difftract_bids.errors import InputError

SHAPE = (5, 4, 3)


def grid_and_table(dtype=torch.float64):
    table = torch.randn(60, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Grid.from_affine(SHAPE, oblique(), torch.device("cpu")), table.to(dtype)


def inner_voxels(n: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    size = torch.tensor(SHAPE, dtype=torch.float64)[:, None]
    return torch.rand(3, n, generator=generator, dtype=torch.float64) * size - 0.5


def test_values_are_those_of_scipy_and_the_edge_voxels_reach_into_the_rim():
    grid, table = grid_and_table()
    voxel = inner_voxels(200)
    volume = table.reshape(*SHAPE, 6).numpy()
    expected = [
        map_coordinates(volume[..., i], voxel.numpy(), order=1, mode="nearest") for i in range(6)
    ]
    np.testing.assert_allclose(interpolate(table, voxel, grid).numpy(), expected, atol=1e-12)


def test_gradcheck_reaches_values_and_coordinates():
    grid, table = grid_and_table()
    voxel = inner_voxels(7).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda t, v: interpolate(t, v, grid), (table.requires_grad_(), voxel)
    )


def test_float32_leaves_out_corners_of_tiny_weight_as_mrtrix_does():
    grid, table = grid_and_table(torch.float32)
    table[0], table[1:] = 0, 1e9
    just_off = torch.tensor([[0.0], [0.0], [9e-7]], dtype=torch.float64)
    assert (interpolate(table, just_off, grid) == 0).all()


@pytest.mark.parametrize(
    ("voxel", "inside"),
    [((-0.5, 0, 0), False), ((-0.499, 0, 0), True), ((4.499, 0, 0), True), ((4.5, 0, 0), False)],
)
def test_the_image_ends_half_a_voxel_beyond_its_outer_centres(voxel, inside):
    grid, _ = grid_and_table()
    assert bool(grid.contains(torch.tensor(voxel, dtype=torch.float64)[:, None])) is inside


def test_nearest_voxel_is_the_one_whose_centre_is_nearest():
    grid, _ = grid_and_table()
    voxel = torch.tensor([[0.49, 0.51, 3.6], [1.4, 2.6, -0.4], [0.0, 1.2, 1.7]]).double()
    expected = [(0 * 4 + 1) * 3 + 0, (1 * 4 + 3) * 3 + 1, (4 * 4 + 0) * 3 + 2]
    assert grid.nearest(voxel).tolist() == expected


def test_millimetres_and_voxels_are_each_others_inverse():
    grid, _ = grid_and_table()
    voxel = inner_voxels(20)
    torch.testing.assert_close(grid.to_voxel(apply_affine(oblique(), voxel)), voxel)


@pytest.mark.parametrize("fault", ["singular", "not finite", "3x3"])
def test_an_affine_without_inverse_is_refused(fault):
    affine = scaling(2.0)
    if fault == "singular":
        affine[2, 2] = 0
    elif fault == "not finite":
        affine[0, 3] = torch.nan
    else:
        affine = affine[:3, :3]
    with pytest.raises(InputError, match="invertible"):
        Grid.from_affine(SHAPE, affine, torch.device("cpu"))
