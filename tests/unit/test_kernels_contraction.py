"""The written-out sums of the kernels against the functions that say what they compute."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from difftract_bids.core.kernels import contraction
from difftract_bids.core.sh import n_coefficients
from difftract_bids.core.tensor_form import _monomials, contract, exponents, slope_cotangent

DEGREES = [2, 4, 6, 8, 10, 12]
every_degree = pytest.mark.parametrize("lmax", DEGREES)


def sample(lmax: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A tensor, a unit direction and a vector."""
    rng = np.random.default_rng(lmax)
    direction = rng.normal(size=3)
    return (
        rng.normal(size=n_coefficients(lmax)),
        direction / np.linalg.norm(direction),
        rng.normal(size=3),
    )


def column(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(values)[:, None]


@every_degree
def test_places_and_multiplicities_are_those_of_the_tensor_form(lmax):
    assert [contraction.place(e) for e in exponents(lmax)] == list(range(n_coefficients(lmax)))
    assert sum(map(contraction.multiplicity, exponents(lmax))) == 3**lmax


@every_degree
def test_twofold_remainder_is_that_of_the_tensor_form(lmax):
    tensor, direction, _ = sample(lmax)
    expected = contract(column(tensor), column(direction), lmax, 2)[:, 0].numpy()
    for function in (contraction.matrix_of, contraction.unrolled_matrix(lmax)):
        found = function(tensor, *direction, (0,) * lmax)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13 * np.abs(expected).max())


@every_degree
def test_derivative_of_the_slope_is_that_of_the_tensor_form(lmax):
    _, direction, along = sample(lmax)
    expected = slope_cotangent(column(direction), column(along), lmax)[:, 0].numpy()
    for function in (contraction.slope_of, contraction.unrolled_slope(lmax)):
        result = np.full(len(expected), np.nan)
        function(tuple(direction), tuple(along), (0,) * lmax, result)
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-13 * np.abs(expected).max())


@every_degree
def test_derivative_of_the_amplitude_is_that_of_the_tensor_form(lmax):
    _, direction, _ = sample(lmax)
    expected = _monomials(column(direction), lmax)[:, 0].numpy()
    for function in (contraction.power_of, contraction.unrolled_power(lmax)):
        result = np.ones(len(expected))
        function(*direction, (0,) * lmax, 0.5, result)
        np.testing.assert_allclose(
            result - 1, 0.5 * expected, rtol=0, atol=1e-13 * np.abs(expected).max()
        )


@every_degree
def test_sums_stay_in_the_type_of_the_tensor(lmax):
    tensor, direction, _ = sample(lmax)
    single, x = tensor.astype(np.float32), direction.astype(np.float32)
    found = contraction.unrolled_matrix(lmax)(single, *x, (0,) * lmax)
    assert {value.dtype for value in found} == {np.dtype(np.float32)}
