import numpy as np
import pytest
from acquisitions import directions, scheme

from difftract_bids.errors import ConfigError, GradientError, InputError
from difftract_bids.io.gradients import GradientTable
from difftract_bids.modelling.fodf import sh_basis, sh_degrees
from difftract_bids.modelling.response import Response, estimate_tissue_responses
from difftract_bids.modelling.response.anisotropy import fit_anisotropy
from difftract_bids.modelling.response.tissues import signal_decay
from difftract_bids.modelling.response.two_tissues import deconvolve_two_tissues
from difftract_bids.modelling.response.voxels import brighter, eroded, top
from difftract_bids.modelling.zonal import zonal_basis

SHAPE = (24, 24, 24)
#: Signal without weighting and diffusivity, 1e-3 mm²/s: white across its fibres, grey, fluid.
WHITE, GREY, FLUID = (500.0, 0.3e-3), (700.0, 0.8e-3), (2000.0, 3e-3)
ALONG = 1.7e-3


def fibre_signal(table, cosine):
    decay = WHITE[1] + (ALONG - WHITE[1]) * cosine**2
    return WHITE[0] * np.exp(-table.bvals_s_mm2 * decay)


def brain(table, noise=2.0):
    """Layers of fluid, grey matter and white matter, half of the white crossing."""
    rng = np.random.default_rng(0)
    one, other = (rng.normal(size=(*SHAPE, 3)) for _ in range(2))
    other = np.cross(one, other)
    one, other = (v / np.linalg.norm(v, axis=-1, keepdims=True) for v in (one, other))
    dwi = fibre_signal(table, one @ table.bvecs.T)
    dwi[16:] = 0.6 * dwi[16:] + 0.4 * fibre_signal(table, other[16:] @ table.bvecs.T)
    dwi[:11] = GREY[0] * np.exp(-table.bvals_s_mm2 * GREY[1])
    dwi[:6] = FLUID[0] * np.exp(-table.bvals_s_mm2 * FLUID[1])
    # Mixtures at the border, as every brain has them.
    dwi[5:7] = dwi[[5, 6]] * 0.5 + dwi[[6, 7]] * 0.5
    return dwi + rng.normal(0, noise, dwi.shape)


def white_response(table, lmax=10):
    nodes, weights = np.polynomial.legendre.leggauss(64)
    bvals = [bval for bval, _ in table.shells()]
    here = GradientTable(np.array(bvals), np.zeros((len(bvals), 3)))
    signal = np.array([fibre_signal(here, cosine) for cosine in nodes])
    return 2 * np.pi * (signal * weights[:, None]).T @ zonal_basis(nodes, lmax)


def isotropic(tissue, bvals):
    return tissue[0] * np.exp(-np.array(bvals) * tissue[1])[:, None] * np.sqrt(4 * np.pi)


@pytest.mark.parametrize("shells", [[(1000, 30), (2500, 60)], [(1000, 60)]])
def test_the_responses_of_three_known_tissues_are_found(shells):
    table = scheme(*shells, n_b0=4)
    responses = estimate_tissue_responses(brain(table), table, np.ones(SHAPE, dtype=bool))
    bvals = (0.0, *(float(bval) for bval, _ in shells))
    assert list(responses) == ["WM", "GM", "CSF"]
    assert {response.bvals_s_mm2 for response in responses.values()} == {bvals}
    np.testing.assert_allclose(responses["GM"].coefficients, isotropic(GREY, bvals), rtol=0.02)
    fluid = isotropic(FLUID, bvals)
    np.testing.assert_allclose(responses["CSF"].coefficients, fluid, rtol=0.03, atol=4.0)
    expected = white_response(table)
    found = responses["WM"].coefficients
    assert found.shape == (len(bvals), 6)
    assert not found[0, 1:].any()
    assert (np.abs(found - expected) <= 0.02 * expected[:, :1]).all()


def test_the_degree_of_the_white_matter_response_can_be_chosen():
    table = scheme((1000, 60), n_b0=4)
    whole = np.ones(SHAPE, dtype=bool)
    assert estimate_tissue_responses(brain(table), table, whole, 6)["WM"].lmax == 6
    with pytest.raises(ConfigError, match="lmax 5"):
        estimate_tissue_responses(brain(table), table, whole, 5)


