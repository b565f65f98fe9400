"""Turning functions by their SH coefficients, against turning the directions they are of."""

from __future__ import annotations

import pytest
import torch

from difftract_bids.core.sh import n_coefficients, sh_basis, sh_degrees_and_orders
from difftract_bids.core.sh_rotation import sh_rotation
from difftract_bids.errors import InputError


def orthogonal(seed: int, *, proper: bool = True) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))[0]
    return matrix * torch.sign(torch.linalg.det(matrix)) * (1.0 if proper else -1.0)


def random_unit_vectors(n: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(9)
    vectors = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    return vectors / vectors.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("proper", [True, False])
@pytest.mark.parametrize("lmax", [2, 4, 8, 12])
def test_turned_coefficients_give_the_function_of_directions_turned_back(lmax, proper):
    turn = orthogonal(lmax, proper=proper)
    if not proper:  # a plain reflection, so that an even function is not left as it was
        turn = turn @ torch.diag(torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64))
    coefficients = torch.randn(n_coefficients(lmax), dtype=torch.float64)
    directions = random_unit_vectors(200)
    found = sh_basis(directions, lmax) @ (sh_rotation(turn, lmax) @ coefficients)
    expected = sh_basis(directions @ turn, lmax) @ coefficients
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)


def test_a_lobe_along_x_lies_along_where_x_is_turned_to():
    turn = orthogonal(3)
    x = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    lobe = sh_basis(x, 8)[0]
    candidates = torch.cat([turn @ x.T, turn.T @ x.T], dim=1).T
    amplitudes = sh_basis(candidates, 8) @ (sh_rotation(turn, 8) @ lobe)
    torch.testing.assert_close(amplitudes[0], (lobe**2).sum())
    assert amplitudes[1] < 0.5 * amplitudes[0]


def test_two_turns_after_one_another_are_their_product_and_the_matrix_is_orthogonal():
    first, second = orthogonal(1), orthogonal(2)
    product = sh_rotation(second, 8) @ sh_rotation(first, 8)
    torch.testing.assert_close(sh_rotation(second @ first, 8), product, atol=1e-12, rtol=0)
    torch.testing.assert_close(
        product.T @ product, torch.eye(45, dtype=torch.float64), atol=1e-12, rtol=0
    )


def test_each_degree_stays_to_itself():
    degrees = torch.tensor([degree for degree, _ in sh_degrees_and_orders(8)])
    other = degrees[:, None] != degrees[None]
    matrix = sh_rotation(orthogonal(4), 8)
    assert (matrix[other] == 0).all()
    assert (matrix[~other].abs() > 1e-6).float().mean() > 0.9


@pytest.mark.parametrize(
    "matrix", [2 * torch.eye(3), torch.ones(3, 3), torch.full((3, 3), torch.nan)]
)
def test_a_matrix_that_is_not_orthogonal_is_refused(matrix):
    with pytest.raises(InputError, match="not orthogonal"):
        sh_rotation(matrix, 4)
