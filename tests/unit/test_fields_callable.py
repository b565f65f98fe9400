"""Fields given by a function, and what all fields have in common."""

from __future__ import annotations

import pytest
import torch
from analytic import analytic_field, circle, helix, saddle
from problems import fodf_of, scaling, sharp_sh

from difftract_bids.config import TrackingConfig
from difftract_bids.core import SeedStatus, StopReason
from difftract_bids.core.field import CallableField, DirectionField, FodfField, TensorField
from difftract_bids.core.propagate import track_field
from difftract_bids.errors import InputError

INTEGRATORS = ["euler", "midpoint", "rk4", "rk4_classic"]
X, Y = torch.eye(3, dtype=torch.float64)[:2]


def along_x(position_mm: torch.Tensor) -> torch.Tensor:
    return X.to(position_mm).expand_as(position_mm)


def positions(n: int = 6, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 5 * torch.randn(3, n, generator=generator, dtype=torch.float64)


def same_start(direction: torch.Tensor, n: int = 6) -> torch.Tensor:
    return direction[:, None].expand(3, n)


def lengths(**others) -> TrackingConfig:
    return TrackingConfig(
        **{"step_size_mm": 0.5, "min_length_mm": 0.0, "max_length_mm": 10.0} | others
    )


def test_fibre_directions_take_the_sense_of_the_start_and_signed_ones_keep_theirs():
    start = torch.cat([same_start(X, 3), same_start(-X, 3)], dim=1)
    fibres = analytic_field(along_x).heading(positions(), start)
    torch.testing.assert_close(fibres.direction, start)
    assert (fibres.reason == 0).all()
    flow = CallableField(along_x, dtype=torch.float64, signed=True)
    direction, reason = flow.heading(positions(), start)
    torch.testing.assert_close(direction, same_start(X))
    assert reason.tolist() == [0] * 3 + [StopReason.NO_PEAK] * 3


@pytest.mark.parametrize("integrator", INTEGRATORS)
def test_streamlines_of_a_flow_go_downstream_only(integrator):
    field = CallableField(along_x, dtype=torch.float64, signed=True)
    seeds = torch.zeros(2, 3, dtype=torch.float64)
    starts = torch.stack([X + 0.5 * Y, -X])
    result = track_field(field, seeds, starts, lengths(integrator=integrator))
    assert result.seed_status.tolist() == [SeedStatus.KEPT, SeedStatus.NO_PEAK]
    x = result[0][:, 0]
    assert (x.diff() < 0).all()  # the first half comes first, reversed
    assert float(x[-1]) == 0.0
    assert result.stop_reason.tolist() == [[StopReason.MAX_LENGTH, StopReason.NO_PEAK]]


def test_length_of_a_direction_has_no_meaning_and_gets_no_gradient():
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    field = analytic_field(lambda p: scale * (1 + p[:, :1] ** 2) * along_x(p))
    direction = field.heading(positions(), same_start(X)).direction
    torch.testing.assert_close(direction, same_start(X))
    (gradient,) = torch.autograd.grad(direction.square().sum() + direction.sum(), scale)
    assert float(gradient) == pytest.approx(0.0, abs=1e-14)


@pytest.mark.parametrize("nothing", [0.0, torch.nan, torch.inf])
def test_rows_without_a_direction_have_no_peak_and_spoil_no_gradient(nothing):
    centre = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    place = positions()
    place[:2, 2] = centre.detach()  # where circle() divides zero by zero

    def function(position_mm: torch.Tensor) -> torch.Tensor:
        on_axis = (position_mm[:, :2] == centre).all(1, keepdim=True)
        tangent = circle(centre)(position_mm)
        return tangent if nothing != nothing else torch.where(on_axis, nothing, tangent)  # noqa: PLR0124 - NaN

    place.requires_grad_()
    direction, reason = analytic_field(function).heading(place, same_start(Y))
    assert reason.tolist() == [0, 0, StopReason.NO_PEAK, 0, 0, 0]
    torch.testing.assert_close(direction[:, 2], Y)
    direction[0].sum().backward()
    assert torch.isfinite(centre.grad).all()
    assert centre.grad.norm() > 0
    assert torch.isfinite(place.grad).all()
    assert (place.grad[:, 2] == 0).all()


def test_the_function_is_asked_only_where_the_field_is_defined():
    asked = []

    def function(position_mm: torch.Tensor) -> torch.Tensor:
        asked.append(position_mm)
        return along_x(position_mm)

    field = CallableField(function, dtype=torch.float64, inside=lambda p: p[:, 0] > 0)
    place = positions()
    _, reason = field.heading(place, same_start(X))
    inside = place[0] > 0
    assert 0 < int(inside.sum()) < 6
    assert torch.equal(reason == 0, inside)
    assert set(reason[~inside].tolist()) == {StopReason.OUTSIDE_IMAGE}
    assert (torch.cat(asked)[:, 0] > 0).all()
    asked.clear()
    _, reason = field.heading(-place.abs(), same_start(X))
    assert set(reason.tolist()) == {StopReason.OUTSIDE_IMAGE}
    assert not asked


def test_a_streamline_ends_where_the_field_does():
    field = CallableField(
        along_x, dtype=torch.float64, inside=lambda p: (p[:, 0] > -2.2) & (p[:, 0] < 3.2)
    )
    seeds = torch.tensor([[0.0, 0.0, 0.0], [9.0, 0.0, 0.0]], dtype=torch.float64)
    result = track_field(field, seeds, X.expand(2, 3), lengths())
    assert result.seed_status.tolist() == [SeedStatus.KEPT, SeedStatus.OUTSIDE_IMAGE]
    assert result[0][[0, -1], 0].tolist() == [3.5, -2.5]
    assert result.stop_reason.tolist() == [[StopReason.OUTSIDE_IMAGE] * 2]


def test_parameters_are_those_of_a_module_and_those_that_are_named():
    centre = torch.zeros(2, requires_grad=True)
    network = torch.nn.Linear(3, 3)
    assert CallableField(circle(centre)).parameters() == ()
    (named,) = CallableField(circle(centre), gradients_for=(centre,)).parameters()
    assert named is centre
    found = CallableField(network).parameters()
    assert [p is q for p, q in zip(found, network.parameters(), strict=True)] == [True, True]


def test_a_network_learns_from_its_streamlines():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    field = CallableField(network)
    seeds = torch.randn(4, 3)
    result = track_field(field, seeds, torch.eye(3)[:1].expand(4, 3), lengths(max_length_mm=2.0))
    assert result.points.dtype == torch.float32
    result.points.square().sum().backward()
    assert all(p.grad is not None and p.grad.norm() > 0 for p in field.parameters())


@pytest.mark.parametrize(
    ("function", "inside", "name"),
    [
        (lambda p: p[:, :2], None, "function"),
        (lambda _: None, None, "function"),
        (lambda p: p[0], None, "function"),
        (along_x, lambda p: p > 0, "inside"),
    ],
)
def test_functions_that_do_not_answer_row_by_row_are_refused(function, inside, name):
    field = CallableField(function, dtype=torch.float64, inside=inside)
    with pytest.raises(InputError, match=f"{name} gave .* for 6 positions"):
        field.heading(positions(), same_start(X))


@pytest.mark.parametrize("integrator", INTEGRATORS)
@pytest.mark.parametrize(
    ("tangent", "parameters"),
    [(circle, [-6.0, 1.0]), (helix, [2.0]), (saddle, [0.7])],
    ids=["circle", "helix", "saddle"],
)
def test_gradcheck_of_streamlines_by_seeds_and_parameters(integrator, tangent, parameters):
    parameter = torch.tensor(parameters, dtype=torch.float64, requires_grad=True)
    seeds = torch.tensor([[3.0, 4.0, 0.3], [2.0, -5.0, 1.0]], dtype=torch.float64)
    seeds.requires_grad_()
    starts = X.expand(2, 3)
    config = lengths(integrator=integrator, max_length_mm=2.0)

    def points(p: torch.Tensor, seeds_mm: torch.Tensor) -> torch.Tensor:
        return track_field(analytic_field(tangent(p)), seeds_mm, starts, config).points

    assert len(points(parameter, seeds)) == 16
    assert torch.autograd.gradcheck(points, (parameter, seeds), fast_mode=True)


def test_no_positions_are_a_valid_question_to_every_field():
    fodf = fodf_of(along_x, (3, 3, 3), scaling(2.0), 4)
    tensors = torch.tensor([2.0, 0, 0, 1, 0, 1], dtype=torch.float64).repeat(3, 3, 3, 1)
    fields: list[DirectionField] = [
        FodfField.from_fodf(fodf, scaling(2.0), cutoff=0.1, peak_tolerance=1e-4),
        TensorField.from_tensors(tensors, scaling(2.0)),
        analytic_field(along_x),
    ]
    none = torch.zeros(3, 0, dtype=torch.float64)
    for field in fields:
        direction, reason = field.heading(none, none)
        assert direction.shape == (3, 0)
        assert reason.shape == (0,)
        assert field.dtype == direction.dtype == torch.float64
        assert field.device == torch.device("cpu")
        one = torch.ones(3, 1, dtype=torch.float64)
        torch.testing.assert_close(field.heading(one, X[:, None]).direction, X[:, None])


def test_streamlines_go_straight_on_where_two_bundles_cross():
    affine = scaling(1.0)
    fodf = (sharp_sh(X) + sharp_sh(Y)).expand(15, 15, 3, 45).contiguous()
    field = FodfField.from_fodf(fodf, affine, cutoff=0.1, peak_tolerance=1e-10)
    seeds = torch.tensor([[7.0, 7.0, 1.0]] * 2, dtype=torch.float64)
    starts = torch.stack([X + 0.3 * Y, Y - 0.3 * X])
    config = lengths(max_length_mm=6.0, backend="reference")
    result = track_field(field, seeds, starts, config)
    for i, still in ((0, 1), (1, 0)):
        moved = result[i] - 7.0
        torch.testing.assert_close(moved[:, still], 0 * moved[:, still], rtol=0, atol=1e-8)
        assert float(moved[:, 1 - still].abs().max()) > 5.9
