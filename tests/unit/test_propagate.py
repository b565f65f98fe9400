"""The propagator on fields whose streamlines are known, and its rules one by one."""

from __future__ import annotations

import math

import pytest
import torch
from problems import (
    circles,
    crossing_bundles,
    fodf_of,
    helices,
    oblique,
    scaling,
    sharp_sh,
)

from difftract_bids.core import (
    SeedStatus,
    StopReason,
    StreamlinePropagator,
    TrackingConfig,
    random_seeds,
    reference,
    rules,
    track,
)
from difftract_bids.errors import ConfigError, FodfError, SeedError

INTEGRATORS = ["euler", "midpoint", "rk4", "rk4_classic"]
X = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)


def along(direction: torch.Tensor, shape=(20, 5, 5), affine=None) -> torch.Tensor:
    affine = scaling(2.0) if affine is None else affine
    return fodf_of(direction.expand_as, shape, affine)


def one_seed(x: float, y: float, z: float) -> torch.Tensor:
    return torch.tensor([[x, y, z]], dtype=torch.float64)


def free(**settings) -> TrackingConfig:
    """Settings under which nothing is too short."""
    return TrackingConfig(min_length_mm=0.0, **settings)


@pytest.mark.parametrize("integrator", INTEGRATORS)
@pytest.mark.parametrize("affine", [scaling(2.0), oblique()], ids=["isotropic", "oblique"])
def test_straight_field_gives_straight_equidistant_streamlines(integrator, affine):
    direction = torch.tensor([0.6, -0.48, 0.64], dtype=torch.float64)
    fodf = along(direction, (12, 12, 12), affine)
    seeds, wobble = random_seeds(torch.ones(12, 12, 12).bool(), affine, 40, random_seed=0)
    starts = torch.where(wobble[:, :1] > 0, direction, -direction) + 0.2 * wobble
    result = track(fodf, seeds, starts, affine, free(integrator=integrator, step_size_mm=0.7))
    assert len(result) > 35
    for i in range(len(result)):
        seed = seeds[result.seed_index[i]]
        number = torch.arange(len(result[i])) - result.seed_vertex[i]
        sense = -torch.sign(starts[result.seed_index[i]] @ direction)
        expected = seed + 0.7 * sense * number[:, None] * direction
        torch.testing.assert_close(result[i], expected, atol=1e-3, rtol=0)
    assert set(result.count_stops()) <= {StopReason.OUTSIDE_IMAGE, StopReason.NO_PEAK}


def test_streamline_reaches_the_last_vertex_inside_the_image():
    # From x = 10 mm in an image that ends at -1 and 39 mm; the vertex after the last inside one
    # is kept, because it is only there that the test fails.
    result = track(along(X), one_seed(10, 4, 4), X[None], scaling(2.0), free(step_size_mm=1.0))
    assert [round(x) for x in result[0][:, 0].tolist()] == list(range(39, -2, -1))
    assert result.seed_vertex.tolist() == [29]
    assert result.stop_reason.tolist() == [[StopReason.OUTSIDE_IMAGE] * 2]


def test_first_half_goes_the_seeds_way_and_comes_first_reversed():
    result = track(along(X), one_seed(10, 4, 4), -X[None], scaling(2.0), free())
    assert result[0][0, 0] < 10 < result[0][-1, 0]
    torch.testing.assert_close(result[0][result.seed_vertex[0]], one_seed(10, 4, 4)[0])
    torch.testing.assert_close(result.ends()[0], result[0][[0, -1]])


def radius_error_mm(integrator: str, step_size_mm: float) -> float:
    affine = scaling(0.5, (-12.0, -12.0, -1.0))
    fodf = fodf_of(circles((0.0, 0.0, 0.0)), (49, 49, 5), affine)
    config = free(
        integrator=integrator, step_size_mm=step_size_mm, max_length_mm=20.0, peak_tolerance=1e-10
    )
    start = torch.tensor([[0.0, 1.0, 0.1]], dtype=torch.float64)
    points = track(fodf, one_seed(8, 0, 0), start, affine, config)[0]
    return float((points[0, :2].norm() - 8).abs())


def test_euler_leaves_a_circle_at_first_order_and_the_others_stay_closer():
    coarse, fine = radius_error_mm("euler", 0.4), radius_error_mm("euler", 0.2)
    assert math.log2(coarse / fine) == pytest.approx(1.0, abs=0.1)
    for integrator in INTEGRATORS[1:]:
        assert radius_error_mm(integrator, 0.4) < 0.1 * fine


