"""Statistics of the connectomes of a group."""

import json

import numpy as np
import pandas as pd
import pytest
from groups import node_names, place, symmetric, write_connectome

from difftract_bids.config import MEASURES
from difftract_bids.errors import InputError, UsageError
from difftract_bids.group.collect import collect
from difftract_bids.group.files import Selection
from difftract_bids.group.measures import RULES, rule_of
from difftract_bids.group.moments import EdgeMoments, values_of
from difftract_bids.group.statistics_files import threshold_by_consistency
from difftract_bids.group.summarise import summarise
from difftract_bids.io.matrices import read_matrix

COUNT = "atlas-A_meas-count"


def summed_up(out, participants=None, sessions=None):
    folder = out / "made"
    folder.mkdir(exist_ok=True)
    return summarise(out, folder, Selection.of(participants, sessions))


def matrix(out, stem):
    return read_matrix(out / "made" / f"{stem}_relmat.dense.tsv")[0]


def sidecar(out, stem):
    return json.loads((out / "made" / f"{stem}_relmat.json").read_text())


def edge(value):
    """A connectome of two nodes, with one edge."""
    return np.array([[0.0, value], [value, 0.0]])


def test_mean_and_spread_are_those_of_numpy(tmp_path):
    rng = np.random.default_rng(0)
    stack = np.array([symmetric(rng.poisson(1.5, (9, 9))) for _ in range(6)], dtype=float)
    for i, counts in enumerate(stack):
        write_connectome(tmp_path, f"{i:02d}", counts)
    summed_up(tmp_path)
    mean, sd = stack.mean(axis=0), stack.std(axis=0, ddof=1)
    np.testing.assert_allclose(matrix(tmp_path, f"{COUNT}_stat-mean"), mean, rtol=1e-8)
    np.testing.assert_allclose(matrix(tmp_path, f"{COUNT}_stat-sd"), sd, rtol=1e-8)
    share = (stack > 0).mean(axis=0)
    np.testing.assert_allclose(matrix(tmp_path, f"{COUNT}_stat-consistency"), share, rtol=1e-8)
    variation = np.divide(sd, mean, out=np.full_like(sd, np.nan), where=mean > 0)
    np.testing.assert_allclose(matrix(tmp_path, f"{COUNT}_stat-cv"), variation, rtol=1e-8)


def test_a_small_spread_of_large_values_keeps_its_digits():
    values = 1e9 + np.random.default_rng(0).normal(size=1000)
    moments = EdgeMoments()
    for i, value in enumerate(values):
        moments.add(str(i), values_of(np.array([value]), np.array([0]), 1, RULES["count"]))
    found = moments.statistics(1)
    assert found.sd[0] == pytest.approx(values.std(ddof=1), rel=1e-6)
    assert found.mean[0] == pytest.approx(values.mean(), rel=1e-15)


def test_each_participant_counts_once_whatever_its_runs_and_sessions(tmp_path):
    write_connectome(tmp_path, "01", edge(2.0), session="A", run=1)
    write_connectome(tmp_path, "01", edge(4.0), session="A", run=2)
    write_connectome(tmp_path, "01", edge(9.0), session="B")
    write_connectome(tmp_path, "02", edge(12.0), session="A")
    summed_up(tmp_path)
    # The first participant: ((2 + 4) / 2 + 9) / 2 = 6.
    assert matrix(tmp_path, f"{COUNT}_stat-mean")[0, 1] == 9.0
    assert matrix(tmp_path, f"{COUNT}_stat-sd")[0, 1] == pytest.approx(np.std([6, 12], ddof=1))
    said = sidecar(tmp_path, f"{COUNT}_stat-mean")
    assert said["Participants"] == ["sub-01", "sub-02"]
    assert said["SourceCount"] == 4


def test_every_session_has_statistics_of_its_own(tmp_path):
    write_connectome(tmp_path, "01", edge(2.0), session="A", run=1)
    write_connectome(tmp_path, "01", edge(4.0), session="A", run=2)
    write_connectome(tmp_path, "01", edge(9.0), session="B")
    write_connectome(tmp_path, "02", edge(12.0), session="A")
    write_connectome(tmp_path, "02", edge(11.0), session="B")
    summed_up(tmp_path)
    assert matrix(tmp_path, f"ses-A_{COUNT}_stat-mean")[0, 1] == 7.5
    assert matrix(tmp_path, f"ses-B_{COUNT}_stat-mean")[0, 1] == 10.0
    said = sidecar(tmp_path, f"ses-A_{COUNT}_stat-mean")
    assert (said["Session"], said["ParticipantCount"], said["SourceCount"]) == ("A", 2, 3)


