"""The compiled kernels against the reference in PyTorch: the same streamlines and gradients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from problems import fodf_of, scaling, sharp_sh
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
    with_gradients,
)

from difftract_bids.core import Anatomy, InterfaceSeeds, SeedStatus, StopReason, TrackingConfig
from difftract_bids.core.regions import Regions

#: Largest distance of vertices (mm) and relative error of gradients.
CLOSE = {torch.float64: (1e-9, 1e-9), torch.float32: (1e-3, 1e-4)}
both_types = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])


def config_of(backend: str, **settings) -> TrackingConfig:
    defaults = {"min_length_mm": 2.0, "max_length_mm": 12.0}
    return TrackingConfig(backend=backend, **(defaults | settings))


def compare(
    case: Case,
    dtype: torch.dtype,
    regions: Regions | None = None,
    anatomy: Anatomy | None = None,
    **settings,
):
    """Follow the case by both, hold them to each other, and give the kernels' result."""
    case = case.to(dtype)
    fast = case.track(config_of("cpu", **settings), regions, anatomy)
    slow = case.track(config_of("reference", **settings), regions, anatomy)
    found = agreement(fast, slow)
    if dtype == torch.float64:
        assert torch.equal(fast.seed_status, slow.seed_status)
        assert torch.equal(fast.seed_index, slow.seed_index)
        assert found.streamlines == 1
    assert found.seeds >= 0.99
    assert found.streamlines >= 0.99
    assert found.distances_mm.max() < CLOSE[dtype][0]
    return fast


@both_types
@pytest.mark.parametrize("integrator", INTEGRATORS)
def test_streamlines_are_the_references(dtype, integrator):
    assert len(compare(crossing_case(), dtype, integrator=integrator)) > 50


@pytest.mark.parametrize(
    ("integrator", "dtype"),
    [("euler", torch.float64), ("euler", torch.float32), ("rk4", torch.float64)],
    ids=["euler-f64", "euler-f32", "rk4-f64"],
)
@pytest.mark.parametrize("regions", REGION_NAMES[1:])
def test_streamlines_with_regions_are_the_references(integrator, dtype, regions):
    case = crossing_case()
    result = compare(case, dtype, regions_of(regions, case), integrator=integrator)
    assert len(result) > 3


def test_regions_of_the_comparison_reject_and_end_streamlines():
    # Each rule must have had something to do in the test above.
    case = crossing_case()
    met = {name: case.track(config_of("cpu"), regions_of(name, case)) for name in REGION_NAMES}
    assert SeedStatus.OUTSIDE_MASK in met["mask"].count_seeds()
    assert StopReason.LEFT_MASK in met["two masks"].count_stops()
    for name in ("include image", "include sphere", "include three"):
        assert SeedStatus.MISSED_INCLUDE in met[name].count_seeds()
    for name in ("exclude", "exclude sphere", "all"):
        assert met[name].count_seeds()[SeedStatus.EXCLUDED] > 3
    assert StopReason.ALL_INCLUDED in met["stop"].count_stops()
    others = {SeedStatus.TOO_SHORT, SeedStatus.NO_PEAK, SeedStatus.BELOW_CUTOFF}
    assert others & set(met["none"].count_seeds())


@both_types
@pytest.mark.parametrize("integrator", INTEGRATORS)
def test_streamlines_that_obey_tissue_are_the_references(dtype, integrator):
    case = crossing_case(500, (20, 18, 14))
    settings = {"integrator": integrator, "max_length_mm": 25.0, "min_length_mm": 1.0}
    anatomy = anatomy_of(case, crop_at_gmwmi=integrator == "midpoint")
    result = compare(case, dtype, None, anatomy, **settings)
    seeds, stops = result.count_seeds(), result.count_stops()
    assert seeds[SeedStatus.KEPT] > 50
    assert seeds[SeedStatus.UNSUITABLE_TISSUE] > 50
    assert {SeedStatus.ENDED_IN_FLUID, SeedStatus.ENDED_IN_WHITE_MATTER} <= set(seeds)
    assert stops[StopReason.ENTERED_CORTEX] > 50
    assert stops[StopReason.LEFT_DEEP_GREY] > 5


