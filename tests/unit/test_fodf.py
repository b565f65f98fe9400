import numpy as np
import pytest
from acquisitions import directions, scheme
from dipy.data import get_sphere
from scipy.spatial.transform import Rotation

from difftract_bids.errors import ConfigError, GradientError, InputError
from difftract_bids.io.gradients import read_gradients, to_fsl_bvecs
from difftract_bids.modelling.fodf import (
    deconvolution_shell,
    deconvolve,
    default_lmax,
    fit_fodf,
    sh_basis,
    sh_degrees,
)
from difftract_bids.modelling.zonal import Response, zonal_basis

EVALS = np.array([1.7e-3, 0.3e-3, 0.3e-3])


def decay(bval, cosine):
    return np.exp(-bval * (EVALS[1] + (EVALS[0] - EVALS[1]) * cosine**2))


def response_of(bval, lmax=8, s0=1.0):
    nodes, weights = np.polynomial.legendre.leggauss(64)
    row = 2 * np.pi * s0 * (weights * decay(bval, nodes)) @ zonal_basis(nodes, lmax)
    b0 = np.zeros_like(row)
    b0[0] = s0 * np.sqrt(4 * np.pi)
    return Response((0.0, bval), np.stack([b0, row]))


def peak_directions(coefficients, lmax, count):
    """Return the largest local maxima, by steepest ascent on a fine grid around each."""
    coarse = get_sphere(name="repulsion724").vertices
    found = []
    remaining = sh_basis(coarse, lmax) @ coefficients
    for _ in range(count):
        best = coarse[np.argmax(remaining)]
        rng = np.random.default_rng(0)
        for spread in (0.1, 0.03, 0.01, 0.003):
            near = best + rng.normal(0, spread, size=(400, 3))
            near = np.vstack([best, near / np.linalg.norm(near, axis=1, keepdims=True)])
            best = near[np.argmax(sh_basis(near, lmax) @ coefficients)]
        found.append(best)
        remaining[np.abs(coarse @ best) > np.cos(np.radians(35))] = -np.inf
    return np.array(found)


def angles_deg(found, truth):
    cosine = np.abs(found @ truth.T).max(axis=0)
    return np.degrees(np.arccos(np.clip(cosine, 0, 1)))


def test_the_basis_is_that_of_mrtrix():
    x, y, z = unit = np.array([0.36, 0.48, 0.8])
    expected = [
        np.sqrt(1 / (4 * np.pi)),
        np.sqrt(15 / (4 * np.pi)) * x * y,
        -np.sqrt(15 / (4 * np.pi)) * y * z,
        np.sqrt(5 / (16 * np.pi)) * (3 * z**2 - 1),
        -np.sqrt(15 / (4 * np.pi)) * x * z,
        np.sqrt(15 / (16 * np.pi)) * (x**2 - y**2),
    ]
    np.testing.assert_allclose(sh_basis(unit[None], 2)[0], expected, atol=1e-12)
    np.testing.assert_array_equal(sh_degrees(4), [0] + [2] * 5 + [4] * 9)


def test_a_voxel_equal_to_the_response_has_an_fodf_of_integral_one():
    response, bvecs, fibre = response_of(3000.0, s0=700.0), directions(90), directions(3)[1]
    signal = zonal_basis(bvecs @ fibre, 8) @ response.deconvolved
    fodf = deconvolve(signal[None], bvecs, response.deconvolved, 8)[0]
    assert fodf[0] == pytest.approx(1 / np.sqrt(4 * np.pi), rel=0.02)
    assert angles_deg(peak_directions(fodf, 8, 1), fibre[None])[0] < 1.0


def test_crossing_fibres_are_found_in_scanner_axes_with_an_oblique_affine(tmp_path):
    vox2ras = np.eye(4)
    vox2ras[:3, :3] = Rotation.from_euler("xyz", [20, -35, 50], degrees=True).as_matrix()
    vox2ras[:3, :3] *= [-2.0, 2.5, 3.0]
    table = scheme((2500, 64), n_b0=2)
    np.savetxt(tmp_path / "bvec", to_fsl_bvecs(table.bvecs, vox2ras))
    np.savetxt(tmp_path / "bval", table.bvals_s_mm2[None])
    fibres = np.array([[0.8, 0.6, 0.0], [0.36, -0.48, 0.8]])
    signal = 600 * decay(table.bvals_s_mm2, fibres @ table.bvecs.T).mean(axis=0)
    read_back = read_gradients(tmp_path / "bval", tmp_path / "bvec", vox2ras)
    fodf = fit_fodf(
        signal[None, None, None],
        read_back,
        response_of(2500.0, s0=600.0),
        np.ones((1, 1, 1), dtype=bool),
    )
    assert fodf.shape == (1, 1, 1, 45)
    assert fodf.dtype == np.float32
    assert angles_deg(peak_directions(fodf[0, 0, 0], 8, 2), fibres).max() < 2.0