def test_a_session_that_only_one_participant_has_counts_over_all_sessions_alone(tmp_path):
    for label in ("01", "02", "03"):
        write_connectome(tmp_path, label, edge(2.0), session=f"2020010{label[1]}")
        write_connectome(tmp_path, label, edge(4.0), session="A")
    summary = summed_up(tmp_path)
    assert len(summary.matrices) == 8
    assert not list((tmp_path / "made").glob("ses-2020*"))
    assert matrix(tmp_path, f"{COUNT}_stat-mean")[0, 1] == 3.0
    assert any(note.startswith("3 session(s) that only one") for note in summary.notes)


def test_without_sessions_there_are_none(tmp_path):
    write_connectome(tmp_path, "01", edge(2.0))
    names = [path.name for path in summed_up(tmp_path).matrices]
    assert len(names) == 4
    assert not any(name.startswith("ses-") for name in names)


def test_a_mean_length_is_over_those_who_have_the_edge(tmp_path):
    for label, value in (("01", 30.0), ("02", 0.0), ("03", 50.0), ("04", 0.0)):
        write_connectome(tmp_path, label, edge(value), measure="meanlength")
    summed_up(tmp_path)
    stem = "atlas-A_meas-meanlength"
    assert matrix(tmp_path, f"{stem}_stat-mean")[0, 1] == 40.0
    assert matrix(tmp_path, f"{stem}_stat-sd")[0, 1] == pytest.approx(np.std([30, 50], ddof=1))
    assert matrix(tmp_path, f"{stem}_stat-consistency")[0, 1] == 0.5
    # Nobody has the diagonal: 0, as in the matrices of participants.
    assert matrix(tmp_path, f"{stem}_stat-mean")[0, 0] == 0.0
    assert matrix(tmp_path, f"{stem}_stat-consistency")[0, 0] == 0.0
    assert "that have the edge" in sidecar(tmp_path, f"{stem}_stat-mean")["Description"]


def test_a_mean_length_over_runs_is_over_those_that_have_the_edge(tmp_path):
    for run, value in ((1, 30.0), (2, 0.0)):
        write_connectome(tmp_path, "01", edge(value), run=run, measure="meanlength")
    summed_up(tmp_path)
    assert matrix(tmp_path, "atlas-A_meas-meanlength_stat-mean")[0, 1] == 30.0


def test_every_measure_of_the_settings_has_a_rule_and_a_reason():
    assert set(RULES) == set(MEASURES)
    assert all(rule.reason for rule in RULES.values())
    of_streamlines = {name for name in MEASURES if name.startswith("mean")}
    assert {name for name, rule in RULES.items() if not rule.zero_is_a_value} == of_streamlines


def test_a_measure_of_another_image_is_averaged_as_fa_is():
    assert not rule_of("meanrd").zero_is_a_value
    assert rule_of("volume").zero_is_a_value


def test_nodes_are_aligned_by_name_whatever_their_order(tmp_path):
    counts = symmetric(np.arange(9.0).reshape(3, 3))
    names = ["a", "b", "c"]
    write_connectome(tmp_path, "01", counts, names=names)
    order = [2, 0, 1]
    turned = counts[np.ix_(order, order)]
    write_connectome(tmp_path, "02", turned, names=[names[i] for i in order])
    summed_up(tmp_path)
    np.testing.assert_allclose(matrix(tmp_path, f"{COUNT}_stat-mean"), counts)
    np.testing.assert_allclose(matrix(tmp_path, f"{COUNT}_stat-sd"), 0.0)


def test_who_lacks_which_node_is_said_and_not_averaged(tmp_path):
    full = np.full((3, 3), 4.0)
    write_connectome(tmp_path, "01", np.full((2, 2), 2.0), names=["a", "c"])
    write_connectome(tmp_path, "02", full, names=["a", "b", "c"])
    write_connectome(tmp_path, "03", full, names=["a", "b", "c"])
    notes = summed_up(tmp_path).notes
    mean, names = read_matrix(tmp_path / "made" / f"{COUNT}_stat-mean_relmat.dense.tsv")
    place_of = {name: i for i, name in enumerate(names)}
    assert sorted(names) == ["a", "b", "c"]
    assert mean[place_of["a"], place_of["c"]] == pytest.approx(10 / 3)
    assert mean[place_of["a"], place_of["b"]] == 4.0
    share = matrix(tmp_path, f"{COUNT}_stat-consistency")
    assert (share == 1.0).all()
    assert sidecar(tmp_path, f"{COUNT}_stat-sd")["MissingNodes"] == {"sub-01": ["b"]}
    assert any("sub-01: b" in note for note in notes)


