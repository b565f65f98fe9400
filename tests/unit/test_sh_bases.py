"""SH coefficients in DIPY's bases and in MRtrix's: the same function, there and back."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from dipy.core.sphere import Sphere
from dipy.reconst.shm import (
    convert_sh_descoteaux_tournier,
    convert_sh_from_legacy,
    convert_sh_to_legacy,
    sh_to_sf,
)

from difftract_bids.core.sh import n_coefficients, sh_basis
from difftract_bids.core.sh_bases import SH_BASES, from_basis, to_basis
from difftract_bids.errors import FodfError

#: What DIPY calls each basis, and whether it counts as legacy.
IN_DIPY = {
    "mrtrix3": ("tournier07", False),
    "tournier07_legacy": ("tournier07", True),
    "descoteaux07": ("descoteaux07", False),
    "descoteaux07_legacy": ("descoteaux07", True),
}
LMAX = [2, 4, 6, 8, 10, 12]


def series(lmax: int, n: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(lmax)
    return torch.randn(n, n_coefficients(lmax), generator=generator, dtype=torch.float64)


def in_dipy(convert, *arguments, **options):
    """DIPY warns of legacy bases whenever they are named."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        return convert(*arguments, **options)


def test_every_basis_is_compared_with_dipy():
    assert set(IN_DIPY) == set(SH_BASES)


@pytest.mark.parametrize("lmax", LMAX)
@pytest.mark.parametrize("basis", SH_BASES)
def test_dipy_finds_our_amplitudes_in_every_direction(basis, lmax):
    directions = torch.nn.functional.normalize(
        torch.randn(200, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64), dim=1
    )
    basis_type, legacy = IN_DIPY[basis]
    theirs = in_dipy(
        sh_to_sf,
        to_basis(series(lmax), basis).numpy(),
        Sphere(xyz=directions.numpy()),
        sh_order_max=lmax,
        basis_type=basis_type,
        legacy=legacy,
    )
    ours = series(lmax) @ sh_basis(directions, lmax).T
    np.testing.assert_allclose(theirs, ours.numpy(), atol=1e-12, rtol=0)


@pytest.mark.parametrize("lmax", LMAX)
@pytest.mark.parametrize("basis", SH_BASES)
def test_conversions_undo_each_other(basis, lmax):
    torch.testing.assert_close(from_basis(to_basis(series(lmax), basis), basis), series(lmax))
    torch.testing.assert_close(to_basis(from_basis(series(lmax), basis), basis), series(lmax))


@pytest.mark.parametrize("lmax", LMAX)
def test_conversions_are_dipys(lmax):
    ours, theirs = series(lmax), series(lmax).numpy()
    legacy = convert_sh_descoteaux_tournier(theirs)
    np.testing.assert_array_equal(to_basis(ours, "descoteaux07_legacy"), legacy)
    current = convert_sh_from_legacy(legacy, "descoteaux07")
    np.testing.assert_array_equal(to_basis(ours, "descoteaux07"), current)
    first = convert_sh_to_legacy(theirs, "tournier07")
    np.testing.assert_allclose(to_basis(ours, "tournier07_legacy"), first, rtol=1e-15)
    back = from_basis(torch.from_numpy(convert_sh_to_legacy(current, "descoteaux07")), "mrtrix3")
    np.testing.assert_array_equal(from_basis(back, "descoteaux07_legacy"), theirs)


@pytest.mark.parametrize("basis", SH_BASES)
def test_gradients_pass_in_both_directions(basis):
    coefficients = series(4, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda c: to_basis(c, basis), coefficients)
    assert torch.autograd.gradcheck(lambda c: from_basis(c, basis), coefficients)


@pytest.mark.parametrize("basis", SH_BASES)
def test_shape_and_type_stay(basis):
    image = torch.rand(2, 3, 4, 28)
    assert to_basis(image, basis).shape == image.shape
    assert to_basis(image, basis).dtype == torch.float32
    torch.testing.assert_close(to_basis(image, basis)[1, 2, 3], to_basis(image[1, 2, 3], basis))


def test_unknown_bases_and_numbers_of_coefficients_are_refused():
    with pytest.raises(FodfError, match="basis 'tesseral' is not known"):
        to_basis(series(4), "tesseral")
    with pytest.raises(FodfError, match=r"^44 coefficients"):
        from_basis(torch.zeros(3, 44), "descoteaux07")
