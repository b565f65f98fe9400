"""Weights make the density of streamlines that of the fODFs."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from problems import scaling, sharp_sh

from difftract_bids.config.weights import SIFT2Config
from difftract_bids.core.kernels.weights import FitRules
from difftract_bids.core.sift2 import (
    Fixels,
    Visits,
    fit_streamline_weights,
    map_streamlines,
    segment_fodf,
)
from difftract_bids.core.sift2.line_search import FixelState, line_cost, rows_of
from difftract_bids.errors import InputError

X, Y, Z = torch.eye(3, dtype=torch.float64)
AFFINE = scaling(2.0)
FREE = SIFT2Config(sift2_total_variation=0.0, sift2_min_cost_decrease=0.0, sift2_min_iterations=50)


def fixels_of(density, importance=None):
    """Fixels that are nowhere: enough for a fit."""
    density = torch.as_tensor(density, dtype=torch.float64)
    place = torch.zeros(1, 1, 1, dtype=torch.int32)
    importance = torch.ones_like(density) if importance is None else importance
    return Fixels(density, importance, place, place.byte(), place, torch.zeros(0, 1281).byte())


def random_problem(n_streamlines=300, n_fixels=120, seed=0):
    """Streamlines through random fixels, some of which are none's and some of only one."""
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(1, 25, (n_streamlines,), generator=generator)
    counts[7] = 0
    fixel = [torch.randperm(n_fixels - 5, generator=generator)[:count] for count in counts]
    length = 0.1 + torch.rand(int(counts.sum()), generator=generator)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    density = 0.2 + torch.rand(n_fixels, generator=generator, dtype=torch.float64) ** 3
    importance = 0.5 + 0.5 * torch.rand(n_fixels, generator=generator, dtype=torch.float64)
    return Visits(torch.cat(fixel).int(), length, offsets), fixels_of(density, importance)