def test_matrices_without_a_common_name_are_refused(tmp_path):
    write_connectome(tmp_path, "01", edge(1.0), names=["a", "b"])
    path = write_connectome(tmp_path, "02", edge(1.0), names=["c", "d"])
    with pytest.raises(InputError, match="not one name in common") as caught:
        summed_up(tmp_path)
    assert caught.value.where == str(path)
    assert caught.value.remedy


def test_a_node_name_that_stands_twice_is_refused(tmp_path):
    write_connectome(tmp_path, "01", edge(1.0), names=["a", "a"])
    with pytest.raises(InputError, match="stand twice"):
        summed_up(tmp_path)


def test_nodes_of_each_participant_take_no_memory_of_all_others(tmp_path):
    for i in range(12):
        write_connectome(tmp_path, f"{i:02d}", np.ones((3, 3)), names=["a", "b", f"own{i:02d}"])
    group = collect(tmp_path, tmp_path, Selection())
    nodes = group.atlases["A"].nodes
    assert len(nodes) == 14
    assert len(nodes._places) < 12
    assert all(len(lacking) == 11 for lacking in nodes.lacking().values())
    assert len(nodes.lacking()) == 12


def test_standard_deviations_of_participants_are_no_connectomes(tmp_path):
    folder = write_connectome(tmp_path, "01", edge(5.0)).parent
    write_connectome(tmp_path, "02", edge(7.0))
    other = folder / "sub-01_atlas-A_meas-count_stat-sd_relmat.dense.tsv"
    other.write_text("x\ty\n99\t99\n99\t99\n")
    summed_up(tmp_path)
    assert matrix(tmp_path, f"{COUNT}_stat-mean")[0, 1] == 6.0


def test_a_matrix_with_zeros_below_the_diagonal_counts_whole(tmp_path):
    write_connectome(tmp_path, "01", np.array([[1.0, 5.0], [0.0, 2.0]]))
    summed_up(tmp_path)
    np.testing.assert_array_equal(matrix(tmp_path, f"{COUNT}_stat-mean"), [[1.0, 5.0], [5.0, 2.0]])


def test_what_is_no_finite_number_is_left_out_and_said(tmp_path):
    write_connectome(tmp_path, "01", edge(np.nan))
    write_connectome(tmp_path, "02", edge(8.0))
    notes = summed_up(tmp_path).notes
    assert matrix(tmp_path, f"{COUNT}_stat-mean")[0, 1] == 8.0
    assert matrix(tmp_path, f"{COUNT}_stat-consistency")[0, 1] == 1.0
    assert any("1 matrices" in note and "sub-01" in note for note in notes)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a\tb\n1\t2\n", "2 cells in 1 rows"),
        ("a\tb\n1\t2\n3\n", "3 cells in 2 rows"),
        ("a\tb\n1\t2\n3\tx\n", "cannot be read"),
        ("", "0 node names"),
    ],
)
def test_a_matrix_that_is_damaged_is_named(tmp_path, text, said):
    path = write_connectome(tmp_path, "01", edge(1.0))
    path.write_text(text)
    with pytest.raises(InputError, match=said) as caught:
        summed_up(tmp_path)
    assert caught.value.where == str(path)


def test_every_digit_is_read_and_n_a_is_no_number(tmp_path):
    path = write_connectome(tmp_path, "01", edge(1.0))
    path.write_text("a\tb c\nn/a\t0.1234567890123\n0.1234567890123\t1e-07\n")
    group = collect(tmp_path, tmp_path, Selection())
    nodes, moments = group.atlases["A"].nodes, group.atlases["A"].moments["count"][""]
    assert nodes.names == ["a", "b c"]
    np.testing.assert_array_equal(moments.statistics(3).mean, [np.nan, 0.1234567890123, 1e-07])


def test_a_file_of_another_participant_is_refused(tmp_path):
    folder, _ = place(tmp_path, "01")
    write_connectome(tmp_path, "02", edge(1.0)).rename(
        folder / "sub-02_atlas-A_meas-count_relmat.dense.tsv"
    )
    with pytest.raises(InputError, match="another participant"):
        summed_up(tmp_path)


def test_a_file_of_another_session_is_refused(tmp_path):
    folder, _ = place(tmp_path, "01")
    write_connectome(tmp_path, "01", edge(1.0), session="A").rename(
        folder / "sub-01_ses-A_atlas-A_meas-count_relmat.dense.tsv"
    )
    with pytest.raises(InputError, match="another participant or session"):
        summed_up(tmp_path)


