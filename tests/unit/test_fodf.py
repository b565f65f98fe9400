import numpy as np
import pytest
from acquisitions import directions, scheme
from dipy.data import get_sphere
from scipy.spatial.transform import Rotation

from difftract_bids.errors import ConfigError, GradientError, InputError
from difftract_bids.io.gradients import (
    GradientTable,
    deconvolution_shell,
    read_gradients,
    to_fsl_bvecs,
)
from difftract_bids.modelling.fodf import (
    choose_lmax,
    deconvolve,
    fit,
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
    responses = {"WM": response_of(2500.0, s0=600.0)}
    one = np.ones((1, 1, 1), dtype=bool)
    fodf = fit(signal[None, None, None], read_back, responses, one, model="csd").sh_coeffs["WM"]
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


def tissue_responses(lmax=8):
    """Responses of a cylinder, of grey matter and of fluid on the shells of `tissue_signal`."""
    bvals = (0.0, 1000.0, 2500.0)
    white = np.concatenate([response_of(b, lmax).coefficients[1:] for b in bvals])
    root = np.sqrt(4 * np.pi)
    grey = [[1.2 * root * np.exp(-b * 0.8e-3)] for b in bvals]
    fluid = [[3 * root * np.exp(-b * 3e-3)] for b in bvals]
    return {
        "WM": Response(bvals, white),
        "GM": Response(bvals, np.array(grey)),
        "CSF": Response(bvals, np.array(fluid)),
    }


def tissue_signal(table, share):
    fibre = decay(table.bvals_s_mm2, table.bvecs @ directions(9)[3])
    grey, fluid = (np.exp(-table.bvals_s_mm2 * d) for d in (0.8e-3, 3e-3))
    return share[..., :1] * fibre + share[..., 1:2] * 1.2 * grey + share[..., 2:] * 3 * fluid


def test_voxels_without_a_usable_signal_are_zero_and_counted_by_reason():
    table = scheme((1000, 50), n_b0=2)
    dwi = np.ones((3, 2, 2, 52)) * decay(table.bvals_s_mm2, table.bvecs @ [0, 0, 1.0])
    dwi[0, 0, 0] = np.nan
    dwi[0, 0, 1] = 0
    dwi[0, 1, 0, 4] = np.inf
    dwi[0, 1, 1] = 7.5
    dwi[1, 0, 0, :2] = -1
    dwi[1, 0, 1, 6] = -1
    mask = np.ones((3, 2, 2), dtype=bool)
    mask[2] = False
    fitted = fit(dwi, table, {"WM": response_of(1000.0)}, mask, model="csd")
    fodf = fitted.sh_coeffs["WM"]
    assert fodf.dtype == np.float32
    assert np.isfinite(fodf).all()
    assert fitted.left_out == {
        "not finite": 2, "without signal": 1, "b=0 not positive": 1, "constant": 1
    }  # fmt: skip
    there = fodf.any(axis=-1)
    assert there.sum() == 3
    assert there[1, 0, 1]  # one negative value is noise, and counts as 0
    with pytest.raises(InputError, match=r"None of the 1 voxels .* 1 not finite"):
        fit(dwi, table, {"WM": response_of(1000.0)}, np.isnan(dwi[..., 0]), model="csd")


def test_only_the_chosen_shell_enters_the_fit():
    table = scheme((1000, 30), (2000, 60), n_b0=2)
    fibre = directions(9)[3]
    dwi = decay(table.bvals_s_mm2, table.bvecs @ fibre)[None, None, None]
    mask, responses = np.ones((1, 1, 1), dtype=bool), {"WM": response_of(2000.0)}
    expected = fit(dwi, table, responses, mask, model="csd").sh_coeffs["WM"]
    spoilt = np.where((table.bvals_s_mm2 < 1500) & ~table.b0_mask, 0.123, dwi)
    found = fit(spoilt, table, responses, mask, model="csd").sh_coeffs["WM"]
    np.testing.assert_array_equal(found, expected)


def test_several_tissues_share_the_signal_out():
    table = scheme((1000, 60), (2500, 60), n_b0=6)
    share = np.random.default_rng(0).dirichlet([1, 1, 1], size=(4, 3, 2))
    mask = np.ones((4, 3, 2), dtype=bool)
    responses = tissue_responses()
    fitted = fit(tissue_signal(table, share), table, responses, mask, model="msmtcsd")
    assert list(fitted.sh_coeffs) == ["WM", "GM", "CSF"]
    assert [part.shape[-1] for part in fitted.sh_coeffs.values()] == [45, 1, 1]
    fluid = fitted.sh_coeffs["CSF"][..., 0] * np.sqrt(4 * np.pi)
    np.testing.assert_allclose(fluid, share[..., 2], atol=0.02)
    total = sum(part[..., 0] for part in fitted.sh_coeffs.values()) * np.sqrt(4 * np.pi)
    np.testing.assert_allclose(total, 1, atol=0.05)


def test_one_shell_and_b0_tell_two_tissues_apart():
    table = scheme((1000, 30), (2500, 60), n_b0=6)
    share = np.random.default_rng(0).dirichlet([1, 1, 1], size=(4, 3, 2))
    share[..., 1] = 0
    mask = np.ones((4, 3, 2), dtype=bool)
    dwi = tissue_signal(table, share)
    dwi[..., np.abs(table.bvals_s_mm2 - 1000) < 1] = np.nan  # the other shell is not looked at
    found = fit(np.nan_to_num(dwi), table, tissue_responses(), mask, model="ss2t").sh_coeffs
    assert list(found) == ["WM", "CSF"]
    # An fODF that may not be negative cannot be as sharp as one fibre: its mean is a little more.
    for tissue, column, tolerance in (("WM", 0, 0.05), ("CSF", 2, 0.02)):
        fraction = found[tissue][..., 0] * np.sqrt(4 * np.pi)
        np.testing.assert_allclose(fraction, share[..., column], atol=tolerance)


def test_b_values_with_jitter_belong_to_their_shell():
    exact = scheme((1000, 40), (2500, 60), n_b0=6)
    jitter = np.random.default_rng(0).normal(0, 12, len(exact.bvals_s_mm2))
    table = GradientTable(np.clip(exact.bvals_s_mm2 + jitter, 0, None), exact.bvecs)
    assert [count for _, count in table.shells()] == [6, 40, 60]
    share = np.full((1, 1, 1, 3), 1 / 3)
    mask, responses = np.ones((1, 1, 1), dtype=bool), tissue_responses()
    dwi = tissue_signal(exact, share)
    expected, found = (
        fit(dwi, which, responses, mask, model="msmtcsd").sh_coeffs["WM"]
        for which in (exact, table)
    )
    np.testing.assert_array_equal(found, expected)


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


def test_the_default_lmax_is_8_and_too_few_directions_are_told_of():
    assert choose_lmax(response_of(1000.0, 10), None) == 8
    assert choose_lmax(response_of(1000.0, 6), None) == 6
    assert choose_lmax(response_of(1000.0, 6), 10) == 10
    table = scheme((1000, 30), n_b0=2)
    dwi = decay(table.bvals_s_mm2, table.bvecs @ [0, 0, 1.0])[None, None, None]
    fitted = fit(dwi, table, {"WM": response_of(1000.0)}, np.ones((1, 1, 1), bool), model="csd")
    assert fitted.lmax == 8
    assert "30 directions for 45 coefficients" in fitted.notes[0]


def test_what_cannot_be_fitted_is_refused():
    table, mask = scheme((1000, 30), n_b0=2), np.ones((2, 2, 2), dtype=bool)
    dwi, responses = np.random.default_rng(0).random((2, 2, 2, 32)), {"WM": response_of(1000.0)}
    for lmax in (3, 14):
        with pytest.raises(ConfigError, match=f"lmax is {lmax}"):
            fit(dwi, table, responses, mask, model="csd", lmax=lmax)
    with pytest.raises(GradientError, match="31 volumes"):
        fit(dwi[..., 1:], table, responses, mask, model="csd")
    with pytest.raises(GradientError, match="b=1000: 5"):
        deconvolution_shell(scheme((1000, 5), n_b0=2))
    with pytest.raises(InputError, match="mean signals down to 0"):
        deconvolve(dwi[0, 0, :, 2:], table.bvecs[2:], np.zeros(5), 6)
    with pytest.raises(InputError, match=r"mask has the shape \(2, 2, 1\)"):
        fit(dwi, table, responses, mask[..., :1], model="csd")
    with pytest.raises(GradientError, match=r"2 b-values \(0, 1000 s/mm²\) cannot tell 3"):
        fit(dwi, table, tissue_responses(), mask, model="msmtcsd")
    with pytest.raises(ConfigError, match="needs the response of CSF"):
        fit(dwi, table, responses, mask, model="ss2t")
    with pytest.raises(GradientError, match="shells 0, 2000; the data have b = 1000"):
        fit(dwi, table, {"WM": response_of(2000.0)}, mask, model="csd")