@pytest.mark.parametrize("one_way", [False, True])
def test_tissue_and_regions_together_are_the_references(one_way):
    case = crossing_case(400, (20, 18, 14))
    settings = {"one_way": one_way, "max_length_mm": 60.0}
    for name in ("two masks", "include sphere", "exclude sphere", "stop"):
        where = regions_of(name, case)
        assert len(compare(case, torch.float64, where, anatomy_of(case), **settings)) > 2


@pytest.mark.parametrize("integrator", ["euler", "rk4"])
@pytest.mark.parametrize("crop", [False, True])
def test_gradients_under_anatomical_constraints_are_the_references(integrator, crop):
    # Seeds from which one way alone is gone, turned by tissue, among them.
    case = crossing_case(200, (20, 18, 14))
    anatomy = anatomy_of(case, crop_at_gmwmi=crop)
    on_border, _ = InterfaceSeeds(anatomy, random_seed=1).draw(0, 100)
    case = replace(case, seeds=torch.cat([case.seeds[:100], on_border]))
    settings = {"integrator": integrator, "max_length_mm": 60.0}
    fast, *found = with_gradients(case, config_of("cpu", **settings), None, anatomy)
    slow, *wanted = with_gradients(case, config_of("reference", **settings), None, anatomy)
    assert torch.equal(fast.offsets, slow.offsets)
    assert (fast.stop_reason[:, 0] == StopReason.NONE).sum() > 20
    assert relative_error(found[0], wanted[0]) < 1e-9
    assert relative_error(found[1], wanted[1]) < 1e-9


@both_types
@pytest.mark.parametrize("integrator", INTEGRATORS)
def test_streamlines_at_the_border_of_the_image_are_the_references(dtype, integrator):
    result = compare(filled_case(), dtype, integrator=integrator, min_length_mm=0.0)
    assert result.count_seeds()[SeedStatus.OUTSIDE_IMAGE] > 15
    assert result.count_stops()[StopReason.OUTSIDE_IMAGE] > 60


@pytest.mark.parametrize(
    ("integrator", "dtype"),
    [("euler", torch.float64), ("euler", torch.float32), ("rk4", torch.float64)],
    ids=["euler-f64", "euler-f32", "rk4-f64"],
)
@pytest.mark.parametrize(
    "settings",
    [
        {"one_way": True},
        {"max_length_mm": 3.0},  # the first half is full, and the second adds one vertex
        {"one_way": True, "max_length_mm": 2.0},
        {"min_length_mm": 0.0},
        {"min_length_mm": 0.0, "step_size_mm": 6.0, "max_angle_deg": 5.0},
        {"cutoff": 0.0, "max_angle_deg": 90.0, "max_length_mm": 5.0},
        {"max_angle_deg": 0.4, "min_length_mm": 0.0},
        {"cutoff": 0.5},
        {"peak_tolerance": 1e-2},
        {"peak_tolerance": 1e-10},
    ],
    ids=lambda settings: ",".join(f"{k}={v:g}" for k, v in settings.items()),
)
def test_settings_mean_the_same_to_kernels_and_reference(integrator, dtype, settings):
    if dtype == torch.float32 and {"peak_tolerance": 1e-10}.items() <= settings.items():
        pytest.skip("an update below 1e-10 does not exist in float32")
    if dtype == torch.float32 and settings.get("max_angle_deg", 60.0) < 1:
        pytest.skip("many angles are within the rounding of float32 of so small a limit")
    result = compare(crossing_case(), dtype, integrator=integrator, **settings)
    stops, seeds = result.count_stops(), result.count_seeds()
    if "max_length_mm" in settings:
        assert StopReason.MAX_LENGTH in stops
    if settings.get("max_angle_deg", 90.0) < 30.0:
        assert StopReason.HIGH_CURVATURE in stops
    if settings.get("min_length_mm") == 0.0:
        assert not {SeedStatus.TOO_SHORT, SeedStatus.SINGLE_VERTEX} & set(seeds)


