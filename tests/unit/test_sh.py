"""The SH basis and its tensor form, against DIPY and against each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dipy.core.sphere import Sphere
from dipy.reconst.shm import sh_to_sf_matrix

from difftract_bids.core.sh import lmax_of, n_coefficients, sh_basis
from difftract_bids.core.tensor_form import contract, sh_to_tensor, slope_cotangent
from difftract_bids.errors import FodfError

LMAX = [2, 4, 6, 8, 10, 12]


def unit_vectors(n: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    return vectors / vectors.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("lmax", LMAX)
def test_basis_is_that_of_dipys_tournier07(lmax):
    directions = unit_vectors(50)
    theirs = sh_to_sf_matrix(
        Sphere(xyz=directions.numpy()),
        sh_order_max=lmax,
        basis_type="tournier07",
        legacy=False,
        return_inv=False,
    )
    np.testing.assert_allclose(sh_basis(directions, lmax).numpy(), theirs.T, atol=1e-12)


@pytest.mark.parametrize("lmax", LMAX)
def test_tensor_form_has_the_same_values_as_the_series(lmax):
    directions = unit_vectors(40)
    coefficients = torch.randn(40, n_coefficients(lmax), dtype=torch.float64)
    value = contract(sh_to_tensor(coefficients, lmax).T.contiguous(), directions.T, lmax, 0)
    expected = (sh_basis(directions, lmax) * coefficients).sum(1)
    torch.testing.assert_close(value[0], expected, atol=1e-11, rtol=1e-11)


def test_tensor_form_keeps_its_digits_in_float32():
    directions = unit_vectors(500)
    coefficients = torch.randn(500, 45, dtype=torch.float64)
    tensor = sh_to_tensor(coefficients.float(), 8).T.contiguous()
    value = contract(tensor, directions.float().T, 8, 0)[0]
    expected = (sh_basis(directions, 8) * coefficients).sum(1)
    assert (value - expected).abs().max() < 2e-6 * expected.abs().max()


def test_slope_cotangent_is_the_derivative_of_the_slope_by_the_components():
    direction, along = unit_vectors(5, 1).T, unit_vectors(5, 2).T
    tensor = torch.randn(28, 5, dtype=torch.float64)
    slope = 6 * (along * contract(tensor, direction, 6, 1)).sum(0)
    torch.testing.assert_close((slope_cotangent(direction, along, 6) * tensor).sum(0), slope)


def test_degree_follows_from_the_number_of_coefficients():
    assert [lmax_of(n) for n in (6, 15, 28, 45, 66, 91)] == LMAX


@pytest.mark.parametrize("n_coeff", [0, 1, 44, 46, 120])
def test_other_numbers_of_coefficients_are_refused(n_coeff):
    with pytest.raises(FodfError, match=f"^{n_coeff} coefficients"):
        lmax_of(n_coeff)
