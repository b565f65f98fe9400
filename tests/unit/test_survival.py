"""Soft survival: how surely streamlines pass the cutoff, where it is known, and its gradients."""

from __future__ import annotations

import pytest
import torch
from problems import fodf_of, scaling
from tracking_cases import crossing_case

from difftract_bids.core import Streamlines, TrackingConfig, track
from difftract_bids.core.field import FodfField
from difftract_bids.core.survival import amplitudes_along, soft_survival
from difftract_bids.errors import ConfigError, FodfError

X = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
SLOPE = 0.02  # amplitude per millimetre


def ramp() -> torch.Tensor:
    """One lobe along x everywhere; the amplitude of its peak falls from 0.9 at x = 0."""
    fodf = fodf_of(X.expand_as, (20, 5, 5), scaling(2.0))
    falling = 0.9 - SLOPE * 2.0 * torch.arange(20, dtype=torch.float64)
    return fodf * falling[:, None, None, None]


def straight(first_mm: float, n: int) -> Streamlines:
    """One streamline along x, a vertex every millimetre."""
    x = first_mm + torch.arange(n, dtype=torch.float64)
    points = torch.stack([x, torch.full_like(x, 4.2), torch.full_like(x, 3.7)], dim=1)
    return joined(points)


def joined(*parts: torch.Tensor) -> Streamlines:
    counts = torch.tensor([len(part) for part in parts])
    none = torch.zeros_like(counts)
    return Streamlines(
        points=torch.cat(parts),
        offsets=torch.cat([none[:1], counts.cumsum(0)]),
        seed_index=torch.arange(len(parts)),
        seed_vertex=none,
        stop_reason=torch.stack([none, none], 1),
        seed_status=none,
    )


def weight(lines: Streamlines, cutoff=0.5, softness=0.1, fodf=None) -> torch.Tensor:
    fodf = ramp() if fodf is None else fodf
    return soft_survival(
        fodf, scaling(2.0), lines, cutoff=cutoff, softness=softness, peak_tolerance=1e-12
    )


def test_weights_are_products_of_sigmoids_over_the_inner_vertices():
    lines = joined(straight(3.0, 12).points, straight(10.3, 5).points.flip(0))
    expected = [
        torch.sigmoid((0.9 - SLOPE * points[1:-1, 0] - 0.5) / 0.1).prod()
        for points in (lines[0], lines[1])
    ]
    torch.testing.assert_close(weight(lines), torch.stack(expected), rtol=1e-6, atol=0)


def test_amplitudes_are_those_of_the_peaks_and_infinite_at_both_ends():
    field = FodfField.from_fodf(ramp(), scaling(2.0), cutoff=0.0, peak_tolerance=1e-12)
    lines = straight(3.0, 6)
    amplitude = amplitudes_along(field, lines)
    assert torch.isinf(amplitude[[0, -1]]).all()
    expected = 0.9 - SLOPE * lines.points[1:-1, 0]
    torch.testing.assert_close(amplitude[1:-1], expected, rtol=1e-6, atol=0)


def test_a_hard_decision_comes_back_without_softness():
    lines = straight(3.0, 12)  # inner amplitudes from 0.64 to 0.82
    for cutoff, expected in ((0.6, 1.0), (0.7, 0.0), (0.9, 0.0)):
        assert float(weight(lines, cutoff, 1e-4)) == pytest.approx(expected, abs=1e-9)


def test_softness_without_end_makes_every_inner_vertex_a_toss():
    assert float(weight(straight(3.0, 12), softness=1e9)) == pytest.approx(0.5**10)


@pytest.mark.parametrize("n", [1, 2])
def test_streamlines_without_inner_vertices_are_sure(n):
    assert float(weight(straight(3.0, n), cutoff=100.0)) == 1.0


def test_no_streamlines_have_no_weights():
    fodf = ramp().requires_grad_()
    lines = track(
        fodf,
        torch.zeros(0, 3).double(),
        torch.zeros(0, 3).double(),
        scaling(2.0),
        TrackingConfig(),
    )
    found = weight(lines, fodf=fodf)
    assert found.shape == (0,)
    found.sum().backward()
    assert not fodf.grad.any()


def test_derivative_by_the_cutoff_is_that_of_the_sigmoids():
    cutoff = torch.tensor(0.55, dtype=torch.float64, requires_grad=True)
    lines = straight(3.0, 12)
    found = weight(lines, cutoff)
    found.sum().backward()
    margin = (0.9 - SLOPE * lines.points[1:-1, 0] - 0.55) / 0.1
    expected = -found.detach()[0] * torch.sigmoid(-margin).sum() / 0.1
    torch.testing.assert_close(cutoff.grad, expected, rtol=1e-6, atol=0)


