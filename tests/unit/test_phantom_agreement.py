"""Agreement of two connectomes: cases small enough to work out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from difftract_bids.errors import InputError
from difftract_bids.io.matrices import write_matrix
from difftract_bids.phantom.agreement import (
    Connectome,
    agreement,
    main,
)

NAMES = ("a", "b", "c", "d")


def connectome(edges, names=NAMES):
    weights = np.zeros((len(names), len(names)))
    for pair, weight in edges.items():
        first, second = (names.index(name) for name in pair)
        weights[first, second] = weights[second, first] = weight
    return Connectome(tuple(names), weights)


def save(matrix, path):
    write_matrix(matrix.weights, list(matrix.names), path)


TRUTH = connectome({"ab": 10, "bc": 100, "cd": 1000})


def test_the_truth_agrees_with_itself():
    found = agreement(TRUTH, TRUTH)
    assert found.r_log_counts == pytest.approx(1.0)
    assert (found.sensitivity, found.specificity) == (1.0, 1.0)
    assert (found.n_true_edges, found.n_false_edges) == (3, 0)


def test_a_missed_edge_enters_the_correlation_as_none():
    found = agreement(connectome({"bc": 100, "cd": 1000}), TRUTH)
    logs = np.log1p([[0, 100, 1000], [10, 100, 1000]])
    assert found.r_log_counts == pytest.approx(np.corrcoef(logs)[0, 1])
    assert found.r_log_counts < 0.99
    assert found.sensitivity == pytest.approx(2 / 3)


def test_an_edge_that_is_not_there_costs_specificity_only():
    found = agreement(connectome({"ab": 10, "bc": 100, "cd": 1000, "ad": 5}), TRUTH)
    assert found.specificity == pytest.approx(2 / 3)
    assert found.n_false_edges == 1
    assert found.sensitivity == 1.0
    assert found.r_log_counts == pytest.approx(1.0)


def test_an_edge_is_detected_from_the_stated_share_of_the_strongest_on():
    measured = connectome({"ab": 9.9, "bc": 10.0, "cd": 1000})
    assert agreement(measured, TRUTH, detection_share=0.01).sensitivity == pytest.approx(2 / 3)
    assert agreement(measured, TRUTH).sensitivity == 1.0


def test_self_connections_do_not_count():
    measured = connectome({"ab": 10, "bc": 100, "cd": 1000})
    measured.weights[0, 0] = 1e9
    assert agreement(measured, TRUTH) == agreement(TRUTH, TRUTH)


def test_nodes_are_matched_by_name_whatever_their_order():
    shuffled = connectome({"ab": 10, "bc": 100, "cd": 1000}, names=tuple("dbca"))
    assert agreement(shuffled, TRUTH).r_log_counts == pytest.approx(1.0)


def test_an_empty_measurement_detects_nothing_and_has_no_correlation():
    found = agreement(connectome({}), TRUTH)
    assert found.sensitivity == 0.0
    assert math.isnan(found.r_log_counts)


def test_other_nodes_are_refused_by_name():
    with pytest.raises(InputError, match=r"'d'.*'e'"):
        agreement(connectome({}, names=tuple("abce")), TRUTH)


def test_a_truth_without_enough_edges_is_refused():
    with pytest.raises(InputError, match="2 edges"):
        agreement(TRUTH, connectome({"ab": 1, "cd": 2}))


def test_a_written_matrix_reads_back_and_the_table_shows_its_figures(tmp_path, capsys):
    save(TRUTH, tmp_path / "truth.tsv")
    save(connectome({"ab": 10, "cd": 1000, "ad": 5}), tmp_path / "measured.tsv")
    np.testing.assert_array_equal(Connectome.read(tmp_path / "truth.tsv").weights, TRUTH.weights)
    assert main([str(tmp_path / "measured.tsv"), str(tmp_path / "truth.tsv")]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert [row.split()[-1] for row in rows[:1]] == ["3"]
    assert rows[2].split() == ["sensitivity", "0.667"]
    assert rows[3].split()[:2] == ["specificity", "0.667"]


@pytest.mark.parametrize(
    "text",
    ["", "a\tb\n0\t1\n", "a\tb\n0\t1\n2\t0\n", "a\ta\n0\t1\n1\t0\n", "a\tb\n0\tx\n1\t0\n"],
    ids=["empty", "not square", "not symmetric", "a name twice", "not a number"],
)
def test_a_file_that_is_no_connectome_ends_with_2_and_a_remedy(tmp_path, capsys, text):
    save(TRUTH, tmp_path / "truth.tsv")
    bad = tmp_path / "bad.tsv"
    bad.write_text(text)
    assert main([str(bad), str(tmp_path / "truth.tsv")]) == 2
    message = capsys.readouterr().err
    assert "bad.tsv" in message
    assert "remedy" in message