def test_single_vertices_are_kept_only_where_no_length_is_asked_for():
    case = crossing_case()
    settings = {"integrator": "rk4", "step_size_mm": 12.0, "max_length_mm": 90.0}
    kept = compare(case, torch.float64, min_length_mm=0.0, **settings)
    assert (kept.n_vertices() == 1).sum() > 5
    asked = compare(case, torch.float64, min_length_mm=1.0, **settings)
    assert asked.count_seeds()[SeedStatus.SINGLE_VERTEX] == (kept.n_vertices() == 1).sum()


@both_types
@pytest.mark.parametrize("integrator", INTEGRATORS)
@pytest.mark.parametrize("make", [crossing_case, filled_case])
def test_gradients_are_the_references(dtype, integrator, make):
    case = make(60).to(dtype)
    settings = {"integrator": integrator, "max_length_mm": 10.0, "min_length_mm": 0.0}
    fast, *by_kernels = with_gradients(case, config_of("cpu", **settings))
    slow, *expected = with_gradients(case, config_of("reference", **settings))
    # A streamline that one alone has would be a difference of another kind.
    assert torch.equal(fast.offsets, slow.offsets)
    assert len(fast) > 20
    for found, wanted in zip(by_kernels, expected, strict=True):
        assert relative_error(found, wanted) < CLOSE[dtype][1]


@pytest.mark.parametrize("regions", ["stop", "exclude sphere", "two masks"])
def test_gradients_with_regions_are_the_references(regions):
    case = crossing_case(100)
    where = regions_of(regions, case)
    for one_way in (False, True):
        fast, *found = with_gradients(case, config_of("cpu", one_way=one_way), where)
        _, *wanted = with_gradients(case, config_of("reference", one_way=one_way), where)
        assert len(fast) > 3
        assert relative_error(found[0], wanted[0]) < 1e-9
        assert relative_error(found[1], wanted[1]) < 1e-9


@pytest.mark.parametrize(
    "lmax", [4, *(pytest.param(lmax, marks=pytest.mark.slow) for lmax in (2, 6, 10, 12))]
)
@pytest.mark.parametrize("integrator", INTEGRATORS)
def test_every_even_degree_is_the_references(lmax, integrator):
    case = crossing_case(40, lmax=lmax)
    settings = {"integrator": integrator, "max_length_mm": 12.0}
    compare(case, torch.float64, **settings)
    _, *found = with_gradients(case, config_of("cpu", **settings))
    _, *wanted = with_gradients(case, config_of("reference", **settings))
    assert relative_error(found[0], wanted[0]) < 1e-9
    assert relative_error(found[1], wanted[1]) < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("lmax", [2, 4, 6, 10, 12])
def test_every_even_degree_is_the_references_in_float32(lmax):
    case = crossing_case(200, lmax=lmax)
    for integrator in INTEGRATORS:
        compare(case, torch.float32, integrator=integrator)
    short = {"max_length_mm": 12.0, "min_length_mm": 0.0}
    few = Case(case.fodf, case.vox2ras, case.seeds[:60], case.starts[:60]).to(torch.float32)
    fast, *found = with_gradients(few, config_of("cpu", **short))
    slow, *wanted = with_gradients(few, config_of("reference", **short))
    if torch.equal(fast.offsets, slow.offsets):
        assert relative_error(found[0], wanted[0]) < 1e-4
        assert relative_error(found[1], wanted[1]) < 1e-4


