"""Edges by name."""

from __future__ import annotations

import numpy as np
import pytest

from difftract_bids.bids.edge_targets import (
    TOTAL,
    EdgeTarget,
    check_targets,
    find_target,
    targets_of,
)
from difftract_bids.bids.nodes import NodeTable
from difftract_bids.errors import UsageError


def table(*names, first=1):
    index = tuple(range(first, first + len(names)))
    return NodeTable(index, names, ("",) * len(names))


NODES = table("LH-Motor", "LH-Motor-Hand", "Hand-RH", "RH", "brain_stem", first=11)


@pytest.mark.parametrize(
    ("text", "places", "desc"),
    [
        ("RH-brain_stem", (3, 4), "RHxbrainstem"),
        ("brain_stem-RH", (4, 3), "brainstemxRH"),
        ("LH-Motor-RH", (0, 3), "LHMotorxRH"),
        ("LH-Motor-Hand-brain_stem", (1, 4), "LHMotorHandxbrainstem"),
        ("RH-LH-Motor-Hand", (3, 1), "RHxLHMotorHand"),
        ("LH-Motor-LH-Motor-Hand", (0, 1), "LHMotorxLHMotorHand"),
        ("RH-RH", (3, 3), "RHxRH"),
        ("11-14", (0, 3), "LHMotorxRH"),
        ("14-LH-Motor", (3, 0), "RHxLHMotor"),
        ("RH", (3, None), "RH"),
        ("LH-Motor-Hand", (1, None), "LHMotorHand"),
        ("15", (4, None), "brainstem"),
        (TOTAL, (None, None), "total"),
    ],
)
def test_names_may_have_hyphens_and_be_indices(text, places, desc):
    assert find_target(text, NODES) == EdgeTarget(text, desc, *places)


@pytest.mark.parametrize(
    "text", ["", "-", "RH-", "-RH", "LH", "Motor", "1-2", "rh", "RH-LH", "RH--brain_stem", "16"]
)
def test_what_names_no_edge_is_none(text):
    assert find_target(text, NODES) is None


def test_of_two_ways_to_part_a_text_the_shorter_first_name_counts():
    found = find_target("LH-Motor-Hand-RH", NODES)
    assert (found.first, found.second) == (0, 2)


def test_a_name_goes_before_an_index():
    nodes = table("2", "1", "3")
    assert find_target("2", nodes).first == 0
    assert find_target("1-3", nodes).first == 1


def test_only_the_edges_of_an_atlas_are_taken():
    texts = ("RH-15", "nobody", "total", "RH")
    assert [target.text for target in targets_of(texts, NODES)] == ["RH-15", "total", "RH"]
    assert targets_of((), NODES) == []


def test_weights_of_an_edge_are_two_of_a_symmetric_matrix():
    weights = EdgeTarget("a-b", "axb", 0, 2).weights(4)
    assert {tuple(place) for place in np.argwhere(weights).tolist()} == {(0, 2), (2, 0)}
    assert weights.max() == 1


def test_weights_of_a_node_are_its_row_and_column_without_itself():
    weights = EdgeTarget("b", "b", 1).weights(3)
    np.testing.assert_array_equal(weights, [[0, 1, 0], [1, 0, 1], [0, 1, 0]])


def test_weights_of_all_edges_leave_the_diagonal_out():
    np.testing.assert_array_equal(EdgeTarget(TOTAL, TOTAL).weights(3), 1 - np.eye(3))


def test_an_edge_from_a_node_to_itself_counts_where_it_is_asked_for():
    weights = EdgeTarget("b-b", "bxb", 1, 1).weights(3)
    np.testing.assert_array_equal(weights, np.diag([0, 1, 0]))


def test_an_edge_of_one_of_several_atlases_will_do():
    check_targets(["one-two", "RH", TOTAL], [NODES, table("one", "two")])
    check_targets([], [NODES])


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("RH-brain_sten", "brain_stem"),
        ("LH-Moto-RH", "LH-Motor"),
        ("LH-Motor-Hnad", "LH-Motor-Hand"),
        ("Hand-RHH", "Hand-RH"),
    ],
)
def test_an_edge_that_is_in_no_atlas_is_refused_and_names_near_it_are_told(text, near):
    with pytest.raises(UsageError, match=f"no edge '{text}'") as caught:
        check_targets(["RH", text], [table("one", "two"), NODES])
    assert caught.value.where == "--sensitivity"
    told = caught.value.remedy.partition("Near it: ")[2].rstrip(".").split(", ")
    assert near in told
    assert len(told) <= 6


def test_where_nothing_is_near_none_is_told():
    with pytest.raises(UsageError) as caught:
        check_targets(["zzzzzz"], [NODES])
    assert "Near" not in caught.value.remedy


@pytest.mark.parametrize(
    ("texts", "nodes"),
    [
        (["a-b", "a_-b"], table("a", "b", "a_")),
        (["RH", "14"], NODES),
        (["RH-15", "14-brain_stem"], NODES),
        (["total", "to-tal"], table("to-tal", "b")),
    ],
)
def test_two_edges_that_would_be_saved_under_one_name_are_refused(texts, nodes):
    with pytest.raises(UsageError, match="saved under one name, desc-") as caught:
        check_targets(texts, [nodes])
    assert caught.value.remedy


def test_names_may_collide_in_different_atlases():
    check_targets(["a-b", "a_-b"], [table("a", "b"), table("a_", "b")])


def test_an_edge_may_be_asked_for_both_ways_round():
    check_targets(["RH-15", "15-RH"], [NODES])
