"""Checks of streamlines and connectomes turn when what they look for is planted."""

from __future__ import annotations

import numpy as np
import pytest

from difftract_bids.checks.connectome import check_connectome
from difftract_bids.checks.streamlines import check_streamlines
from difftract_bids.core.streamlines import StopReason

LENGTHS_MM = np.linspace(12, 100, 1000)
NAMES = [f"{side}_{i}" for side in ("L", "R") for i in range(10)]


def test_streamlines_of_all_lengths_are_good():
    ends = {"below_cutoff": 1700, "high_curvature": 100, "left_mask": 200}
    check = check_streamlines(LENGTHS_MM, n_seeds=2000, stop_reasons=ends)
    assert (check.light, check.value, check.unit) == ("good", 56, "mm")
    assert "1,000 streamlines from 50% of 2,000 seeds" in check.found
    assert "5% of the ends turned too sharply, 10% came to the border" in check.found


def test_not_one_streamline_is_bad():
    check = check_streamlines(np.zeros(0), n_seeds=2000)
    assert check.light == "bad"
    assert "not one streamline" in check.found


@pytest.mark.parametrize(("n_seeds", "light"), [(0, "good"), (16_000, "look"), (50_000, "bad")])
def test_few_streamlines_of_many_seeds_turn_the_light(n_seeds, light):
    assert check_streamlines(LENGTHS_MM, n_seeds=n_seeds).light == light


@pytest.mark.parametrize(("median_mm", "light"), [(40, "good"), (25, "look"), (15, "bad")])
def test_short_streamlines_turn_the_light(median_mm, light):
    check = check_streamlines(np.full(100, float(median_mm)))
    assert (check.light, check.value) == (light, median_mm)


@pytest.mark.parametrize(
    ("reason", "number", "light"),
    [
        ("high_curvature", 40, "look"),
        ("high_curvature", 70, "bad"),
        ("left_mask", 50, "look"),
        ("outside_image", 80, "bad"),
    ],
)
def test_ends_of_one_unusual_reason_turn_the_light(reason, number, light):
    assert reason.upper() in StopReason.__members__
    ends = {reason: number, "below_cutoff": 100 - number, "none": 5000}
    check = check_streamlines(LENGTHS_MM, stop_reasons=ends)
    assert check.light == light
    assert f"{number}%" in check.found


def matrix(left=20.0, right=20.0, across=10.0):
    counts = np.full((20, 20), across)
    counts[:10, :10], counts[10:, 10:] = left, right
    return counts


def connectome(counts, **more):
    n_streamlines = int(np.triu(counts).sum() / 0.8)
    return check_connectome("Twenty", counts, NAMES, **({"n_streamlines": n_streamlines} | more))


def test_a_balanced_connectome_is_good():
    check = connectome(matrix())
    assert (check.light, check.of) == ("good", "Twenty")
    assert check.value == pytest.approx(0.8, abs=0.001)
    assert "each of 20 nodes has streamlines" in check.found
    assert "50% of the connections' ends are on the left" in check.found
    assert "36% of the connections cross the midline" in check.found  # 1000 of 2800


@pytest.mark.parametrize(("assigned", "light"), [(0.5, "good"), (0.3, "look"), (0.05, "bad")])
def test_streamlines_without_parcels_turn_the_light(assigned, light):
    check = connectome(matrix(), n_streamlines=10_000, n_assigned=int(assigned * 10_000))
    assert (check.light, check.value) == (light, assigned)


@pytest.mark.parametrize(("n_empty", "light"), [(1, "look"), (2, "look"), (6, "bad")])
def test_nodes_without_streamlines_turn_the_light_and_are_named(n_empty, light):
    counts = matrix()
    chosen = np.r_[0 : n_empty // 2, 10 : 10 + n_empty - n_empty // 2]
    counts[chosen], counts[:, chosen] = 0, 0
    check = connectome(counts)
    assert check.light == light
    assert f"{n_empty} of 20 nodes have no streamline" in check.found
    assert NAMES[chosen[0]] in check.found


@pytest.mark.parametrize(("right", "light"), [(18, "good"), (10, "look"), (0, "bad")])
def test_a_hemisphere_with_few_connections_turns_the_light(right, light):
    check = connectome(matrix(right=right, across=2.0))
    assert check.light == light
    if light != "good":
        assert "hemisphere" in check.remedy


@pytest.mark.parametrize(("across", "light"), [(10, "good"), (0.2, "look"), (0, "bad")])
def test_hemispheres_without_connections_turn_the_light(across, light):
    check = connectome(matrix(across=float(across)))
    assert check.light == light
    if light != "good":
        assert "corpus callosum" in check.remedy


def test_sides_are_not_judged_by_a_handful_of_streamlines():
    few = np.zeros((20, 20))
    few[:10, :10] = 0.5
    assert "left" not in connectome(few).found


def test_where_a_region_was_given_few_seeds_and_empty_nodes_are_as_they_should_be():
    counts = matrix(right=0, across=0)
    assert connectome(counts).light == "bad"
    assert connectome(counts, whole_brain=False).light == "good"
    lengths_mm = np.full(3000, 90.0)
    assert check_streamlines(lengths_mm, n_seeds=300_000).light == "bad"
    check = check_streamlines(lengths_mm, n_seeds=300_000, whole_brain=False)
    assert check.light == "good"
    assert "1.0% of 300,000 seeds" in check.found


def test_a_matrix_that_does_not_fit_its_names_is_refused():
    with pytest.raises(ValueError, match="does not fit 20 node names"):
        check_connectome("Twenty", np.ones((3, 3)), NAMES, n_streamlines=10)