def test_helix_rises_by_its_pitch():
    rise, radius = 1.5, 6.0
    affine = scaling(0.75, (-9.0, -9.0, -9.0))
    fodf = fodf_of(helices((0.0, 0.0, 0.0), rise), (25, 25, 25), affine)
    start = torch.tensor([[0.0, 1.0, rise / radius]], dtype=torch.float64)
    config = free(integrator="rk4_classic", step_size_mm=0.2, max_length_mm=12.0)
    result = track(fodf, one_seed(radius, 0, 0), start, affine, config)
    x, y, z = result[0][0]
    assert math.hypot(x, y) == pytest.approx(radius, abs=0.02)
    assert float(z) == pytest.approx(rise * math.atan2(y, x), abs=0.02)


def test_largest_length_counts_vertices_of_both_halves():
    config = free(step_size_mm=1.0, max_length_mm=20.0)
    fodf = along(X, (60, 5, 5))
    middle = track(fodf, one_seed(60, 4, 4), X[None], scaling(2.0), config)
    # The first half uses up all 3 + 20 vertices, and the second adds one.
    assert len(middle[0]) == 24
    assert middle.seed_vertex.tolist() == [22]
    assert middle.stop_reason.tolist() == [[StopReason.MAX_LENGTH] * 2]
    edge = track(fodf, one_seed(110, 4, 4), X[None], scaling(2.0), config)
    assert len(edge[0]) == 23
    assert edge.seed_vertex.tolist() == [9]
    assert edge.stop_reason.tolist() == [[StopReason.OUTSIDE_IMAGE, StopReason.MAX_LENGTH]]


def test_number_of_steps_is_rounded_up_in_float32():
    # In float64 7 / 0.7 would already be more than 10.
    assert rules._ceil_ratio(0.7 * 10, 0.7) == 10
    assert rules._ceil_ratio(100 * 2.3, 0.1 * 2.3) == 1000
    assert rules._ceil_ratio(1.01, 1.0) == 2


@pytest.mark.parametrize(("min_length_mm", "kept"), [(40.0, True), (40.5, False)])
def test_streamlines_with_fewer_vertices_than_the_smallest_length_are_rejected(
    min_length_mm, kept
):
    config = TrackingConfig(step_size_mm=1.0, min_length_mm=min_length_mm)
    result = track(along(X), one_seed(10, 4, 4), X[None], scaling(2.0), config)  # 41 vertices
    assert len(result) == kept
    status = SeedStatus.KEPT if kept else SeedStatus.TOO_SHORT
    assert result.count_seeds() == {status: 1}


def test_mask_keeps_vertices_inside_and_refuses_seeds_outside():
    mask = torch.zeros(20, 5, 5, dtype=torch.bool)
    mask[3:8] = True  # x from 5 to 15 mm
    seeds = torch.cat([one_seed(10, 4, 4), one_seed(20, 4, 4)])
    result = track(along(X), seeds, X.expand(2, 3), scaling(2.0), free(step_size_mm=1.0), mask)
    assert result.seed_status.tolist() == [SeedStatus.KEPT, SeedStatus.OUTSIDE_MASK]
    assert result.seed_index.tolist() == [0]
    assert [round(x) for x in result[0][:, 0].tolist()] == list(range(14, 4, -1))
    assert result.stop_reason.tolist() == [[StopReason.LEFT_MASK] * 2]


def test_amplitude_below_the_cutoff_ends_a_streamline():
    fodf = along(X)
    fodf = fodf * torch.linspace(0.95, 0, 20, dtype=torch.float64)[:, None, None, None]
    result = track(fodf, one_seed(10, 4, 4), X[None], scaling(2.0), free(cutoff=0.4))
    # The amplitude falls by 0.025 per millimetre from 0.95 at x = 0: 0.4 is at 22 mm.
    assert float(result[0][0, 0]) == pytest.approx(22.0, abs=0.21)
    assert float(result[0][0, 0]) >= 22.0 - 1e-6
    assert result.stop_reason[0, 0] == StopReason.BELOW_CUTOFF


def test_turning_by_more_than_the_largest_angle_ends_a_streamline():
    bent = torch.tensor([math.cos(0.6), math.sin(0.6), 0.0], dtype=torch.float64)
    fodf = along(X)
    fodf[10:] = sharp_sh(bent)
    for limit, reason in ((15.0, StopReason.HIGH_CURVATURE), (60.0, StopReason.OUTSIDE_IMAGE)):
        config = free(step_size_mm=1.9, max_angle_deg=limit)
        result = track(fodf, one_seed(10, 4, 4), X[None], scaling(2.0), config)
        assert result.stop_reason[0, 0] == reason