def crossing(n_along_x, n_along_y, *, strengths=(1.0, 0.6)):
    """Bundles along x and y that cross in the middle of a cross, and their streamlines."""
    fodf = torch.zeros(12, 12, 3, 45)
    fodf[:, 4:8] += strengths[0] * sharp_sh(X).float()
    fodf[4:8] += strengths[1] * sharp_sh(Y).float()
    across = torch.linspace(3.6, 7.4, 20, dtype=torch.float64)
    lines = []
    for n, along in ((n_along_x, 0), (n_along_y, 1)):
        for i in range(n):
            line = torch.zeros(2, 3, dtype=torch.float64)
            line[:, along] = torch.tensor([-0.4, 11.4])
            line[:, 1 - along] = across[i % 20]
            line[:, 2] = (i // 20) % 3
            lines.append(2 * line)
    offsets = torch.arange(0, 2 * len(lines) + 1, 2)
    fixels = segment_fodf(fodf)
    return map_streamlines(torch.cat(lines), offsets, fixels, AFFINE), fixels


@pytest.mark.parametrize("strengths", [(1.0, 0.6), (0.5, 0.9)])
def test_bundles_get_the_weight_of_their_fodfs_whatever_their_streamlines(strengths):
    n_x, n_y = 600, 60
    visits, fixels = crossing(n_x, n_y, strengths=strengths)
    fit = fit_streamline_weights(visits, fixels)
    ratio = float(fit.weights[:n_x].sum() / fit.weights[n_x:].sum())
    # Of the counts it is ten.
    assert ratio == pytest.approx(strengths[0] / strengths[1], rel=0.05)
    tracked = fit.density_before > 0
    apart = (fit.density_after - fixels.density).abs() / fixels.density
    assert apart[tracked].median() < 0.2
    assert fit.cost[-1].total < 0.1 * fit.cost[0].total


def test_without_regularisation_densities_are_met_exactly():
    counts = torch.tensor([1, 3, 2, 4])
    visits = Visits(
        torch.repeat_interleave(torch.arange(4), counts).int(),
        torch.full((10,), 2.0),
        torch.arange(11),
    )
    density = torch.tensor([0.5, 1.0, 0.3, 2.0], dtype=torch.float64)
    fit = fit_streamline_weights(visits, fixels_of(density), FREE)
    assert fit.mu == pytest.approx(3.8 / 20)
    torch.testing.assert_close(fit.density_after, density, rtol=1e-6, atol=0)
    expected = (density / (fit.mu * 2 * counts)).repeat_interleave(counts)
    torch.testing.assert_close(fit.weights, expected, rtol=1e-6, atol=0)


def test_mu_makes_densities_equal_on_the_whole():
    visits, fixels = random_problem()
    fit = fit_streamline_weights(visits, fixels)
    importance = fixels.importance
    before = (importance * fit.density_before).sum()
    assert before == pytest.approx((importance * fixels.density).sum())


def test_regularisation_keeps_weights_together():
    visits, fixels = random_problem()

    def spread(**settings):
        fit = fit_streamline_weights(visits, fixels, SIFT2Config(**settings))
        return float(fit.coefficients[fit.weights > 0].std())

    loose, usual = spread(sift2_total_variation=0.0), spread()
    assert spread(sift2_total_variation=100.0) < 0.2 * usual < 0.2 * loose
    fit = fit_streamline_weights(visits, fixels, SIFT2Config(sift2_tikhonov=1e4))
    torch.testing.assert_close(
        fit.weights[fit.weights > 0], torch.ones(299, dtype=torch.float64), rtol=0, atol=1e-2
    )


@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_derivatives_along_lines_are_those_of_finite_differences(ridge):
    visits, fixels = random_problem(60, 40)
    generator = torch.Generator().manual_seed(1)
    length = torch.zeros(40, dtype=torch.float64)
    length.index_add_(0, visits.fixel.long(), visits.length_mm.double())
    state = FixelState(
        *(fixels.density, fixels.importance, length.clamp(min=1)),
        length_now_mm=length * torch.rand(40, generator=generator, dtype=torch.float64),
        mean=torch.randn(40, generator=generator, dtype=torch.float64),
        takes_part=torch.rand(40, generator=generator) > 0.2,
    )
    rows = rows_of(visits, fixels.importance)
    rules = FitRules(0.05, ridge, 0.7, 1.0, math.inf, 1e-3, 100)
    at = torch.randn(60, generator=generator, dtype=torch.float64)
    change = 0.3 * torch.randn(60, generator=generator, dtype=torch.float64)
    step = 1e-5

    def cost(by):
        return line_cost(rows, state, rules, at, change + by)

    first = (cost(step).cost - cost(-step).cost) / (2 * step)
    second = (cost(step).first - cost(-step).first) / (2 * step)
    torch.testing.assert_close(cost(0.0).first, first, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(cost(0.0).second, second, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"sift2_tikhonov": 0.2, "sift2_max_step": 0.3},
        {"sift2_max_weight": 1.5, "sift2_min_streamlines": 20},
    ],
)
def test_kernels_do_what_pytorch_does(settings):
    visits, fixels = random_problem(seed=4)
    config = SIFT2Config(**settings)
    ours = fit_streamline_weights(visits, fixels, config)
    reference = fit_streamline_weights(visits, fixels, config, reference=True)
    assert ours.n_iterations == reference.n_iterations
    assert ours.cost[1].total_variation > 0
    torch.testing.assert_close(ours.weights, reference.weights, rtol=1e-9, atol=0)
    for one, other in zip(ours.cost, reference.cost, strict=True):
        assert one == pytest.approx(other, rel=1e-9)


