import numpy as np
import pytest
from acquisitions import directions
from scipy.optimize import LinearConstraint, minimize

from difftract_bids.modelling.zonal import fit_zonal, zonal_basis


def noisy_signal(truth, seed, noise):
    rng = np.random.default_rng(seed)
    bvecs, fibres = directions(30), directions(9)
    signal = zonal_basis(fibres @ bvecs.T, 2 * (len(truth) - 1)) @ truth
    return signal + rng.normal(0, noise, signal.shape), bvecs, fibres


def profile(coefficients):
    angle = np.radians(np.arange(91))
    return zonal_basis(np.cos(angle), 2 * (len(coefficients) - 1)) @ coefficients


def test_one_zonal_series_fits_voxels_with_different_fibres_exactly():
    truth = np.array([300.0, -100.0, 20.0])
    signal, bvecs, fibres = noisy_signal(truth, 0, 0.0)
    for constrained in (False, True):
        fitted = fit_zonal(signal, bvecs, fibres, 4, constrained=constrained)
        np.testing.assert_allclose(fitted, truth, rtol=1e-7)


def test_the_constrained_response_is_neither_negative_nor_decreasing():
    truth = np.array([30.0, -40.0, 30.0, 0.0, 0.0, 0.0])
    signal, bvecs, fibres = noisy_signal(truth, 1, 4.0)
    free = profile(fit_zonal(signal, bvecs, fibres, 10))
    held = profile(fit_zonal(signal, bvecs, fibres, 10, constrained=True))
    assert free.min() < -1
    assert np.diff(free).min() < -1e-3
    assert held.min() > -1e-9
    assert np.diff(held).min() > -1e-3  # the slope is held at each degree, not between


@pytest.mark.parametrize("seed", range(5))
def test_no_other_response_within_the_constraints_fits_better(seed):
    """A general optimiser does not find a smaller sum of squares."""
    truth = np.array([30.0, -30.0, 10.0, 0.0])
    signal, bvecs, fibres = noisy_signal(truth, seed, 5.0)
    basis = zonal_basis(fibres @ bvecs.T, 6).reshape(-1, 4)
    angle = np.radians(np.arange(91))
    nearby = zonal_basis(np.cos(angle + 1e-5), 6) - zonal_basis(np.cos(angle - 1e-5), 6)
    rows = np.vstack([zonal_basis(np.cos(angle), 6), nearby[1:-1] / 2e-5])

    def misfit(x):
        return ((basis @ x - signal.ravel()) ** 2).sum() / 1e3

    best = minimize(
        misfit,
        np.array([30.0, 0, 0, 0]),
        jac=lambda x: 2 * basis.T @ (basis @ x - signal.ravel()) / 1e3,
        constraints=LinearConstraint(rows, 0, np.inf),
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 500},
    )
    mine = fit_zonal(signal, bvecs, fibres, 6, constrained=True)
    assert (rows @ mine).min() > -1e-6
    assert misfit(mine) <= misfit(best.x) * (1 + 1e-6)
    np.testing.assert_allclose(mine, best.x, atol=0.02)
