import numpy as np
import pytest
from acquisitions import directions, scheme

from difftract_bids.errors import GradientError, InputError
from difftract_bids.modelling.response import Response, estimate_response
from difftract_bids.modelling.zonal import fit_zonal, zonal_basis

EVALS = np.array([1.7e-3, 0.3e-3, 0.3e-3])
S0 = 400.0
SHAPE = (15, 15, 15)


def bundle_signal(table, fibres):
    cosine = fibres @ table.bvecs.T
    return S0 * np.exp(-table.bvals_s_mm2 * (EVALS[1] + (EVALS[0] - EVALS[1]) * cosine**2))


def true_response(bval, lmax):
    """Project the bundle's signal on the zonal harmonics, by Gauss quadrature."""
    nodes, weights = np.polynomial.legendre.leggauss(64)
    signal = S0 * np.exp(-bval * (EVALS[1] + (EVALS[0] - EVALS[1]) * nodes**2))
    return 2 * np.pi * (weights * signal) @ zonal_basis(nodes, lmax)


def brain(table, seed=0, noise=8.0):
    """Single fibres on one side, crossings on the other, fluid in the middle."""
    rng = np.random.default_rng(seed)
    one, other = (rng.normal(size=(*SHAPE, 3)) for _ in range(2))
    other = np.cross(one, other)
    one, other = (v / np.linalg.norm(v, axis=-1, keepdims=True) for v in (one, other))
    dwi = bundle_signal(table, one)
    dwi[9:] = 0.5 * (dwi + bundle_signal(table, other))[9:]
    dwi[8:10] = 2 * S0 * np.exp(-table.bvals_s_mm2 * 3e-3)
    return dwi + rng.normal(0, noise, size=dwi.shape)


def test_the_response_of_a_known_bundle_is_found():
    table = scheme((1000, 60), n_b0=4)
    response = estimate_response(brain(table), table, np.ones(SHAPE, dtype=bool), 8)
    expected = true_response(1000, 8)
    assert response.bvals_s_mm2 == (0.0, 1000.0)
    np.testing.assert_allclose(response.coefficients[1], expected, atol=0.02 * expected[0])
    assert response.coefficients[0, 0] == pytest.approx(S0 * np.sqrt(4 * np.pi), rel=0.02)
    assert not response.coefficients[0, 1:].any()


def test_of_several_shells_the_one_to_be_deconvolved_is_used():
    table = scheme((1000, 30), (3000, 60), n_b0=4)
    response = estimate_response(brain(table), table, np.ones(SHAPE, dtype=bool), 8)
    expected = true_response(3000, 8)
    assert response.bvals_s_mm2 == (0.0, 3000.0)
    np.testing.assert_allclose(response.coefficients[1], expected, atol=0.05 * expected[0])


def test_a_small_mask_still_gives_a_response():
    table = scheme((1000, 60), n_b0=4)
    mask = np.zeros(SHAPE, dtype=bool)
    mask[2:5, 2:5, 2:5] = True
    response = estimate_response(brain(table), table, mask, 8)
    expected = true_response(1000, 8)
    np.testing.assert_allclose(response.coefficients[1], expected, atol=0.05 * expected[0])


def test_one_zonal_series_fits_voxels_with_different_fibres_exactly():
    truth = np.array([300.0, -100.0, 20.0])
    bvecs, fibres = directions(20), directions(7)
    signal = zonal_basis(fibres @ bvecs.T, 4) @ truth
    np.testing.assert_allclose(fit_zonal(signal, bvecs, fibres, 4), truth, rtol=1e-9)


def test_isotropic_data_warn_and_empty_data_are_refused():
    table = scheme((1000, 30), n_b0=4)
    rng = np.random.default_rng(0)
    mask = np.ones((9, 9, 9), dtype=bool)
    fluid = 100 * np.exp(-table.bvals_s_mm2 * 1e-3) + rng.normal(0, 0.5, (9, 9, 9, 34))
    with pytest.warns(UserWarning, match="median anisotropy of 0.0"):
        estimate_response(fluid, table, mask, 4)
    with pytest.raises(InputError, match="Only 0 voxels"):
        estimate_response(np.zeros((9, 9, 9, 34)), table, mask, 4)


def test_a_table_that_does_not_fit_is_refused():
    with pytest.raises(GradientError, match="has 9 volumes"):
        estimate_response(
            np.ones((4, 4, 4, 9)), scheme((1000, 30), n_b0=4), np.ones((4, 4, 4), bool), 4
        )


def test_text_is_what_mrtrix_writes_and_comes_back_the_same():
    response = Response((0.0, 1000.0), np.array([[1500.0, 0, 0], [338.827, -101.5, 20.01]]))
    text = response.to_text()
    assert text.splitlines() == ["# Shells: 0,1000", "1500 0 0", "338.827 -101.5 20.01"]
    back = Response.from_text(text)
    assert back.bvals_s_mm2 == response.bvals_s_mm2
    np.testing.assert_array_equal(back.coefficients, response.coefficients)
    assert response.to_text(with_b0=False).splitlines()[1:] == ["338.827 -101.5 20.01"]
    assert response.lmax == 4
    np.testing.assert_array_equal(response.deconvolved, response.coefficients[1])


@pytest.mark.parametrize(
    "text",
    ["", "1 2 3", "# Shells: 1000\n1 two 3", "# Shells: 0,1000\n1 2 3", "# Shells: 1000\n1 nan"],
)
def test_text_that_is_no_response_is_refused(text):
    with pytest.raises(InputError, match="response"):
        Response.from_text(text)
