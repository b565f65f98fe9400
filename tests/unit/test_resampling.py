"""The one interpolation: exact where nothing happens, right where something does."""

from __future__ import annotations

import numpy as np
import pytest

from difftract_bids.errors import InputError
from difftract_bids.phantom.pose import rigid
from difftract_bids.preprocessing.resampling import (
    Displacement,
    Grid,
    isotropic_grid,
    resample_series,
)

SHAPE = (20, 24, 18)
OBLIQUE = rigid(np.array([3.0, -20.0, 5.0]), np.array([10.0, -5.0, 20.0])) @ np.diag([-2, 2, 3, 1])


def blob(points_mm, centre_mm=(0.0, 0.0, 0.0), sd_mm=8.0):
    """A smooth function of position, known everywhere."""
    apart = points_mm - np.reshape(centre_mm, (3, 1, 1, 1))
    return 100 * np.exp(-0.5 * (apart**2).sum(axis=0) / sd_mm**2)


@pytest.fixture
def grid():
    return Grid(SHAPE, OBLIQUE)


@pytest.fixture
def centre_mm():
    return OBLIQUE[:3, :3] @ (np.array(SHAPE) / 2) + OBLIQUE[:3, 3]


def test_a_series_that_stays_is_returned_to_the_last_bit(grid):
    dwi = np.random.default_rng(0).integers(-5, 900, (*SHAPE, 2)).astype(np.int16)
    assert np.array_equal(resample_series(dwi, OBLIQUE, None, grid), dwi.astype(np.float32))


def test_a_known_movement_is_undone(grid, centre_mm):
    move = rigid(np.array([1.5, -2.0, 1.0]), np.array([3.0, 2.0, -3.0]))
    # The head's point x is seen at move(x): the acquired volume at y shows move⁻¹(y).
    points = grid.points_mm()
    back = np.linalg.inv(move)
    seen = np.tensordot(back[:3, :3], points, axes=1) + back[:3, 3, None, None, None]
    dwi = blob(seen, centre_mm)[..., None]
    found = resample_series(dwi, OBLIQUE, move[None, :3], grid)[..., 0]
    inner = (slice(4, -4),) * 3
    assert np.abs(found - blob(points, centre_mm))[inner].max() < 0.2


def test_displacement_moves_along_its_axis_and_keeps_the_sum():
    grid = Grid((12, 60, 12), np.diag([-2.0, 2.0, 2.0, 1.0]))
    y_mm = 2.0 * np.arange(60)
    along = np.broadcast_to((4 * np.sin(y_mm / 19))[None, :, None], grid.shape)
    true = np.exp(-0.5 * ((y_mm - 60) / 9) ** 2)
    # Where a signal goes is x + d(x); how dense it gets there is the inverse of the stretch.
    seen_at, stretch = y_mm + 4 * np.sin(y_mm / 19), 1 + 4 / 19 * np.cos(y_mm / 19)
    distorted = np.interp(y_mm, seen_at, true / stretch)
    dwi = np.broadcast_to(distorted[None, :, None], grid.shape)[..., None]
    found = resample_series(dwi, grid.vox2ras, None, grid, displacement=Displacement(along, 1))
    assert np.abs(found[6, :, 6, 0] - true).max() < 0.02
    assert found.sum() == pytest.approx(dwi.sum(), rel=5e-3)


def test_an_image_that_an_eddy_current_stretched_gets_its_brightness_back(grid):
    stretch = np.eye(4)
    stretch[1, 1] = 1.1
    dwi = np.full((*SHAPE, 1), 50.0)
    found = resample_series(dwi, OBLIQUE, stretch[None, :3], grid)
    assert found[10, 12, 9, 0] == pytest.approx(55.0, rel=1e-5)


def test_points_outside_the_field_of_view_are_zero_and_its_edge_is_kept(grid):
    dwi = np.full((*SHAPE, 1), 7.0)
    along = OBLIQUE[:3, 0]
    for voxels, last in ((0.4, 7.0), (0.6, 0.0)):
        move = np.column_stack([np.eye(3), voxels * along])
        found = resample_series(dwi, OBLIQUE, move[None], grid)[..., 0]
        assert found[-1] == pytest.approx(last)
        assert found[:-1] == pytest.approx(7.0, rel=1e-5)


def test_undershoots_of_splines_are_clipped(grid):
    dwi = np.zeros((*SHAPE, 1))
    dwi[10:] = 1000
    move = np.column_stack([np.eye(3), 0.5 * OBLIQUE[:3, 0]])
    assert resample_series(dwi, OBLIQUE, move[None], grid).min() == 0


@pytest.mark.parametrize("size_mm", [1.7, 2.0, 3.0])
def test_an_isotropic_grid_keeps_field_of_view_centre_and_axes(size_mm):
    new = isotropic_grid(SHAPE, OBLIQUE, size_mm)
    middles = [
        a[:3, :3] @ ((np.array(shape) - 1) / 2) + a[:3, 3]
        for shape, a in ((SHAPE, OBLIQUE), (new.shape, new.vox2ras))
    ]
    assert middles[0] == pytest.approx(middles[1])
    extent = np.array(new.shape) * size_mm - np.array(SHAPE) * [2, 2, 3]
    assert (extent >= -1e-6).all()
    assert (extent < size_mm).all()
    old_axes = OBLIQUE[:3, :3] / np.linalg.norm(OBLIQUE[:3, :3], axis=0)
    assert new.vox2ras[:3, :3] == pytest.approx(old_axes * size_mm)


def test_more_threads_give_the_same_volumes(grid):
    dwi = np.random.default_rng(1).random((*SHAPE, 3)) * 100
    moves = np.tile(rigid(np.ones(3), np.ones(3))[:3], (3, 1, 1))
    one, two = (resample_series(dwi, OBLIQUE, moves, grid, num_threads=n) for n in (1, 2))
    assert np.array_equal(one, two)


def test_affines_of_another_series_are_refused(grid):
    with pytest.raises(InputError, match="2 volumes"):
        resample_series(np.zeros((*SHAPE, 2)), OBLIQUE, np.zeros((3, 3, 4)), grid)
