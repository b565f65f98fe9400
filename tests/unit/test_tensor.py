import numpy as np
import pytest
from acquisitions import scheme

from difftract_bids.errors import GradientError
from difftract_bids.io.gradients import GradientTable
from difftract_bids.modelling.tensor import fit_tensor

EVALS = np.array([1.7e-3, 0.4e-3, 0.3e-3])


def frames(n):
    rng = np.random.default_rng(3)
    return np.linalg.qr(rng.normal(size=(n, 3, 3)))[0]


def tensor_signal(table, rotations):
    tensors = rotations @ np.diag(EVALS) @ rotations.swapaxes(1, 2)
    decay = np.einsum("vi,nij,vj->nv", table.bvecs, tensors, table.bvecs)
    return 500 * np.exp(-table.bvals_s_mm2 * decay)


def test_a_noiseless_tensor_is_recovered_exactly_in_scanner_axes():
    table, rotations = scheme((1000, 30)), frames(24)
    dwi = tensor_signal(table, rotations).reshape(4, 3, 2, -1).astype(np.float32)
    maps = fit_tensor(dwi, table, np.ones((4, 3, 2), dtype=bool))
    mean = EVALS.mean()
    fa = np.sqrt(1.5 * ((EVALS - mean) ** 2).sum() / (EVALS**2).sum())
    np.testing.assert_allclose(maps.fa, fa, atol=1e-4)
    np.testing.assert_allclose(maps.md_mm2_s, mean, rtol=1e-4)
    cosine = np.abs((maps.v1.reshape(-1, 3) * rotations[:, :, 0]).sum(axis=1))
    np.testing.assert_allclose(cosine, 1, atol=1e-5)


def test_shells_beyond_b_1500_are_left_out_where_possible():
    table, rotations = scheme((1000, 20), (3000, 20)), frames(8)
    dwi = tensor_signal(table, rotations)
    dwi[:, table.bvals_s_mm2 > 1500] += 60  # kurtosis and the noise floor
    maps = fit_tensor(dwi.reshape(2, 2, 2, -1), table, np.ones((2, 2, 2), dtype=bool))
    np.testing.assert_allclose(maps.md_mm2_s, EVALS.mean(), rtol=1e-4)
    only_high = GradientTable(np.where(table.bvals_s_mm2 > 0, 3000.0, 0.0), table.bvecs)
    fit_tensor(dwi.reshape(2, 2, 2, -1), only_high, np.ones((2, 2, 2), dtype=bool))


def test_zeros_negatives_and_nan_in_the_data_give_finite_maps():
    table = scheme((1000, 30))
    dwi = tensor_signal(table, frames(8)).reshape(2, 2, 2, -1)
    dwi[0, 0, 0] = 0
    dwi[0, 0, 1] = -5
    dwi[0, 1, 0, ::4] = np.nan
    dwi[0, 1, 1, 3:6] = -1
    dwi[1, 0, 0, :3] = 0
    maps = fit_tensor(dwi, table, np.ones((2, 2, 2), dtype=bool))
    for values in maps:
        assert np.isfinite(values).all()
    assert maps.fa.max() <= 1
    assert maps.fa[0, 0, 0] == maps.fa[0, 0, 1] == 0
    assert maps.fa[1, 1, 1] > 0.5


def test_outside_the_mask_and_in_an_empty_mask_the_maps_are_zero():
    table = scheme((1000, 30))
    dwi = tensor_signal(table, frames(8)).reshape(2, 2, 2, -1)
    mask = np.zeros((2, 2, 2), dtype=bool)
    assert not any(values.any() for values in fit_tensor(dwi, table, mask))
    mask[1, 1, 1] = True
    maps = fit_tensor(dwi, table, mask)
    assert maps.fa[1, 1, 1] > 0.5
    assert all(not values[~mask].any() for values in maps)


def test_a_table_that_does_not_fit_or_suffice_is_refused():
    mask = np.ones((2, 2, 2), dtype=bool)
    with pytest.raises(GradientError, match="9 volumes"):
        fit_tensor(np.ones((2, 2, 2, 9)), scheme((1000, 30)), mask)
    with pytest.raises(GradientError, match="6 directions"):
        fit_tensor(np.ones((2, 2, 2, 8)), scheme((1000, 5)), mask)