@both_types
def test_peaks_at_the_poles_are_the_references(dtype):
    affine = scaling(2.0)
    z = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    fodf = fodf_of(z.expand_as, (5, 5, 12), affine)
    fodf = fodf + 0.3 * sharp_sh(torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))
    starts = torch.tensor(
        [[0, 0, 1], [0, 0, -1], [1e-6, 0, 1], [-5e-5, 9e-5, -1], [1e-3, 0, 1], [0.1, 0.05, 1]]
    ).double()
    seeds = torch.tensor([[4.1, 3.9, 11.3]]).double().expand(6, 3)
    result = compare(Case(fodf, affine, seeds, starts), dtype, min_length_mm=0.0)
    assert len(result) == 6
    torch.testing.assert_close(
        result.points[:, :2],
        seeds[:1, :2].to(dtype).expand(len(result.points), 2),
        atol=2e-3,
        rtol=0,
    )
    assert (result.lengths_mm() > 12).all()


@pytest.mark.parametrize("integrator", INTEGRATORS)
def test_constant_fodfs_give_nothing_that_is_not_finite(integrator):
    fodf = torch.zeros(6, 6, 6, 45, dtype=torch.float64)
    fodf[..., 0] = 1.0
    seeds = torch.full((40, 3), 5.0, dtype=torch.float64)
    starts = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)).double()
    case = Case(fodf, scaling(2.0), seeds, starts)
    for backend in ("cpu", "reference"):
        config = config_of(backend, integrator=integrator, min_length_mm=0.0)
        result, by_fodf, by_seeds = with_gradients(case, config)
        assert torch.isfinite(result.points).all()
        assert torch.isfinite(by_fodf).all()
        assert torch.isfinite(by_seeds).all()
        # Wherever a search gave up or wandered, a streamline is made of steps of one length.
        steps = [
            points.diff(dim=0).norm(dim=1)
            for points in map(result.__getitem__, range(len(result)))
        ]
        assert all((step < 0.5 + 1e-9).all() for step in steps)


def test_flat_peaks_are_bounded_and_counted():
    # A girdle about z: along it the curvature is zero but for rounding.
    angles = torch.arange(64, dtype=torch.float64) * torch.pi / 64
    ring = torch.stack([angles.cos(), angles.sin(), 0 * angles], dim=1)
    fodf = sharp_sh(ring).mean(0).expand(6, 6, 6, 45)
    fodf = fodf / 0.4
    seeds = torch.tensor([[5.2, 4.9, 5.1]], dtype=torch.float64)
    starts = torch.tensor([[1.0, 0.2, 0.1]], dtype=torch.float64)
    result, by_fodf, _ = with_gradients(
        Case(fodf, scaling(2.0), seeds, starts), config_of("cpu", min_length_mm=0.0)
    )
    assert len(result) == 1
    assert result.gradient_report is not None
    assert result.gradient_report.bounded > 5
    assert torch.isfinite(by_fodf).all()


def test_single_seeds_give_what_all_seeds_together_give():
    case = crossing_case(40)
    together = case.track(config_of("cpu"))
    for i, seed in enumerate(together.seed_index.tolist()):
        one = replace(case, seeds=case.seeds[seed : seed + 1], starts=case.starts[seed : seed + 1])
        np.testing.assert_array_equal(one.track(config_of("cpu"))[0], together[i])


def test_more_streamlines_than_fit_in_a_block_come_out_in_order(monkeypatch):
    from difftract_bids.core.kernels import cpu

    case = crossing_case(300)
    whole = case.track(config_of("cpu"))
    monkeypatch.setattr(cpu, "_BLOCK_VERTICES", 1)
    monkeypatch.setattr(cpu, "_PORTION", 7)
    parts = case.track(config_of("cpu"))
    assert torch.equal(whole.points, parts.points)
    assert torch.equal(whole.offsets, parts.offsets)
    assert torch.equal(whole.stop_reason, parts.stop_reason)
