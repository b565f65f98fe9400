"""The axes a network works in: the same whatever the storage order and obliqueness of a scan."""

from __future__ import annotations

import itertools

import pytest
import torch
from networks import affine, small_turn, stored_otherwise

from difftract_bids.core.sh import sh_basis
from difftract_bids.core.sh_rotation import sh_rotation
from difftract_bids.errors import InputError
from difftract_bids.learn.frame import VoxelFrame

STORAGES = [
    (order, reverse)
    for order in itertools.permutations(range(3))
    for reverse in [(False, False, False), (True, False, False), (True, False, True)]
]


def coefficients(shape=(4, 5, 6), n=30, seed=0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, n, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("order", "reverse"), STORAGES)
def test_a_scan_stored_otherwise_looks_the_same(order, reverse):
    vox2ras = affine((1.5, 2.0, 2.5), small_turn())
    image = coefficients()
    expected = VoxelFrame.of(vox2ras).to_frame(image, 4)
    moved, other = stored_otherwise(image, vox2ras, order, reverse)
    frame = VoxelFrame.of(other)
    torch.testing.assert_close(frame.to_frame(moved, 4), expected)
    assert frame.voxel_size_mm == pytest.approx((1.5, 2.0, 2.5))


@pytest.mark.parametrize(("order", "reverse"), STORAGES)
def test_what_was_brought_into_the_frame_comes_back_as_it_was(order, reverse):
    image, vox2ras = stored_otherwise(
        coefficients(), affine((1.5, 2.0, 2.5), small_turn(30)), order, reverse
    )
    frame = VoxelFrame.of(vox2ras)
    torch.testing.assert_close(frame.to_scan(frame.to_frame(image, 4), 4), image)
    mask = image[..., 0] > 0
    assert frame.grid_to_frame(mask).shape == frame.to_frame(image, 4).shape[1:]


def test_a_mask_goes_with_its_image():
    image, vox2ras = stored_otherwise(coefficients(), affine(), (2, 0, 1), (True, False, True))
    frame = VoxelFrame.of(vox2ras)
    # The mean of a function has no direction: only the grid moves it.
    torch.testing.assert_close(
        frame.grid_to_frame(image[..., 0]), frame.to_frame(image[..., :15], 4)[0]
    )


def test_turning_the_head_with_its_box_changes_nothing():
    image, turn = coefficients(), small_turn(25, seed=3)
    straight = VoxelFrame.of(affine()).to_frame(image, 4)
    matrix = torch.block_diag(sh_rotation(turn, 4), sh_rotation(turn, 4))
    oblique = VoxelFrame.of(affine(turn=turn)).to_frame(image @ matrix.T, 4)
    torch.testing.assert_close(oblique, straight)


def test_a_lobe_along_the_second_voxel_axis_lies_along_its_frame_axis():
    turn = small_turn(30, seed=5)
    lobe = sh_basis(turn[None, :, 1].clone(), 6)
    image, vox2ras = stored_otherwise(
        lobe.expand(2, 3, 4, -1), affine(turn=turn), (1, 2, 0), (True, True, False)
    )
    found = VoxelFrame.of(vox2ras).to_frame(image, 6)
    expected = sh_basis(torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64), 6)[0]
    torch.testing.assert_close(found[:, 0, 0, 0], expected)


def test_series_of_several_degrees_are_turned_each_by_itself():
    image, frame = coefficients(n=21), VoxelFrame.of(affine(turn=small_turn()))
    found = frame.to_frame(image, (2, 4))
    torch.testing.assert_close(found[:6], frame.to_frame(image[..., :6], 2))
    torch.testing.assert_close(found[6:], frame.to_frame(image[..., 6:], 4))
    with pytest.raises(InputError, match="21 channels"):
        frame.to_frame(image, (4, 4))
    with pytest.raises(InputError, match="21 channels"):
        frame.to_frame(image, 4)


def test_both_ways_are_differentiable():
    frame = VoxelFrame.of(affine(turn=small_turn()))
    image = coefficients((2, 1, 2), 6).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: frame.to_frame(x, 2), image)
    there = frame.to_frame(image.detach(), 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: frame.to_scan(x, 2), there)


@pytest.mark.parametrize("damage", [0.0, float("nan")])
def test_a_damaged_affine_is_refused(damage):
    vox2ras = affine()
    vox2ras[:, 1] = damage
    with pytest.raises(InputError, match="cannot be inverted"):
        VoxelFrame.of(vox2ras)
