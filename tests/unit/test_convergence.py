"""Orders of convergence of the four integrators, of positions and of gradients.

On fields given by formulas in float64 each halving of the step divides the error by two to the
order. MRtrix's rk4 makes the mean of its four directions a unit vector again: its points are of
order 2 along the curve, yet of order 3 across it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from analytic import circle, helix, on_circle, on_helix, on_saddle, point_after, saddle

#: Order of the end point, and of its distance to the curve.
ORDERS = {"euler": (1, 1), "midpoint": (2, 2), "rk4": (2, 3), "rk4_classic": (4, 4)}
#: A circle looks the same from each of its points, and these rules gain an order across it.
ORDERS_ACROSS_A_CIRCLE = {"euler": 1, "midpoint": 3, "rk4": 3, "rk4_classic": 5}
LENGTH_MM = 6.0
FIELDS = {
    "circle": (circle, on_circle, [5.0, 1.0, 0.5], [-1.0, 0.5]),
    "helix": (helix, on_helix, [4.0, 2.0, -1.0], [2.5]),
    "saddle": (saddle, on_saddle, [1.5, 5.0, 0.5], [0.8]),
}
every_case = pytest.mark.parametrize(
    ("name", "integrator"), [(name, rule) for name in FIELDS for rule in ORDERS]
)


def problem(name: str) -> tuple[Callable, Callable, torch.Tensor, torch.Tensor]:
    field, exact, seed, parameters = FIELDS[name]
    return (
        field,
        exact,
        torch.tensor(seed, dtype=torch.float64),
        torch.tensor(parameters, dtype=torch.float64),
    )


def order(error_of: Callable[[int], float], coarse: int = 32) -> float:
    return math.log2(error_of(coarse) / error_of(2 * coarse))


@every_case
def test_end_points_converge_at_the_order_of_the_rule(name, integrator, record_property):
    field, exact, seed, parameters = problem(name)
    expected = exact(seed, parameters, LENGTH_MM)

    def error_mm(n_steps: int) -> float:
        end = point_after(field(parameters), seed, LENGTH_MM, n_steps, integrator)
        return float((end - expected).norm())

    measured = order(error_mm)
    record_property("order", measured)
    assert measured == pytest.approx(ORDERS[integrator][0], abs=0.15)


@every_case
def test_distances_to_the_curve_converge_at_the_order_of_the_rule(
    name, integrator, record_property
):
    field, exact, seed, parameters = problem(name)
    expected = exact(seed, parameters, LENGTH_MM)
    along = field(parameters)(expected[None])[0]

    def distance_mm(n_steps: int) -> float:
        error = point_after(field(parameters), seed, LENGTH_MM, n_steps, integrator) - expected
        return float((error - (error @ along) * along).norm())

    measured = order(distance_mm)
    record_property("order", measured)
    expected_order = ORDERS[integrator][1]
    if name == "circle":
        expected_order = ORDERS_ACROSS_A_CIRCLE[integrator]
    assert measured == pytest.approx(expected_order, abs=0.15)


@every_case
def test_gradients_converge_at_the_order_of_the_rule(name, integrator, record_property):
    field, exact, seed, parameters = problem(name)

    def jacobians(end: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]):
        return torch.autograd.functional.jacobian(end, (seed, parameters))

    expected = jacobians(lambda s, p: exact(s, p, LENGTH_MM))
    found = {
        n: jacobians(lambda s, p, n=n: point_after(field(p), s, LENGTH_MM, n, integrator))
        for n in (32, 64)
    }
    for which, what in enumerate(("seed", "parameters")):
        measured = order(lambda n, i=which: float((found[n][i] - expected[i]).norm()))
        record_property(f"order of the gradient by the {what}", measured)
        assert expected[which].norm() > 0.1
        assert measured == pytest.approx(ORDERS[integrator][0], abs=0.25)


def test_the_textbook_rule_is_near_the_limit_of_float64():
    field, exact, seed, parameters = problem("helix")
    end = point_after(field(parameters), seed, LENGTH_MM, 400, "rk4_classic")
    torch.testing.assert_close(end, exact(seed, parameters, LENGTH_MM), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", FIELDS)
def test_formulas_of_the_curves_are_right(name):
    # Their velocity is the field's direction, and at length 0 they are at the seed.
    field, exact, seed, parameters = problem(name)
    torch.testing.assert_close(exact(seed, parameters, 0.0), seed)
    ahead, behind = (exact(seed, parameters, LENGTH_MM + d) for d in (1e-4, -1e-4))
    here = field(parameters)(exact(seed, parameters, LENGTH_MM)[None])[0]
    torch.testing.assert_close((ahead - behind) / 2e-4, here, rtol=0, atol=1e-7)