def test_data_without_three_tissues_are_refused():
    table = scheme((1000, 30), n_b0=4)
    whole = np.ones((9, 9, 9), dtype=bool)
    rng = np.random.default_rng(0)
    fluid = 100 * np.exp(-table.bvals_s_mm2 * 1e-3) + rng.normal(0, 0.5, (9, 9, 9, 34))
    with pytest.raises(InputError, match="0 of 729 voxels have an anisotropy"):
        estimate_tissue_responses(fluid, table, whole)
    with pytest.raises(InputError, match="In no voxel"):
        estimate_tissue_responses(fluid[..., ::-1], table, whole)
    with pytest.raises(InputError, match="Only 0 of 729"):
        estimate_tissue_responses(np.full_like(fluid, np.nan), table, whole)
    only_b0 = GradientTable(np.zeros(34), np.zeros((34, 3)))
    with pytest.raises(GradientError, match="no diffusion-weighted"):
        estimate_tissue_responses(fluid, only_b0, whole)


def test_fluid_that_does_not_decay_fastest_is_told_of():
    """Swapped shells: what decays most on average has most signal left at the largest b-value."""
    table = scheme((1000, 60), (2500, 6), n_b0=4)
    dwi = brain(table)
    dwi[:6, ..., -6:] = 1500.0
    with pytest.warns(UserWarning, match="CSF does not decay fastest"):
        estimate_tissue_responses(dwi, table, np.ones(SHAPE, dtype=bool))


def test_a_division_correlates_with_the_values_as_well_as_any_threshold():
    rng = np.random.default_rng(3)
    value = np.concatenate([rng.normal(0, 1, 200), rng.normal(4, 1, 50)])
    larger = brighter(value)
    assert value[larger].min() > value[~larger].max()
    best = max(np.corrcoef(value, value >= cut)[0, 1] for cut in np.sort(value)[1:])
    assert np.corrcoef(value, larger)[0, 1] == pytest.approx(best, abs=1e-12)
    assert brighter(np.ones(3)).all()


def test_the_largest_are_chosen_and_masks_are_eroded_as_far_as_they_bear():
    np.testing.assert_array_equal(top(np.array([1.0, 3, 2, 3]), 2), [False, True, False, True])
    mask = np.zeros((9, 9, 9), dtype=bool)
    mask[1:8, 1:8, 1:8] = True
    assert eroded(mask, 3).sum() == 1
    assert eroded(mask, 3, least=20).sum() == 27
    assert eroded(mask, 3, least=1000).sum() == 343


def test_anisotropy_and_direction_of_a_tensor_are_exact_without_noise():
    table = scheme((1000, 30), (2500, 30), n_b0=2)
    fibres = directions(7)
    anisotropy = fit_anisotropy(fibre_signal(table, fibres @ table.bvecs.T), table)
    spread = (ALONG - WHITE[1]) / np.sqrt(ALONG**2 + 2 * WHITE[1] ** 2)
    np.testing.assert_allclose(anisotropy.fa, spread, rtol=1e-6)
    cosine = np.abs((anisotropy.direction * fibres).sum(axis=1))
    np.testing.assert_allclose(cosine, 1, atol=1e-9)


def test_the_decay_weighs_each_volume_alike_and_is_bounded():
    table = scheme((1000, 10), (2000, 30), n_b0=2)
    fluid = np.exp(-table.bvals_s_mm2 * 1e-3)[None]
    np.testing.assert_allclose(signal_decay(fluid, table), (10 * 1 + 30 * 2) / 40)
    np.testing.assert_allclose(signal_decay(fluid**20, table), 10.0)


def test_fibres_and_fluid_are_told_apart():
    table = scheme((1000, 30), (2500, 60), n_b0=6)
    bvals = tuple(bval for bval, _ in table.shells())
    white, fluid = Response(bvals, white_response(table)), Response(bvals, isotropic(FLUID, bvals))
    degree = sh_degrees(6)
    fodf = np.stack([sh_basis(axis[None], 6)[0] for axis in directions(8)])
    fodf = 0.8 * fodf * np.exp(-0.1 * degree * (degree + 1))
    signal = np.zeros((8, len(table.bvecs)))
    for shell, (bval, volumes) in enumerate(table.shell_volumes()):
        gain = np.sqrt(4 * np.pi / (2 * degree + 1)) * white.coefficients[shell][degree // 2]
        bvecs = table.bvecs[volumes] if bval > 0 else np.tile([0.0, 0, 1], (volumes.sum(), 1))
        signal[:, volumes] = (fodf * gain) @ sh_basis(bvecs, 6).T
        signal[:, volumes] += 0.05 * fluid.coefficients[shell, 0]
    found, amount = deconvolve_two_tissues(signal, table, white, fluid, 6)
    np.testing.assert_allclose(found, fodf, atol=1e-5)
    np.testing.assert_allclose(amount, 0.05, atol=1e-5)
