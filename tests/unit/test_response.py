import numpy as np
import pytest
from acquisitions import scheme

from difftract_bids.errors import ConfigError, GradientError, InputError
from difftract_bids.modelling.response import estimate_response
from difftract_bids.modelling.response.tournier import single_fibre_voxels
from difftract_bids.modelling.zonal import zonal_basis

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


def test_isotropic_data_warn_and_empty_data_are_refused():
    table = scheme((1000, 30), n_b0=4)
    rng = np.random.default_rng(0)
    mask = np.ones((9, 9, 9), dtype=bool)
    fluid = 100 * np.exp(-table.bvals_s_mm2 * 1e-3) + rng.normal(0, 0.5, (9, 9, 9, 34))
    with pytest.warns(UserWarning, match="median anisotropy of 0.0"):
        estimate_response(fluid, table, mask, 4)
    with pytest.raises(InputError, match="Only 0 of 729 voxels"):
        estimate_response(np.zeros((9, 9, 9, 34)), table, mask, 4)


def test_a_table_that_does_not_fit_is_refused():
    with pytest.raises(GradientError, match="has 9 volumes"):
        estimate_response(
            np.ones((4, 4, 4, 9)), scheme((1000, 30), n_b0=4), np.ones((4, 4, 4), bool), 4
        )


@pytest.mark.parametrize("algorithm", ["tournier", "fa"])
def test_both_algorithms_find_the_bundle_among_crossings_and_fluid(algorithm):
    table = scheme((1000, 60), n_b0=4)
    whole = np.ones(SHAPE, dtype=bool)
    response = estimate_response(brain(table), table, whole, algorithm=algorithm)
    expected = true_response(1000, 10)
    assert response.lmax == 10
    np.testing.assert_allclose(response.coefficients[1], expected, atol=0.02 * expected[0])


def test_bad_voxels_are_left_out_counted_and_change_nothing_else():
    table = scheme((1000, 60), n_b0=4)
    mask = np.ones(SHAPE, dtype=bool)
    mask[:3] = False
    clean = estimate_response(brain(table), table, mask, 8)
    damaged = brain(table)
    mask[:3] = True
    damaged[0], damaged[1, ..., :4], damaged[2, ..., 5] = 0, -1, np.nan
    with pytest.warns(UserWarning, match="675 of 3375 .* 225 have .* not finite, 450 no signal"):
        response = estimate_response(damaged, table, mask, 8)
    np.testing.assert_array_equal(response.coefficients, clean.coefficients)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"lmax": 7}, "lmax 7"),
        ({"lmax": 0}, "lmax 0"),
        ({"algorithm": "tax"}, "no algorithm 'tax'"),
    ],
)
def test_settings_out_of_range_are_refused(change, match):
    table = scheme((1000, 30), n_b0=4)
    with pytest.raises(ConfigError, match=match):
        estimate_response(brain(table), table, np.ones(SHAPE, bool), **change)


def test_without_b0_or_with_another_grid_it_is_refused():
    table = scheme((1000, 30), n_b0=0)
    with pytest.raises(GradientError, match="no b=0"):
        estimate_response(np.ones((4, 4, 4, 30)), table, np.ones((4, 4, 4), bool))
    table = scheme((1000, 30), n_b0=1)
    with pytest.raises(InputError, match="on the same grid"):
        estimate_response(np.ones((4, 4, 4, 31)), table, np.ones((4, 4, 5), bool))


def test_few_voxels_are_told_of():
    table = scheme((1000, 60), n_b0=4)
    mask = np.zeros(SHAPE, dtype=bool)
    mask[2:4, 2:5, 2:5] = True
    with pytest.warns(UserWarning, match="18 voxels only"):
        estimate_response(brain(table), table, mask)


def test_single_fibres_are_chosen_and_their_directions_found():
    """Of three times as many voxels, half of them crossings and some fluid."""
    table = scheme((1000, 60), n_b0=1)
    dwi = brain(table, noise=2.0)[::3]
    whole = np.ones(dwi.shape[:3], dtype=bool)
    shell = ~table.b0_mask
    signal = dwi[whole][:, shell]
    chosen, fibres = single_fibre_voxels(signal, table.bvecs[shell], whole, 8, 300)
    assert chosen.sum() == 300
    assert set(np.argwhere(chosen.reshape(whole.shape))[:, 0]) <= {0, 1, 2}
    truth = np.random.default_rng(0).normal(size=(*SHAPE, 3))[::3][whole][chosen]
    truth /= np.linalg.norm(truth, axis=1, keepdims=True)
    angle = np.degrees(np.arccos(np.abs((fibres * truth).sum(axis=1)).clip(0, 1)))
    assert np.median(angle) < 2


def test_where_nothing_has_a_direction_there_is_no_response():
    table = scheme((1000, 30), n_b0=4)
    with pytest.raises(InputError, match="Only 0 voxels in the mask look like a fibre"):
        estimate_response(np.full((8, 8, 8, 34), 100.0), table, np.ones((8, 8, 8), bool))
