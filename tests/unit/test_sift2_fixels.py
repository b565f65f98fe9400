"""fODFs are divided into lobes, and every direction belongs to one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from problems import sharp_sh

from difftract_bids.core.kernels.mapping import nearest_axis
from difftract_bids.core.sh import sh_basis
from difftract_bids.core.sift2 import segment_fodf
from difftract_bids.core.sift2.mapping import _arrays
from difftract_bids.core.sift2.sphere import dense_sphere, nearest_axes
from difftract_bids.errors import FodfError, InputError

X, Y, Z = torch.eye(3, dtype=torch.float64)


def image(*voxels):
    """An image with these fODFs in a row."""
    return torch.stack(voxels).float().reshape(len(voxels), 1, 1, -1)


def random_directions(n):
    generator = torch.Generator().manual_seed(3)
    directions = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    return directions / directions.norm(dim=1, keepdim=True)


def main_lobe_integral(lmax=8):
    """Both ends of the lobe of `sharp_sh`, from its peak to where it is first zero."""
    angle = torch.linspace(0, math.pi / 2, 20_001, dtype=torch.float64)
    along = torch.stack([angle.sin(), torch.zeros_like(angle), angle.cos()], dim=1)
    profile = sh_basis(along, lmax) @ sharp_sh(Z, lmax)
    profile[int((profile <= 0).nonzero()[0]) :] = 0
    return 4 * math.pi * torch.trapezoid(profile * angle.sin(), angle)


def test_axes_cover_the_sphere_and_integrate_series_exactly():
    sphere = dense_sphere()
    assert sphere.axes.shape == (1281, 3)
    torch.testing.assert_close(sphere.axes.norm(dim=1), torch.ones(1281, dtype=torch.float64))
    integrals = sphere.solid_angles @ sh_basis(sphere.axes, 12)
    assert integrals[0] == pytest.approx(math.sqrt(4 * math.pi))
    assert integrals[1:].abs().max() < 1e-12
    assert sphere.solid_angles.min() / sphere.solid_angles.max() > 0.5


def test_the_nearest_other_axis_is_a_neighbour():
    sphere = dense_sphere()
    likeness = (sphere.axes @ sphere.axes.T).abs().fill_diagonal_(0)
    listed = (sphere.neighbours == likeness.argmax(dim=1)[:, None]).any(dim=1)
    # Of several that are equally near, rounding chooses one.
    assert listed.all()
    five = (sphere.neighbours < 0).any(dim=1)
    assert five.sum() == 6


def test_walking_over_neighbours_finds_the_nearest_axis():
    arrays = _arrays(segment_fodf(image(sharp_sh(X))), torch.eye(4))
    directions = random_directions(800) * 1e-3
    found = [nearest_axis(arrays, *direction) for direction in directions.tolist()]
    assert found == nearest_axes(directions).tolist()


def test_the_density_of_a_lobe_is_its_integral():
    directions = random_directions(20)
    fixels = segment_fodf(image(*(0.7 * sharp_sh(directions))))
    assert fixels.n_fixels.flatten().tolist() == [1] * 20
    expected = 0.7 * main_lobe_integral()
    torch.testing.assert_close(fixels.density, expected.expand(20), rtol=0.01, atol=0)


def test_crossing_lobes_are_told_apart_and_share_all_directions():
    fixels = segment_fodf(image(sharp_sh(X) + 0.5 * sharp_sh(Y), sharp_sh(Z)))
    assert fixels.n_fixels.flatten().tolist() == [2, 1]
    assert fixels.first.flatten().tolist() == [0, 2]
    assert fixels.row.flatten().tolist() == [0, -1]
    assert fixels.density[0] / fixels.density[1] == pytest.approx(2, rel=0.1)
    axes, lobe = dense_sphere().axes, fixels.table[0]
    for number, direction in enumerate((X, Y)):
        assert (lobe[(axes @ direction).abs() > 0.9] == number).all()
    assert set(lobe.tolist()) == {0, 1}


def test_lobes_that_meet_are_cut_where_they_meet():
    apart = math.radians(55)
    other = math.cos(apart) * X + math.sin(apart) * Y
    both = sharp_sh(X) + sharp_sh(other)
    axes = dense_sphere().axes
    middle = (X + other) / 2
    assert (sh_basis(middle[None] / middle.norm(), 8) @ both) > 0.05
    fixels = segment_fodf(image(both))
    assert fixels.n_fixels.item() == 2
    assert fixels.density[0] / fixels.density[1] == pytest.approx(1, rel=0.05)
    high = (sh_basis(axes, 8) @ both) > 0.1
    nearer = (axes @ other).abs() > (axes @ X).abs()
    clear = high & (((axes @ other).abs() - (axes @ X).abs()).abs() > 0.1)
    labels = fixels.table[0].bool() ^ fixels.table[0, nearest_axes(X[None])].bool()
    assert torch.equal(labels[clear], nearer[clear])


@pytest.mark.parametrize(("peak", "kept"), [(0.1004, 1), (0.0996, 0)])
def test_a_peak_between_axes_is_compared_with_the_cutoff_where_it_is(peak, kept):
    axes = dense_sphere().axes
    directions = random_directions(4000)
    likeness = (directions @ axes.T).abs().amax(dim=1)
    far = directions[likeness.argmin()]
    sampled = (sh_basis(axes, 8) @ sharp_sh(far)).max()
    assert peak * sampled < 0.1
    fixels = segment_fodf(image(peak * sharp_sh(far), sharp_sh(X)))
    assert fixels.n_fixels.flatten().tolist() == [kept, 1]


def test_a_mask_chooses_voxels_and_how_much_they_matter():
    fodf = image(sharp_sh(X), sharp_sh(Y) + sharp_sh(Z), sharp_sh(X), torch.zeros(45))
    fixels = segment_fodf(fodf, torch.tensor([0.0, 0.25, 1.0, 1.0]).reshape(4, 1, 1))
    assert fixels.n_fixels.flatten().tolist() == [0, 2, 1, 0]
    assert fixels.importance.tolist() == [0.25, 0.25, 1.0]


def test_voxels_that_are_not_finite_have_no_fixels():
    fodf = image(sharp_sh(X), sharp_sh(Y))
    fodf[0, 0, 0, 7] = np.nan
    assert segment_fodf(fodf).n_fixels.flatten().tolist() == [0, 1]


def test_threads_and_their_number_change_nothing():
    generator = torch.Generator().manual_seed(0)
    fodf = 0.1 * torch.randn(600, 1, 1, 45, generator=generator) + sharp_sh(X).float()
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = segment_fodf(fodf)
        torch.set_num_threads(3)
        three = segment_fodf(fodf)
    finally:
        torch.set_num_threads(before)
    assert len(one) > 1000
    assert torch.equal(one.first, three.first)
    assert torch.equal(one.table, three.table)
    # The amplitudes are a matrix product, which may sum in another order.
    torch.testing.assert_close(one.density, three.density, rtol=1e-5, atol=1e-6)


def test_an_image_without_a_lobe_is_refused():
    with pytest.raises(FodfError, match="No voxel of the fODF image has a lobe"):
        segment_fodf(image(0.05 * sharp_sh(X)))


def test_a_mask_of_another_grid_is_refused():
    with pytest.raises(InputError, match=r"mask has \(2, 1, 1\) voxels"):
        segment_fodf(image(sharp_sh(X)), torch.ones(2, 1, 1))


def test_an_image_of_something_else_is_refused():
    with pytest.raises(FodfError, match="9 coefficients"):
        segment_fodf(torch.ones(1, 1, 1, 9))
