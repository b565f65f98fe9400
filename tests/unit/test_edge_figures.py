"""The row of small matrices in the report."""

from __future__ import annotations

import re

import numpy as np
import pytest

from difftract_bids.reports.connectome.edges import plot_edges
from difftract_bids.reports.connectome.matrix import plot_connectome

NAMES = ["L_a", "R_b", "L_c", "R_d"]


def some_matrix(low, high):
    matrix = np.zeros((4, 4))
    matrix[0, 1] = matrix[1, 0] = low
    matrix[2, 3] = matrix[3, 2] = high
    return matrix


def n_pictures(path):
    return len(re.findall(r"<image\b", path.read_text()))


def test_there_is_a_matrix_and_a_scale_for_each_measure(tmp_path):
    matrices = {"sift2": some_matrix(0.1, 90), "meanfa": some_matrix(0.2, 0.6)}
    one = plot_edges({"meanfa": matrices["meanfa"]}, NAMES, tmp_path / "one.svg")
    two = plot_edges(matrices, NAMES, tmp_path / "two.svg")
    assert n_pictures(two) == 2 * n_pictures(one)


def test_nodes_are_in_the_order_of_the_large_matrix(tmp_path):
    # Cells of one value, where sorting by side puts them: 0, 2 left, then 1, 3 right.
    sorted_by_side = some_matrix(5, 5)[np.ix_([0, 2, 1, 3], [0, 2, 1, 3])]
    shuffled = plot_edges({"sift2": some_matrix(5, 5)}, NAMES, tmp_path / "a.svg")
    names = ["L_a", "L_c", "R_b", "R_d"]
    ordered = plot_edges({"sift2": sorted_by_side}, names, tmp_path / "b.svg")
    assert shuffled.read_text() == ordered.read_text()


def test_empty_matrices_still_give_a_picture(tmp_path):
    empty = {name: np.zeros((4, 4)) for name in ("sift2", "meanfa", "meanlength")}
    assert "<svg" in plot_edges(empty, NAMES, tmp_path / "a.svg").read_text()


def test_a_matrix_that_does_not_fit_its_names_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"meanfa .* 3 node names"):
        plot_edges({"meanfa": np.zeros((4, 4))}, NAMES[:3], tmp_path / "a.svg")


def test_names_that_cannot_be_read_are_left_out(tmp_path):
    names = [f"node {i}" for i in range(1200)]
    matrix = np.zeros((1200, 1200))
    matrix[5, 7] = matrix[7, 5] = 3
    path = plot_connectome(matrix, names, tmp_path / "a.svg")
    assert "node 5" not in path.read_text()
    assert path.stat().st_size < 1_000_000