def test_derivative_by_the_vertices_is_that_of_the_ramp():
    lines = straight(3.3, 8)
    lines.points.requires_grad_()
    found = weight(lines)
    found.sum().backward()
    margin = (0.9 - SLOPE * lines.points[:, 0].detach() - 0.5) / 0.1
    expected = -SLOPE * found.detach() * torch.sigmoid(-margin) / 0.1
    expected[[0, -1]] = 0.0
    torch.testing.assert_close(lines.points.grad[:, 0], expected, rtol=1e-5, atol=0)
    # Across the bundle nothing changes.
    assert lines.points.grad[:, 1:].abs().max() < 1e-9


def test_gradcheck_by_fodf_vertices_and_cutoff():
    case = crossing_case(6, (6, 6, 5))
    lines = case.track(TrackingConfig(min_length_mm=1.0, max_length_mm=4.0, step_size_mm=0.5))
    assert len(lines) >= 3
    cutoff = torch.tensor(0.3, dtype=torch.float64)
    scale = torch.rand(case.fodf.shape, generator=torch.Generator().manual_seed(0)).double() + 0.5

    def weights(change, points, cutoff):
        # By a factor, so that empty voxels stay empty.
        fodf = case.fodf * (1 + change * scale)
        moved = joined(*points.split(lines.n_vertices().tolist()))
        return soft_survival(
            fodf, case.vox2ras, moved, cutoff=cutoff, softness=0.2, peak_tolerance=1e-12
        )

    change = torch.zeros(*case.fodf.shape[:3], 1, dtype=torch.float64)
    inputs = (change, lines.points.clone(), cutoff)
    assert torch.autograd.gradcheck(weights, [x.requires_grad_() for x in inputs], fast_mode=True)


@pytest.mark.parametrize("by", ["fodf", "seeds", "cutoff"])
def test_gradients_through_tracking_are_finite_differences(by):
    case = crossing_case(8)
    config = TrackingConfig(peak_tolerance=1e-12, min_length_mm=1.0, max_length_mm=8.0)
    generator = torch.Generator().manual_seed(4)
    occupied = (case.fodf != 0).any(-1, keepdim=True)
    inputs = {
        "fodf": case.fodf,
        "seeds": case.seeds,
        "cutoff": torch.tensor(0.2, dtype=torch.float64),
    }
    direction = torch.randn(inputs[by].shape, generator=generator, dtype=torch.float64)
    if by == "fodf":
        direction = direction * occupied * 0.1

    def value(given: dict[str, torch.Tensor]) -> torch.Tensor:
        lines = track(given["fodf"], given["seeds"], case.starts, case.vox2ras, config)
        weights = soft_survival(
            given["fodf"],
            case.vox2ras,
            lines,
            cutoff=given["cutoff"],
            softness=0.3,
            peak_tolerance=1e-12,
        )
        assert len(weights) >= 4
        return (weights * torch.arange(1.0, len(weights) + 1)).sum()

    leaf = inputs[by].clone().requires_grad_()
    value(inputs | {by: leaf}).backward()
    up, down = (value(inputs | {by: inputs[by] + e * direction}) for e in (1e-6, -1e-6))
    expected = float(up - down) / 2e-6
    assert abs(expected) > 1e-4
    assert float((leaf.grad * direction).sum()) == pytest.approx(expected, rel=1e-6)


def test_float32_weights_are_those_of_float64():
    case = crossing_case(20)
    lines = case.track(TrackingConfig(min_length_mm=1.0, max_length_mm=6.0))
    arguments = {"cutoff": 0.2, "softness": 0.3}
    double = soft_survival(case.fodf, case.vox2ras, lines, **arguments)
    single = case.to(torch.float32)
    fewer = Streamlines(**(vars(lines) | {"points": lines.points.float()}))
    found = soft_survival(single.fodf, case.vox2ras, fewer, **arguments)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), double, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("softness", [0.0, -0.1, float("nan")])
def test_a_softness_that_is_not_positive_is_refused(softness):
    with pytest.raises(ConfigError, match="softness") as caught:
        weight(straight(3.0, 4), softness=softness)
    assert caught.value.remedy


def test_an_unusable_fodf_is_refused():
    with pytest.raises(FodfError, match="coefficients"):
        weight(straight(3.0, 4), fodf=torch.zeros(3, 3, 3, 44).double())