def test_participants_and_sessions_can_be_chosen(tmp_path):
    for label, value in (("01", 1.0), ("02", 3.0), ("03", 99.0)):
        for session, factor in (("A", 1.0), ("B", 10.0)):
            write_connectome(tmp_path, label, edge(factor * value), session=session)
    summed_up(tmp_path, ["sub-01", "02"], ["ses-A"])
    assert matrix(tmp_path, f"{COUNT}_stat-mean")[0, 1] == 2.0
    assert not list((tmp_path / "made").glob("ses-B_*"))


def test_participants_and_sessions_that_are_not_there_are_named(tmp_path):
    write_connectome(tmp_path, "01", edge(1.0), session="A")
    with pytest.raises(UsageError, match="07") as caught:
        summed_up(tmp_path, ["01", "07"])
    assert "01" in caught.value.remedy
    with pytest.raises(UsageError, match="has these sessions: C"):
        summed_up(tmp_path, None, ["C"])


def test_without_a_connectome_there_is_an_error_with_a_remedy(tmp_path):
    place(tmp_path, "01")
    with pytest.raises(InputError, match="no connectomes") as caught:
        summed_up(tmp_path)
    assert "participant level" in caught.value.remedy


def test_matrices_that_were_made_differently_are_told(tmp_path):
    write_connectome(tmp_path, "01", edge(1.0))
    write_connectome(tmp_path, "02", edge(1.0))
    write_connectome(tmp_path, "03", edge(1.0), Assignment={"RadiusMM": 2.0})
    notes = summed_up(tmp_path).notes
    assert any("Assignment (first sub-01 and sub-03)" in note for note in notes)
    (entry,) = sidecar(tmp_path, f"{COUNT}_stat-mean")["DifferentSettings"].values()
    assert [variant["First"] for variant in entry] == ["sub-01", "sub-03"]


def test_a_matrix_loads_with_one_line_of_pandas_and_is_symmetric(tmp_path):
    rng = np.random.default_rng(1)
    for label in ("01", "02", "03"):
        write_connectome(tmp_path, label, symmetric(rng.random((5, 5))))
    for path in summed_up(tmp_path).matrices:
        frame = pd.read_csv(path, sep="\t")
        assert list(frame.columns) == node_names(5)
        np.testing.assert_array_equal(frame.to_numpy(), frame.to_numpy().T)


def shares(tmp_path):
    """Five participants; node a has edges with b in three, c in two and d in all of them."""
    for i in range(5):
        counts = np.zeros((4, 4))
        counts[0, 1], counts[0, 2], counts[0, 3] = i < 3, i < 2, 1 + i
        write_connectome(tmp_path, f"{i:02d}", symmetric(counts))
        write_connectome(tmp_path, f"{i:02d}", symmetric(counts) * 0.5, measure="meanfa")
    return summed_up(tmp_path)


def test_a_threshold_keeps_edges_that_enough_participants_have(tmp_path):
    kept = threshold_by_consistency(shares(tmp_path).matrices, 0.6, tmp_path / "made")
    consistent = matrix(tmp_path, f"{COUNT}_stat-mean_desc-consistent")
    np.testing.assert_allclose(consistent[0], [0.0, 0.6, 0.0, 3.0])
    mask = matrix(tmp_path, f"{COUNT}_stat-mask_desc-consistent")
    np.testing.assert_array_equal(mask[0], [0, 1, 0, 1])
    np.testing.assert_array_equal(mask, mask.T)
    # All measures have the same edges, and their means are those of before.
    of_fa = matrix(tmp_path, "atlas-A_meas-meanfa_stat-mean_desc-consistent")
    np.testing.assert_allclose(of_fa[0], [0.0, 0.5, 0.0, 1.5])
    said = sidecar(tmp_path, f"{COUNT}_stat-mask_desc-consistent")
    assert (said["EdgesKept"], said["EdgesOfAnyone"]) == (2, 3)
    assert said["ConsistencyThreshold"] == 0.6
    assert "10.1016/j.neuroimage.2012.12.066" in said["Method"]
    assert len(kept) == 3


@pytest.mark.parametrize(("share", "n_kept"), [(0.2, 3), (0.41, 2), (0.61, 1), (1.0, 1)])
def test_a_higher_threshold_keeps_fewer(tmp_path, share, n_kept):
    threshold_by_consistency(shares(tmp_path).matrices, share, tmp_path / "made")
    said = sidecar(tmp_path, f"{COUNT}_stat-mask_desc-consistent")
    assert said["EdgesKept"] == n_kept