@pytest.mark.parametrize("integrator", INTEGRATORS[1:])
def test_rules_with_stages_drop_a_point_where_the_field_does_not_go_on(integrator):
    config = free(integrator=integrator, step_size_mm=1.0)
    result = track(along(X), one_seed(10.25, 4, 4), X[None], scaling(2.0), config)
    assert float(result[0][0, 0]) == pytest.approx(38.25, abs=1e-6)
    assert float(result[0][-1, 0]) == pytest.approx(-0.75, abs=1e-6)


def test_voxels_of_zeros_are_outside_even_if_their_neighbours_blend_in():
    fodf = along(X)
    fodf[10:] = 0  # the nearest voxel is empty from x = 19 mm on
    result = track(fodf, one_seed(10, 4, 4), X[None], scaling(2.0), free(step_size_mm=0.5))
    assert float(result[0][0, 0]) == pytest.approx(19.0, abs=1e-6)
    assert result.stop_reason[0, 0] == StopReason.OUTSIDE_IMAGE


def test_every_seed_is_accounted_for():
    fodf = along(X)
    fodf[:, :, 4] *= 0.05
    seeds = torch.tensor([[10.0, 4, 4], [99, 4, 4], [10, 4, 8], [10, 4, 2]]).double()
    result = track(fodf, seeds, X.expand(4, 3), scaling(2.0), free())
    expected = [
        SeedStatus.KEPT,
        SeedStatus.OUTSIDE_IMAGE,
        SeedStatus.BELOW_CUTOFF,
        SeedStatus.KEPT,
    ]
    assert result.seed_status.tolist() == expected
    assert result.seed_index.tolist() == [0, 3]
    assert result.count_seeds()[SeedStatus.KEPT] == 2


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_a_seed_that_cannot_make_a_step_has_a_single_vertex(backend):
    arguments = (along(X, (1, 1, 1)), one_seed(0, 0, 0), X[None], scaling(2.0))
    settings = {"integrator": "rk4", "step_size_mm": 5.0, "backend": backend}
    asked = track(*arguments, TrackingConfig(min_length_mm=1.0, **settings))
    assert asked.count_seeds() == {SeedStatus.SINGLE_VERTEX: 1}
    # With -minlength 0 tckgen writes single vertices.
    kept = track(*arguments, free(**settings))
    assert kept.points.tolist() == [[0.0, 0.0, 0.0]]
    assert kept.seed_vertex.tolist() == [0]
    assert kept.stop_reason.tolist() == [[StopReason.OUTSIDE_IMAGE] * 2]


@pytest.mark.parametrize("integrator", ["euler", "rk4"])
def test_results_do_not_depend_on_the_size_of_chunks(integrator, monkeypatch):
    affine = oblique()
    fodf = crossing_bundles(affine, (14, 13, 10)).float()
    seeds, starts = random_seeds(fodf[..., 0] != 0, affine, 40, random_seed=0, dtype=torch.float32)
    config = free(integrator=integrator, max_length_mm=6.0, backend="reference")
    whole = track(fodf, seeds, starts, affine, config)
    assert len(whole) > 10
    for size in (3, 17):
        monkeypatch.setattr(reference, "_SEEDS_PER_CHUNK", size)
        parts = track(fodf, seeds, starts, affine, config)
        for name in ("points", "offsets", "seed_index", "seed_vertex", "stop_reason"):
            assert torch.equal(getattr(whole, name), getattr(parts, name)), name
        assert torch.equal(whole.seed_status, parts.seed_status)


def test_float32_and_float64_follow_the_same_curves():
    affine = oblique()
    fodf = crossing_bundles(affine, (14, 13, 10), noise=0.0).float()
    seeds, starts = random_seeds(
        fodf[..., 0] != 0, affine, 100, random_seed=0, dtype=torch.float32
    )
    single = track(fodf, seeds, starts, affine, free())
    double = track(fodf.double(), seeds.double(), starts.double(), affine, free())
    assert single.points.dtype == torch.float32
    assert double.points.dtype == torch.float64
    same = (single.n_vertices() == double.n_vertices()) if len(single) == len(double) else None
    assert same is not None
    assert same.double().mean() > 0.95
    close = [
        float((single[i].double() - double[i]).abs().max()) < 0.01
        for i in torch.nonzero(same).ravel().tolist()
    ]
    assert sum(close) / len(close) > 0.95


