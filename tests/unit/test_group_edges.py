"""The table of all edges of a group, and what is read off it."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from groups import node_names, symmetric, write_connectome

from difftract_bids.errors import InputError
from difftract_bids.group import edge_table
from difftract_bids.group.collect import collect
from difftract_bids.group.edge_table import KEYS
from difftract_bids.group.files import Selection
from difftract_bids.group.similarity import similarity_with_others

N = 6


def connectomes(out, n_participants=4, sessions=(None,), seed=0):
    """Write random counts; give them by participant and session."""
    rng = np.random.default_rng(seed)
    usual = rng.gamma(1.0, 20.0, (N, N))
    made = {}
    for i in range(n_participants):
        for session in sessions:
            counts = symmetric(rng.poisson(usual * rng.gamma(2.0, 0.5, (N, N))))
            write_connectome(out, f"{i:02d}", counts, session=session)
            made[f"{i:02d}", session] = counts.astype(float)
    return made


def table_of(out):
    collect(out, out, Selection())
    return out / "edges.parquet"


def test_each_edge_of_each_run_is_a_row(tmp_path):
    made = connectomes(tmp_path, 3, ("A", "B"))
    frame = pd.read_parquet(table_of(tmp_path))
    assert list(frame.columns) == [*KEYS, "count"]
    assert len(frame) == 6 * N * (N + 1) // 2
    one = frame[(frame.participant_id == "sub-01") & (frame.session_id == "ses-B")]
    names = node_names(N)
    for _, row in one.iterrows():
        i, j = names.index(row["node_1"]), names.index(row["node_2"])
        assert i <= j
        assert row["count"] == made["01", "B"][i, j]
    assert set(one["run"]) == {"sub-01_ses-B"}
    assert set(one["atlas"]) == {"A"}


def test_names_are_stored_once_and_sessions_may_be_missing(tmp_path):
    connectomes(tmp_path, 2)
    path = table_of(tmp_path)
    schema = pq.read_schema(path)
    assert all(str(schema.field(key).type).startswith("dictionary<") for key in KEYS)
    assert pd.read_parquet(path)["session_id"].isna().all()


def test_a_measure_is_null_where_there_is_no_such_matrix_or_no_streamline(tmp_path):
    counts = np.array([[0.0, 2.0], [2.0, 0.0]])
    write_connectome(tmp_path, "01", counts)
    write_connectome(tmp_path, "01", counts * 15, measure="meanlength")
    write_connectome(tmp_path, "02", counts)
    frame = pd.read_parquet(table_of(tmp_path)).set_index(["participant_id", "node_1", "node_2"])
    first, second = node_names(2)
    assert frame.loc[("sub-01", first, second), "meanlength"] == 30.0
    assert np.isnan(frame.loc[("sub-01", first, first), "meanlength"])
    assert frame.loc[("sub-01", first, first), "count"] == 0.0
    assert frame.loc["sub-02", "meanlength"].isna().all()


def test_atlases_stand_one_below_the_other(tmp_path):
    write_connectome(tmp_path, "01", np.eye(2), atlas="A")
    write_connectome(tmp_path, "01", np.eye(3), atlas="B", names=["x", "y", "z"])
    frame = pd.read_parquet(table_of(tmp_path))
    assert frame.groupby("atlas", observed=True).size().to_dict() == {"A": 3, "B": 6}


def test_rows_are_written_while_runs_come(tmp_path, monkeypatch):
    monkeypatch.setattr(edge_table, "_GROUP_ROWS", 30)
    made = connectomes(tmp_path, 7)
    path = table_of(tmp_path)
    groups = pq.ParquetFile(path)
    assert groups.num_row_groups == 4  # of two runs, which have 21 rows each
    whole = pd.read_parquet(path).groupby("run", observed=True)["count"].sum()
    for (label, _), counts in made.items():
        assert whole[f"sub-{label}"] == np.triu(counts).sum()


def test_a_table_that_is_given_up_leaves_no_file(tmp_path):
    connectomes(tmp_path, 2)
    for broken in tmp_path.rglob("*_relmat.dense.tsv"):
        broken.write_text("a\tb\n1\n")
    with pytest.raises(InputError):
        table_of(tmp_path)
    assert not [path for path in tmp_path.iterdir() if "parquet" in path.name]


def brute_force_similarity(made, participant, session):
    """Correlation with the mean of the others, by its definition."""
    pairs = np.triu_indices(N, k=1)
    logs = {key: np.log1p(counts[pairs]) for key, counts in made.items()}
    labels = {label for label, _ in logs} - {participant}
    others = [
        np.mean([values for (label, _), values in logs.items() if label == other], axis=0)
        for other in labels
    ]
    return np.corrcoef(logs[participant, session], np.mean(others, axis=0))[0, 1]


@pytest.mark.parametrize("group_rows", [1, 1 << 18])
def test_similarity_is_the_correlation_with_the_mean_of_the_others(
    tmp_path, monkeypatch, group_rows
):
    monkeypatch.setattr(edge_table, "_GROUP_ROWS", group_rows)
    made = connectomes(tmp_path, 4, ("A", "B"))
    found = similarity_with_others(table_of(tmp_path))
    assert len(found) == 8
    for label, session in made:
        expected = brute_force_similarity(made, label, session)
        assert found[f"sub-{label}_ses-{session}", "A"] == pytest.approx(expected, abs=1e-9)


def test_similarity_is_by_the_names_of_nodes(tmp_path):
    made = connectomes(tmp_path, 4)
    straight = similarity_with_others(table_of(tmp_path))
    order = np.random.default_rng(3).permutation(N)
    names = node_names(N)
    turned = made["02", None][np.ix_(order, order)]
    write_connectome(tmp_path, "02", turned, names=[names[i] for i in order])
    again = similarity_with_others(table_of(tmp_path))
    assert again == pytest.approx(straight, abs=1e-12)


def test_similarity_is_with_those_who_have_the_edge(tmp_path):
    made = connectomes(tmp_path, 4)
    lacking = 2
    kept = [i for i in range(N) if i != lacking]
    fewer = made["03", None][np.ix_(kept, kept)]
    write_connectome(tmp_path, "03", fewer, names=[node_names(N)[i] for i in kept])
    pairs = np.triu_indices(N, k=1)
    logs = {label: np.log1p(counts) for (label, _), counts in made.items()}
    logs["03"][lacking] = logs["03"][:, lacking] = np.nan
    others = np.nanmean([logs[label] for label in ("01", "02", "03")], axis=0)
    expected = np.corrcoef(logs["00"][pairs], others[pairs])[0, 1]
    found = similarity_with_others(table_of(tmp_path))
    assert found["sub-00", "A"] == pytest.approx(expected, abs=1e-9)


def test_a_connectome_unlike_the_others_has_the_least_similarity(tmp_path):
    made = connectomes(tmp_path, 8)
    order = np.random.default_rng(1).permutation(N)
    write_connectome(tmp_path, "05", made["05", None][np.ix_(order, order)])
    found = similarity_with_others(table_of(tmp_path))
    assert min(found, key=found.get) == ("sub-05", "A")


def test_one_participant_is_like_nobody(tmp_path):
    connectomes(tmp_path, 1)
    assert np.isnan(similarity_with_others(table_of(tmp_path))["sub-00", "A"])


def test_without_counts_there_is_no_similarity(tmp_path):
    write_connectome(tmp_path, "01", np.eye(3), measure="sift2")
    assert similarity_with_others(table_of(tmp_path)) == {}


def test_what_is_no_table_of_edges_is_refused_by_name(tmp_path):
    (tmp_path / "edges.parquet").write_text("no")
    with pytest.raises(InputError, match="table of edges"):
        similarity_with_others(tmp_path / "edges.parquet")