def test_the_fodf_is_not_negative_to_speak_of_even_with_noise():
    rng = np.random.default_rng(0)
    bvecs = directions(64)
    fibres = directions(30)
    signal = 300 * decay(1000.0, fibres @ bvecs.T) + rng.normal(0, 15, size=(30, 64))
    response = response_of(1000.0, s0=300.0).deconvolved
    amplitude = deconvolve(signal, bvecs, response, 8) @ sh_basis(directions(300), 8).T
    assert (amplitude.min(axis=1) > -0.1 * amplitude.max(axis=1)).all()
    # Truncation alone, without the constraint, rings far deeper.
    gain = np.sqrt(4 * np.pi / (2 * sh_degrees(8) + 1)) * response[sh_degrees(8) // 2]
    free = np.linalg.lstsq(sh_basis(bvecs, 8) * gain, signal.T, rcond=None)[0].T
    free = free @ sh_basis(directions(300), 8).T
    assert np.median(free.min(axis=1) / free.max(axis=1)) < -0.3


def test_fodf_turns_with_the_fibre_and_scales_with_the_signal():
    bvecs, response = directions(60), response_of(2000.0).deconvolved
    signal = decay(2000.0, directions(5) @ bvecs.T)
    fodf = deconvolve(signal, bvecs, response, 6)
    np.testing.assert_allclose(deconvolve(3 * signal, bvecs, response, 6), 3 * fodf, rtol=1e-6)
    turn = Rotation.from_rotvec([0.4, -0.9, 0.2]).as_matrix()
    turned = deconvolve(signal, bvecs @ turn.T, response, 6)
    points = directions(40)
    np.testing.assert_allclose(
        turned @ sh_basis(points @ turn.T, 6).T,
        fodf @ sh_basis(points, 6).T,
        atol=0.05 * np.abs(fodf @ sh_basis(points, 6).T).max(),
    )


def test_more_coefficients_than_directions_can_still_be_fitted():
    bvecs, fibre = directions(32), directions(9)[4:5]
    fodf = deconvolve(decay(3000.0, fibre @ bvecs.T), bvecs, response_of(3000.0).deconvolved, 8)
    assert angles_deg(peak_directions(fodf[0], 8, 1), fibre)[0] < 2.0


def test_bad_values_and_voxels_outside_the_mask_are_zero():
    table = scheme((1000, 30), n_b0=2)
    dwi = np.ones((2, 2, 2, 32)) * decay(table.bvals_s_mm2, table.bvecs @ [0, 0, 1.0])
    dwi[0, 0, 0] = np.nan
    dwi[0, 0, 1] = 0
    dwi[0, 1, 0, 4] = np.inf
    mask = np.ones((2, 2, 2), dtype=bool)
    mask[1] = False
    fodf = fit_fodf(dwi, table, response_of(1000.0), mask)
    assert fodf.shape[-1] == 28
    assert np.isfinite(fodf).all()
    assert not fodf[~mask].any()
    assert not fodf[0, 0].any()
    assert fodf[0, 1, 0].any()
    assert fodf[0, 1, 1].any()


def test_only_the_chosen_shell_enters_the_fit():
    table = scheme((1000, 30), (2000, 60), n_b0=2)
    fibre = directions(9)[3]
    dwi = decay(table.bvals_s_mm2, table.bvecs @ fibre)[None, None, None]
    mask, response = np.ones((1, 1, 1), dtype=bool), response_of(2000.0)
    expected = fit_fodf(dwi, table, response, mask)
    spoilt = np.where(table.bvals_s_mm2 < 1500, 0.123, dwi)
    np.testing.assert_array_equal(fit_fodf(spoilt, table, response, mask), expected)


@pytest.mark.parametrize(
    ("shells", "expected"),
    [
        ([(1000, 64)], (1000, 64)),
        ([(700, 30), (1000, 30), (2500, 64)], (2500, 64)),
        ([(300, 8), (1000, 30), (2000, 7)], (1000, 30)),
        ([(400, 12)], (400, 12)),
    ],
)
def test_the_largest_shell_with_enough_directions_is_deconvolved(shells, expected):
    bval, volumes = deconvolution_shell(scheme(*shells, n_b0=2))
    assert (bval, volumes.sum()) == expected
    assert (scheme(*shells, n_b0=2).bvals_s_mm2[volumes] == bval).all()


def test_the_default_lmax_follows_the_number_of_directions():
    assert [default_lmax(n) for n in (6, 14, 15, 28, 32, 44, 45, 90)] == [2, 2, 4, 6, 6, 6, 8, 8]
    with pytest.raises(GradientError, match="5 directions"):
        default_lmax(5)


def test_what_cannot_be_fitted_is_refused():
    table, mask = scheme((1000, 30), n_b0=2), np.ones((2, 2, 2), dtype=bool)
    dwi = np.ones((2, 2, 2, 32))
    for lmax in (3, 10):
        with pytest.raises(ConfigError, match=f"lmax {lmax}"):
            fit_fodf(dwi, table, response_of(1000.0), mask, lmax)
    with pytest.raises(GradientError, match="31 volumes"):
        fit_fodf(dwi[..., 1:], table, response_of(1000.0), mask)
    with pytest.raises(GradientError, match="b=1000: 5"):
        deconvolution_shell(scheme((1000, 5), n_b0=2))
    with pytest.raises(InputError, match="must be positive"):
        deconvolve(dwi[0, 0, :, 2:], table.bvecs[2:], np.zeros(5), 6)