@pytest.mark.parametrize("lmax", [2, 4, 6, 10, 12])
@pytest.mark.parametrize("backend", [pytest.param("cpu", marks=pytest.mark.slow), "reference"])
def test_every_even_degree_can_be_tracked(lmax, backend):
    fodf = fodf_of(X.expand_as, (20, 5, 5), scaling(2.0), lmax)
    config = free(step_size_mm=1.0, backend=backend)
    result = track(fodf, one_seed(10, 4, 4), X[None] + 0.1, scaling(2.0), config)
    torch.testing.assert_close(
        result[0][:, 1:], torch.full((41, 2), 4.0).double(), atol=1e-3, rtol=0
    )


def test_no_seeds_and_no_kept_seeds_are_valid_results():
    config = TrackingConfig()
    for seeds in (torch.zeros(0, 3).double(), one_seed(999, 0, 0)):
        result = track(along(X), seeds, X.expand(len(seeds), 3), scaling(2.0), config)
        assert len(result) == 0
        assert result.points.shape == (0, 3)
        assert result.offsets.tolist() == [0]
        assert result.ends().shape == (0, 2, 3)
        assert result.lengths_mm().shape == (0,)
        assert result.stop_reason.shape == (0, 2)


def test_lengths_are_steps_times_step_size():
    seeds = torch.cat([one_seed(10, 4, 4), one_seed(20, 4, 4)])
    result = track(along(X), seeds, X.expand(2, 3), scaling(2.0), free(step_size_mm=0.5))
    torch.testing.assert_close(result.lengths_mm(), (result.n_vertices() - 1).double() * 0.5)


def test_module_gives_what_the_function_gives():
    config = free(integrator="midpoint")
    arguments = (along(X), one_seed(10, 4, 4), X[None], scaling(2.0))
    module = StreamlinePropagator(config)
    assert torch.equal(module(*arguments).points, track(*arguments, config).points)
    assert "midpoint" in repr(module)


def test_length_of_a_direction_does_not_matter():
    arguments = (along(X), one_seed(10, 4, 4))
    one, seven = (
        track(*arguments, scale * X[None], scaling(2.0), free()).points for scale in (1, 7)
    )
    torch.testing.assert_close(one, seven)


@pytest.mark.parametrize(
    ("fodf", "message"),
    [
        (torch.zeros(3, 3, 45), "shape"),
        (torch.zeros(3, 3, 3, 44), "^44 coefficients"),
        (torch.full((3, 3, 3, 45), torch.nan), "27 of 27 voxels"),
        (torch.zeros(3, 3, 3, 45, dtype=torch.int32), "int32"),
        (torch.zeros(0, 3, 3, 45), "shape"),
    ],
)
def test_unusable_fodfs_are_refused(fodf, message):
    seeds = torch.zeros(1, 3).to(fodf)
    with pytest.raises(FodfError, match=message):
        track(fodf, seeds, seeds + 1, scaling(2.0), TrackingConfig())


@pytest.mark.parametrize("affine", [torch.zeros(4, 4), torch.eye(3), torch.eye(4) * torch.nan])
def test_unusable_affines_are_refused(affine):
    with pytest.raises(FodfError, match="invertible"):
        track(along(X), one_seed(0, 0, 0), X[None], affine, TrackingConfig())


def test_unusable_seeds_are_refused_with_their_number():
    fodf, affine, config = along(X), scaling(2.0), TrackingConfig()
    seeds = torch.zeros(4, 3, dtype=torch.float64)
    starts = X.expand(4, 3).clone()
    bad = seeds.clone()
    bad[1:3, 0] = torch.inf
    with pytest.raises(SeedError, match="2 of 4 rows of seeds_mm are not finite"):
        track(fodf, bad, starts, affine, config)
    with pytest.raises(SeedError, match="2 of 4 rows of directions"):
        track(fodf, seeds, bad, affine, config)
    with pytest.raises(SeedError, match="4 of 4 directions are zero"):
        track(fodf, seeds, seeds, affine, config)
    with pytest.raises(SeedError, match="shape"):
        track(fodf, seeds, starts[:3], affine, config)
    with pytest.raises(SeedError, match="float32"):
        track(fodf, seeds.float(), starts, affine, config)


def test_a_mask_of_another_grid_or_type_is_refused():
    for mask in (torch.ones(3, 3, 3).bool(), torch.ones(20, 5, 5)):
        with pytest.raises(FodfError, match="mask"):
            track(along(X), one_seed(0, 0, 0), X[None], scaling(2.0), TrackingConfig(), mask)


def test_an_unknown_integrator_is_refused():
    with pytest.raises(ConfigError, match="must be one of"):
        TrackingConfig(integrator="leapfrog")  # type: ignore[arg-type]
