"""The peak search and its implicit derivative."""

from __future__ import annotations

import math

import pytest
import torch
from problems import sharp_sh

from difftract_bids.core.peaks import find_peaks
from difftract_bids.core.sh import sh_basis
from difftract_bids.core.tensor_form import sh_to_tensor


def unit_vectors(n: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    return vectors / vectors.norm(dim=1, keepdim=True)


def near(directions: torch.Tensor, angle: float) -> torch.Tensor:
    moved = directions + angle * unit_vectors(len(directions), seed=9)
    return (moved / moved.norm(dim=1, keepdim=True)).T


def columns(sh_coeffs: torch.Tensor, lmax: int = 8) -> torch.Tensor:
    return sh_to_tensor(sh_coeffs, lmax).T.contiguous()


def mrtrix_step(sh_coeffs: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    """One update as documented, from derivatives by elevation and azimuth: the oracle."""
    elevation = torch.arccos(direction[2])
    azimuth = torch.atan2(direction[1], direction[0])

    def amplitude(angles: torch.Tensor) -> torch.Tensor:
        el, az = angles
        point = torch.stack([el.sin() * az.cos(), el.sin() * az.sin(), el.cos()])
        return (sh_basis(point[None], 8)[0] * sh_coeffs).sum()

    angles = torch.stack([elevation, azimuth])
    scale = torch.stack([torch.ones_like(elevation), elevation.sin()])
    gradient = torch.autograd.functional.jacobian(amplitude, angles) / scale
    hessian = torch.autograd.functional.hessian(amplitude, angles) / torch.outer(scale, scale)
    unit = gradient / gradient.norm()
    step = ((gradient @ unit) / (unit @ hessian @ unit)).abs().clamp(max=0.2)
    el, az = angles
    e_el = torch.stack([el.cos() * az.cos(), el.cos() * az.sin(), -el.sin()])
    e_az = torch.stack([-az.sin(), az.cos(), torch.zeros_like(az)])
    moved = direction + step * (unit[0] * e_el + unit[1] * e_az)
    return moved / moved.norm()


def test_each_update_is_that_of_mrtrix_in_spherical_coordinates():
    peaks = unit_vectors(60)
    sh_coeffs = sharp_sh(peaks) + 0.5 * sharp_sh(unit_vectors(60, seed=3))
    start = near(peaks, 0.3)
    # A tolerance above the longest step ends the search after one update.
    found = find_peaks(columns(sh_coeffs), start, 8, tolerance=1.0)
    expected = [mrtrix_step(c, s) for c, s in zip(sh_coeffs, start.T, strict=True)]
    torch.testing.assert_close(found.direction.T, torch.stack(expected), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("angle", [1e-6, 0.01])
def test_search_converges_at_and_near_the_poles(angle):
    peak = torch.tensor([[math.sin(angle), 0.0, math.cos(angle)]], dtype=torch.float64)
    start = torch.tensor([[0.0], [0.0], [1.0]], dtype=torch.float64)
    found = find_peaks(columns(sharp_sh(peak)), start, 8)
    assert found.found.all()
    torch.testing.assert_close(found.direction.T, peak, atol=2e-4, rtol=0)


@pytest.mark.parametrize("lmax", [2, 4, 8, 12])
def test_single_lobe_is_found_with_its_amplitude(lmax):
    peaks = unit_vectors(100)
    found = find_peaks(columns(sharp_sh(peaks, lmax), lmax), near(peaks, 0.2), lmax, 1e-12)
    assert found.found.all()
    torch.testing.assert_close(found.direction.T, peaks, atol=1e-11, rtol=0)
    torch.testing.assert_close(found.amplitude, torch.ones(100, dtype=torch.float64))


def test_search_stays_with_the_lobe_and_the_sense_it_starts_from():
    x, y = torch.eye(3, dtype=torch.float64)[:2]
    both = (sharp_sh(x) + sharp_sh(y)).expand(3, -1)
    start = torch.stack([x, y, -x]) + 0.1
    found = find_peaks(columns(both), (start / start.norm(dim=1, keepdim=True)).T, 8)
    torch.testing.assert_close(found.direction.T, torch.stack([x, y, -x]), atol=0.02, rtol=0)


def test_flat_function_has_its_peak_anywhere():
    flat = torch.zeros(1, 45, dtype=torch.float64)
    flat[:, 0] = 1
    start = unit_vectors(1).T
    found = find_peaks(columns(flat), start, 8)
    assert found.found.all()
    torch.testing.assert_close(found.direction, start)


@pytest.mark.parametrize("lmax", [2, 6, 8])
def test_gradcheck_of_the_implicit_derivative(lmax):
    peaks = unit_vectors(4)
    sh_coeffs = sharp_sh(peaks, lmax) + 0.3 * sharp_sh(unit_vectors(4, seed=5), lmax)
    start = near(peaks, 0.1)

    def direction(coefficients: torch.Tensor) -> torch.Tensor:
        return find_peaks(columns(coefficients, lmax), start, lmax, 1e-13).direction

    assert torch.autograd.gradcheck(direction, (sh_coeffs.requires_grad_(),))


def test_derivative_does_not_change_the_value_of_an_unconverged_search():
    peaks = unit_vectors(50)
    tensor = columns(sharp_sh(peaks) + 0.3 * sharp_sh(unit_vectors(50, seed=5)))
    start = near(peaks, 0.2)
    plain = find_peaks(tensor, start, 8).direction
    with_gradient = find_peaks(tensor.clone().requires_grad_(), start, 8).direction
    assert torch.equal(plain, with_gradient.detach())


def test_merging_peaks_and_flat_functions_have_a_bounded_derivative():
    flat = torch.zeros(2, 45, dtype=torch.float64)
    flat[0, 0] = 1  # the other one is zero throughout
    found = find_peaks(columns(flat).requires_grad_(), unit_vectors(2).T, 8)
    tensor = columns(flat).requires_grad_()
    find_peaks(tensor, unit_vectors(2).T, 8).direction.sum().backward()
    assert found.found.all()
    assert torch.isfinite(tensor.grad).all()
    assert tensor.grad[:, 0].abs().max() < 1e6
