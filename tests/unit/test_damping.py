"""Derivatives that fade or are held along a streamline: kernels, reference, and known values."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tracking_cases import Case, crossing_case

from difftract_bids.config import TrackingConfig
from difftract_bids.core import Streamlines, track
from difftract_bids.errors import ConfigError

PLAIN = TrackingConfig(peak_tolerance=1e-12, min_length_mm=5.0, max_length_mm=40.0)
WINDOW, LIMIT = {"gradient_window_mm": 6.0}, {"gradient_growth_limit": 0.5}


@pytest.fixture(scope="module")
def case() -> Case:
    return crossing_case(100, noise=0.02, random_seed=3)


def by_fodf_and_seeds(
    case: Case, config: TrackingConfig, *, only_ends: bool = False
) -> tuple[Streamlines, torch.Tensor, torch.Tensor]:
    fodf, seeds = (x.clone().requires_grad_() for x in (case.fodf, case.seeds))
    found = track(fodf, seeds, case.starts, case.vox2ras, config)
    generator = torch.Generator().manual_seed(1)
    cotangent = torch.randn(found.points.shape, generator=generator, dtype=found.points.dtype)
    if only_ends:
        ends = torch.zeros(len(cotangent), dtype=torch.bool)
        ends[found.offsets[1:] - 1] = True
        cotangent = cotangent * ends[:, None]
    found.points.backward(cotangent)
    return found, fodf.grad, seeds.grad


@pytest.mark.parametrize("integrator", ["euler", "rk4"])
@pytest.mark.parametrize("damping", [WINDOW, LIMIT, WINDOW | LIMIT])
def test_kernels_damp_as_the_reference_does(case, integrator, damping):
    config = replace(PLAIN, integrator=integrator, **damping)
    _, *kernels = by_fodf_and_seeds(case, config)
    _, *reference = by_fodf_and_seeds(case, replace(config, backend="reference"))
    _, *exact = by_fodf_and_seeds(case, replace(PLAIN, integrator=integrator))
    for one, other, undamped in zip(kernels, reference, exact, strict=True):
        assert (one - other).abs().max() <= 1e-9 * other.abs().max()
        assert (one - undamped).abs().max() > 1e-3 * undamped.abs().max()


def test_damping_moves_no_vertex(case):
    plain, *_ = by_fodf_and_seeds(case, PLAIN)
    damped, *_ = by_fodf_and_seeds(case, replace(PLAIN, **WINDOW, **LIMIT))
    assert torch.equal(plain.points, damped.points)


def test_a_wide_window_and_a_high_limit_are_the_exact_gradient(case):
    _, *exact = by_fodf_and_seeds(case, PLAIN)
    wide = replace(PLAIN, gradient_window_mm=1e12, gradient_growth_limit=1e12)
    for one, other in zip(by_fodf_and_seeds(case, wide)[1:], exact, strict=True):
        assert (one - other).abs().max() <= 1e-9 * other.abs().max()


def test_a_derivative_by_an_end_fades_exponentially_towards_the_seed(case):
    found, _, exact = by_fodf_and_seeds(case, PLAIN, only_ends=True)
    _, _, faded = by_fodf_and_seeds(case, replace(PLAIN, **WINDOW), only_ends=True)
    step_mm = (found.points[1] - found.points[0]).norm()
    steps = found.offsets[1:] - 1 - found.offsets[:-1] - found.seed_vertex
    kept = torch.exp(-steps * step_mm / WINDOW["gradient_window_mm"])
    expected = kept[:, None] * exact[found.seed_index]
    torch.testing.assert_close(faded[found.seed_index], expected, rtol=1e-6, atol=0)


def test_growth_stays_below_its_limit(case):
    plain, *_ = by_fodf_and_seeds(case, PLAIN, only_ends=True)
    held, *_ = by_fodf_and_seeds(case, replace(PLAIN, **LIMIT), only_ends=True)
    assert plain.gradient_report.growth.max() > 2 * LIMIT["gradient_growth_limit"]
    assert held.gradient_report.growth.max() <= LIMIT["gradient_growth_limit"] + 1e-12


@pytest.mark.parametrize("name", ["gradient_window_mm", "gradient_growth_limit"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_damping_that_makes_no_sense_is_refused(name, value):
    with pytest.raises(ConfigError, match=name):
        TrackingConfig(**{name: value})
