"""The kernels on an NVIDIA GPU: the processor's streamlines and gradients, and how fast."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from problems import crossing_bundles, oblique
from tracking_cases import (
    INTEGRATORS,
    REGION_NAMES,
    Case,
    agreement,
    anatomy_of,
    crossing_case,
    filled_case,
    regions_of,
    relative_error,
    weights_of,
    with_gradients,
)

from difftract_bids.core import SeedStatus, StopReason, TrackingConfig, random_seeds
from difftract_bids.core.survival import soft_survival
from difftract_bids.errors import ConfigError, DerivativeError, SeedError


def _reason_to_skip() -> str:
    """Say why the kernels cannot run on a GPU here; empty if they can."""
    if not torch.cuda.is_available():
        return "PyTorch sees no NVIDIA GPU"
    try:
        from numba import cuda

        if not cuda.is_available():
            return "numba sees no NVIDIA GPU: install difftract-bids[cuda]"
    except Exception as error:  # noqa: BLE001 - drivers fail in many ways
        return f"numba cannot use the GPU: {error}"
    return ""


REASON = _reason_to_skip()
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(bool(REASON), reason=REASON),
    # A tiny launch fills no GPU, and numba says so.
    pytest.mark.filterwarnings("ignore:.*[Gg]rid size"),
    pytest.mark.filterwarnings("ignore:.*under-utili"),
]
both_types = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])
SHARE, DISTANCE_MM = 0.999, 0.01


def config_of(backend: str, **settings) -> TrackingConfig:
    defaults = {"min_length_mm": 2.0, "max_length_mm": 25.0}
    return TrackingConfig(backend=backend, **(defaults | settings))


def compare(case: Case, dtype: torch.dtype, regions=None, anatomy=None, **settings):
    here = case.to(dtype)
    there = here.to("cuda")
    slow = here.track(config_of("cpu", **settings), regions, anatomy)
    fast = there.track(config_of("cuda", **settings), regions, anatomy)
    assert fast.points.is_cuda
    assert fast.points.dtype == dtype
    found = agreement(fast, slow)
    assert found.seeds >= SHARE
    assert found.streamlines >= SHARE
    assert (found.distances_mm < DISTANCE_MM).mean() >= SHARE
    if dtype == torch.float64:
        assert found.distances_mm.max() < 1e-8
    return fast


@both_types
@pytest.mark.parametrize("integrator", INTEGRATORS)
def test_streamlines_are_the_processors(dtype, integrator):
    result = compare(crossing_case(4000), dtype, integrator=integrator)
    assert len(result) > 1000


@both_types
@pytest.mark.parametrize("regions", REGION_NAMES)
def test_streamlines_with_regions_are_the_processors(dtype, regions):
    case = crossing_case(2000)
    assert len(compare(case, dtype, regions_of(regions, case))) > 50


@both_types
@pytest.mark.parametrize("integrator", INTEGRATORS)
def test_streamlines_that_obey_tissue_are_the_processors(dtype, integrator):
    case = crossing_case(4000, (20, 18, 14))
    settings = {"integrator": integrator, "max_length_mm": 60.0}
    for crop in (False, True):
        anatomy = anatomy_of(case, crop_at_gmwmi=crop)
        result = compare(case, dtype, None, anatomy, **settings)
        assert result.count_stops()[StopReason.LEFT_DEEP_GREY] > 20


@pytest.mark.parametrize("lmax", [2, 4, 6, 10, 12])
def test_every_even_degree_is_the_processors(lmax):
    case = crossing_case(200, lmax=lmax)
    for dtype in (torch.float64, torch.float32):
        compare(case, dtype)
    _, *found = with_gradients(case.to("cuda"), config_of("cuda", max_length_mm=10.0))
    _, *wanted = with_gradients(case, config_of("cpu", max_length_mm=10.0))
    assert relative_error(found[0], wanted[0]) < 1e-8
    assert relative_error(found[1], wanted[1]) < 1e-8


@pytest.mark.parametrize("integrator", INTEGRATORS)
def test_streamlines_at_the_border_and_single_vertices_are_the_processors(integrator):
    compare(filled_case(2000), torch.float64, integrator=integrator, min_length_mm=0.0)
    compare(crossing_case(2000), torch.float64, integrator=integrator, one_way=True)


@both_types
@pytest.mark.parametrize("integrator", INTEGRATORS)
def test_gradients_are_the_processors(dtype, integrator):
    case = crossing_case(100).to(dtype)
    settings = {"integrator": integrator, "max_length_mm": 10.0}
    fast, *found = with_gradients(case.to("cuda"), config_of("cuda", **settings))
    slow, *wanted = with_gradients(case, config_of("cpu", **settings))
    assert torch.equal(fast.offsets.cpu(), slow.offsets)
    close = 1e-8 if dtype == torch.float64 else 1e-3
    assert relative_error(found[0], wanted[0]) < close
    assert relative_error(found[1], wanted[1]) < close
    torch.testing.assert_close(
        fast.gradient_report.growth.cpu(), slow.gradient_report.growth, rtol=1e-2, atol=1e-4
    )
    assert fast.gradient_report.bounded == slow.gradient_report.bounded


def test_derivatives_are_central_differences():
    from streamline_derivatives import derivative_errors

    case = crossing_case(60, noise=0.02, random_seed=3).to("cuda")
    errors = derivative_errors(case, config_of("cuda", peak_tolerance=1e-12), n_directions=2)
    assert len(errors) >= 50
    assert errors.median() <= 1e-7
    assert errors.percentile(95) <= 1e-6


def test_survival_and_its_gradients_are_the_processors():
    case = crossing_case(60)
    weights, gradients = [], []
    for device, backend in (("cpu", "cpu"), ("cuda", "cuda")):
        given = case.to(device)
        fodf = given.fodf.clone().requires_grad_()
        lines = replace(given, fodf=fodf).track(config_of(backend, max_length_mm=8.0))
        found = soft_survival(fodf, given.vox2ras, lines, cutoff=0.2, softness=0.3)
        found.sum().backward()
        weights.append(found.detach())
        gradients.append(fodf.grad)
    assert relative_error(weights[1], weights[0]) < 1e-8
    assert relative_error(gradients[1], gradients[0]) < 1e-8


def test_launches_of_a_few_seeds_give_what_one_launch_gives(monkeypatch):
    from difftract_bids.core.kernels import cuda as backend

    case = crossing_case(500).to("cuda")
    whole = case.track(config_of("cuda"))
    monkeypatch.setattr(backend, "_LAUNCH_BYTES", 1 << 20)
    parts = case.track(config_of("cuda"))
    assert torch.equal(whole.points, parts.points)
    assert torch.equal(whole.offsets, parts.offsets)


@pytest.mark.parametrize("n_seeds", [0, 30])
def test_results_without_a_streamline_pass_zeros_back(n_seeds):
    case = crossing_case(30).to("cuda")
    case = replace(case, seeds=case.seeds[:n_seeds], starts=case.starts[:n_seeds])
    result, by_fodf, by_seeds = with_gradients(case, config_of("cuda", cutoff=50.0))
    assert len(result) == 0
    assert result.count_seeds().get(SeedStatus.KEPT) is None
    assert not by_fodf.any()
    assert not by_seeds.any()


def test_what_cannot_be_done_is_refused():
    case = crossing_case(5).to("cuda")
    with pytest.raises(SeedError, match="cpu"):
        replace(case, seeds=case.seeds.cpu()).track(config_of("cuda"))
    with pytest.raises(ConfigError, match="backend"):
        case.track(config_of("cpu"))
    fodf = case.fodf.requires_grad_()
    points = case.track(config_of("auto")).points
    (gradient,) = torch.autograd.grad(points.square().sum(), fodf, create_graph=True)
    with pytest.raises(DerivativeError):
        gradient.sum().backward()


def timed(work: Callable[[], object]) -> tuple[float, object]:
    torch.cuda.synchronize()
    start = time.perf_counter()
    result = work()
    torch.cuda.synchronize()
    return time.perf_counter() - start, result


@pytest.mark.slow
@pytest.mark.parametrize("integrator", ["euler", "rk4"])
def test_a_million_seeds(integrator, record_property):
    affine = oblique()
    fodf = crossing_bundles(affine, (64, 64, 48)).float()
    seeds, starts = random_seeds(
        fodf[..., 0] != 0, affine, 1_000_000, random_seed=0, dtype=torch.float32
    )
    case = Case(fodf, affine, seeds, starts).to("cuda")
    config = TrackingConfig(integrator=integrator, backend="cuda")
    few = replace(case, seeds=case.seeds[:1000], starts=case.starts[:1000])
    with_gradients(few, config)  # compiles
    torch.cuda.reset_peak_memory_stats()
    forward_s, result = timed(lambda: case.track(config))
    grown = replace(case, fodf=case.fodf.clone().requires_grad_())
    tracked = grown.track(config)
    loss = (tracked.points * weights_of(tracked)).sum()
    backward_s, _ = timed(loss.backward)
    n, vertices = len(result), len(result.points)
    assert n > 200_000
    assert torch.isfinite(grown.fodf.grad).all()
    figures = {
        "device": torch.cuda.get_device_name(),
        "streamlines": n,
        "vertices": vertices,
        "forward_s": forward_s,
        "backward_s": backward_s,
        "streamlines_per_s_forward": n / forward_s,
        "streamlines_per_s_forward_and_backward": n / (forward_s + backward_s),
        "vertices_per_s_forward": vertices / forward_s,
        "vertices_per_s_backward": vertices / backward_s,
        "peak_memory_bytes": torch.cuda.max_memory_allocated(),
    }
    for name, figure in figures.items():
        record_property(name, figure)
    # Without gradients, what the processor tracks, for as many as it does in a moment.
    some = Case(fodf, affine, seeds[:20_000], starts[:20_000])
    found = agreement(some.to("cuda").track(config), some.track(replace(config, backend="cpu")))
    record_property("share_within_0.01_mm", float((found.distances_mm < DISTANCE_MM).mean()))
    assert min(found.seeds, found.streamlines) >= SHARE
    assert (found.distances_mm < DISTANCE_MM).mean() >= SHARE