def test_a_fit_goes_downhill():
    """The gradient of the cost itself, by automatic differentiation, all but vanishes."""
    visits, fixels = random_problem(seed=2)
    row = torch.repeat_interleave(torch.arange(300), visits.offsets.diff())

    def gradient(fit, coefficients):
        coefficients = coefficients.clone().requires_grad_()
        length = torch.zeros_like(fixels.density)
        part = visits.length_mm.double() * coefficients.exp()[row]
        length = length.index_add(0, visits.fixel.long(), part)
        misfit = fixels.importance * (fit.mu * length - fixels.density) ** 2
        misfit[fit.takes_part].sum().backward()
        return float(coefficients.grad.norm())

    fit = fit_streamline_weights(visits, fixels, FREE)
    inside = fit.weights > 0
    final = torch.where(inside, fit.coefficients, 0.0)
    assert fit.cost[-1].data < 0.6 * fit.cost[0].data
    assert gradient(fit, final) < 0.05 * gradient(fit, torch.zeros_like(final))


def test_threads_and_their_number_change_nothing():
    visits, fixels = random_problem(3000, 400)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = fit_streamline_weights(visits, fixels)
        torch.set_num_threads(3)
        three = fit_streamline_weights(visits, fixels)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(one.weights, three.weights)


def test_streamlines_in_no_fixel_weigh_nothing():
    visits, fixels = random_problem()
    fit = fit_streamline_weights(visits, fixels)
    assert fit.weights[7] == 0
    assert fit.coefficients[7] == -math.inf
    assert fit.n_outside == 1


def test_fixels_of_which_streamlines_make_up_little_take_no_part():
    visits, fixels = random_problem()
    fixels.density[0] = 1000.0
    config = SIFT2Config(sift2_min_streamlines=2)
    fit = fit_streamline_weights(visits, fixels, config)
    share = fit.density_before / fixels.density
    assert not fit.takes_part[0]
    assert torch.equal(fit.takes_part[115:], torch.zeros(5, dtype=torch.bool))
    assert (share[fit.takes_part] >= 0.1).all()
    # The cost holds all of them.
    misfit = (fixels.importance * (fit.density_after - fixels.density) ** 2).sum()
    assert fit.cost[-1].data == pytest.approx(float(misfit))


def test_streamlines_in_fixels_that_take_no_part_keep_their_weight():
    visits = Visits(torch.tensor([0, 0, 1]).int(), torch.ones(3), torch.arange(4))
    config = SIFT2Config(sift2_min_streamlines=2)
    fit = fit_streamline_weights(visits, fixels_of([1.0, 3.0]), config)
    assert fit.weights[2] == 1
    assert fit.weights[0] == fit.weights[1] < 1


def test_the_fit_ends_when_it_is_told_to():
    visits, fixels = random_problem()
    short = SIFT2Config(sift2_max_iterations=3, sift2_min_iterations=0)
    fit = fit_streamline_weights(visits, fixels, short)
    assert fit.n_iterations == 3
    assert not fit.converged
    usual = fit_streamline_weights(visits, fixels)
    assert usual.converged
    assert usual.n_iterations >= 10
    falls = usual.cost[-2].total - usual.cost[-1].total
    assert falls <= 2.5e-5 * usual.cost[0].data
    once = dataclasses.replace(short, sift2_max_step=0.25, sift2_max_iterations=1)
    moved = fit_streamline_weights(visits, fixels, once).coefficients
    assert moved[moved > -math.inf].abs().max() == 0.25


def test_no_weight_is_above_the_largest_allowed():
    visits, fixels = random_problem()
    assert fit_streamline_weights(visits, fixels).weights.max() > 1.5
    fit = fit_streamline_weights(visits, fixels, SIFT2Config(sift2_max_weight=1.2))
    assert fit.weights.max() == pytest.approx(1.2)


def test_an_empty_tractogram_cannot_be_weighed():
    _, fixels = random_problem()
    with pytest.raises(InputError, match="tractogram is empty"):
        fit_streamline_weights(Visits.joined([]), fixels)


def test_streamlines_beside_the_image_cannot_be_weighed():
    _, fixels = crossing(1, 0)
    far = torch.tensor([[500.0, 0, 0], [520.0, 0, 0]])
    visits = map_streamlines(far, torch.tensor([0, 2]), fixels, AFFINE)
    with pytest.raises(InputError, match="None of 1 streamlines runs through a voxel"):
        fit_streamline_weights(visits, fixels)
