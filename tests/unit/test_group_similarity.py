"""Each run of a group against each other: the table, its order and its picture."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from groups import node_names, symmetric, write_connectome

from difftract_bids.cli.group import run_group
from difftract_bids.config import GroupConfig
from difftract_bids.errors import InputError
from difftract_bids.group import between_runs, correlations
from difftract_bids.group.between_runs import compare_runs, write_similarity
from difftract_bids.group.correlations import correlations as correlate
from difftract_bids.group.files import Selection
from difftract_bids.group.similarity import similarity_with_others
from difftract_bids.group.summarise import summarise
from difftract_bids.reports.group import similarity_matrix
from difftract_bids.reports.group.files import QualityTable, read_similarities
from difftract_bids.reports.group.runs import _outliers
from difftract_bids.reports.group.similarity import similarity_items
from difftract_bids.reports.group.similarity_matrix import (
    SimilarRuns,
    _apart,
    _scale,
    family_order,
    plot_similarity,
)

N = 6
STEM = "atlas-A_meas-count_similarity"


def random_counts(n_runs, seed=0):
    rng = np.random.default_rng(seed)
    return [symmetric(rng.poisson(rng.gamma(0.5, 20.0, (N, N)))) for _ in range(n_runs)]


def write_runs(out, matrices, **more):
    for i, counts in enumerate(matrices):
        write_connectome(out, f"{i:02d}", counts, **more)
    return out


def compared(out):
    files, notes = compare_runs(summarise(out, out, Selection()).edges, out)
    assert notes == []
    return {path.name: pd.read_csv(path, sep="\t", index_col="run") for path in files}


def log_pairs(matrices):
    return np.array([np.log1p(counts[np.triu_indices(N, k=1)]) for counts in matrices])


def families(sizes=(6, 5), *, within=0.95, between=0.8, odd=0.2):
    """Correlations of two families that are mixed, and one run unlike both."""
    n_runs = sum(sizes)
    member = np.random.default_rng(1).permutation(np.repeat([0, 1], sizes))
    matrix = np.where(member[:, None] == member, within, between)
    matrix += 0.01 * symmetric(np.random.default_rng(2).random((n_runs, n_runs)))
    matrix = np.pad(matrix, (0, 1), constant_values=odd)
    np.fill_diagonal(matrix, 1.0)
    return matrix, member


def runs_of(matrix, *, apart=(), pages=None, n_sessions=1):
    n_runs = len(matrix)
    return SimilarRuns(
        matrix=matrix,
        runs=[f"sub-{i // n_sessions:03d}_ses-{i % n_sessions}" for i in range(n_runs)],
        participants=[f"sub-{i // n_sessions:03d}" for i in range(n_runs)],
        apart=[i in apart for i in range(n_runs)],
        pages=pages or [""] * n_runs,
    )


@pytest.mark.parametrize("block_rows", [1, 3, 100])
def test_it_is_the_correlation_of_numpy(tmp_path, monkeypatch, block_rows):
    monkeypatch.setattr(between_runs, "_BLOCK_BYTES", 1)
    monkeypatch.setattr(between_runs, "_LEAST_ROWS", block_rows)
    made = random_counts(8)
    table = compared(write_runs(tmp_path, made))[f"{STEM}.tsv"]
    assert list(table.index) == list(table.columns) == [f"sub-{i:02d}" for i in range(8)]
    np.testing.assert_allclose(table, np.corrcoef(log_pairs(made)), atol=1e-5)


def test_pairs_of_values_that_one_lacks_are_left_out(monkeypatch):
    monkeypatch.setattr(correlations, "_COLUMNS", 7)  # of which some have no gap
    rng = np.random.default_rng(0)
    a, b = rng.normal(5.0, 1.0, (4, 30)), rng.normal(5.0, 1.0, (3, 30))
    a[0, 3], a[1, 10:], b[2, [3, 12, 29]] = np.nan, np.nan, np.nan
    found = correlate(a, b)
    for i, x in enumerate(a):
        for k, y in enumerate(b):
            both = np.isfinite(x) & np.isfinite(y)
            assert found[i, k] == pytest.approx(np.corrcoef(x[both], y[both])[0, 1], abs=1e-12)


def test_rounding_of_values_that_are_all_the_same_does_not_correlate():
    rng = np.random.default_rng(0)
    same = np.log1p(np.arange(1.0, 31.0))[:, None].repeat(500, axis=1)
    same[:, 400:] += rng.normal(size=100)  # where the other one has no values
    other = rng.normal(size=(1, 500))
    other[:, 400:] = np.nan
    assert np.isnan(correlate(same, other)).all()
    assert np.isnan(correlate(other, same)).all()


def test_runs_with_other_nodes_are_compared_by_those_of_both(tmp_path):
    made = random_counts(4)
    names = node_names(N)
    order = [5, 3, 0, 1, 2]  # without node 4
    for i, counts in enumerate(made):
        kept = order if i == 0 else range(N)  # later rows are longer
        write_connectome(
            tmp_path, f"{i:02d}", counts[np.ix_(kept, kept)], names=[names[k] for k in kept]
        )
    found = compared(tmp_path)[f"{STEM}.tsv"]
    without = np.delete(np.delete(np.array(made), 4, axis=1), 4, axis=2)
    x, y = (np.log1p(counts[np.triu_indices(N - 1, k=1)]) for counts in without[:2])
    assert found.iloc[0, 1] == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-5)
    assert found.iloc[1, 2] == pytest.approx(np.corrcoef(log_pairs(made))[1, 2], abs=1e-5)


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_an_empty_or_constant_matrix_has_no_correlation(tmp_path, value):
    made = [*random_counts(3), np.full((N, N), value)]
    write_runs(tmp_path, made)
    found = compared(tmp_path)[f"{STEM}.tsv"]
    assert found.iloc[3].isna().all()
    assert found.iloc[:, 3].isna().all()
    assert found.iloc[:3, :3].notna().all(axis=None)
    assert "\tn/a" in (tmp_path / f"{STEM}.tsv").read_text()
    # Nor with the mean of the others: rounding must not correlate.
    assert np.isnan(similarity_with_others(tmp_path / "edges.parquet")["sub-03", "A"])


def test_each_atlas_has_its_own_runs(tmp_path):
    write_runs(tmp_path, random_counts(3))
    write_runs(tmp_path, random_counts(2, seed=1), atlas="B")
    write_connectome(tmp_path, "00", random_counts(1)[0], atlas="C")
    found = compared(tmp_path)
    assert {name: len(table) for name, table in found.items()} == {
        f"{STEM}.tsv": 3,
        "atlas-B_meas-count_similarity.tsv": 2,
    }
    said = json.loads((tmp_path / "atlas-B_meas-count_similarity.json").read_text())
    assert (said["Atlas"], said["RunCount"]) == ("B", 2)


def test_without_counts_runs_are_not_compared(tmp_path):
    write_runs(tmp_path, random_counts(3), measure="meanfa")
    assert compared(tmp_path) == {}


def test_of_too_many_runs_a_note_says_that_they_are_not_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(between_runs, "MOST_RUNS", 3)
    write_runs(tmp_path, random_counts(4))
    write_runs(tmp_path, random_counts(3), atlas="B")
    said = run_group(tmp_path, GroupConfig(), None, None, work_dir=tmp_path / "work")
    assert any("4 runs of atlas A are not compared" in line for line in said)
    assert [path.name for path in (tmp_path / "group").glob("*_similarity.tsv")] == [
        "atlas-B_meas-count_similarity.tsv"
    ]
    text = (tmp_path / "group.html").read_text()
    assert "4 runs of atlas A are not compared" in text
    assert 'id="atlas-A-similarity"' not in text
    assert 'id="atlas-B-similarity"' in text


def test_of_a_single_run_an_earlier_table_and_picture_do_not_stay(tmp_path):
    write_runs(tmp_path, random_counts(3))
    run_group(tmp_path, GroupConfig(), None, None, work_dir=tmp_path / "work")
    assert len(list(tmp_path.glob("group/**/*_similarity.*"))) == 3
    run_group(tmp_path, GroupConfig(), ["01"], None, work_dir=tmp_path / "work")
    assert not list(tmp_path.glob("group/**/*_similarity.*"))


def test_what_is_written_is_read_again(tmp_path):
    matrix, _ = families()
    matrix[3, :] = matrix[:, 3] = np.nan
    runs = [f"sub-{i:02d}" for i in range(len(matrix))]
    path = write_similarity(matrix, runs, tmp_path / f"{STEM}.tsv")
    path.with_suffix(".json").write_text('{"Atlas": "A"}')
    found = read_similarities([path])["A"]
    assert found.runs == runs
    np.testing.assert_allclose(found.matrix, matrix, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("run\ta\tb\na\t1\t0\n", "not the same runs"),
        ("run\ta\tb\nb\t1\t0\na\t0\t1\n", "not the same runs"),
        ("run\ta\na\tmuch\n", "cannot be read"),
        ("", "cannot be read"),
    ],
)
def test_a_table_that_is_broken_is_refused_by_name(tmp_path, text, said):
    path = tmp_path / f"{STEM}.tsv"
    path.write_text(text)
    path.with_suffix(".json").write_text('{"Atlas": "A"}')
    with pytest.raises(InputError, match=said) as caught:
        read_similarities([path])
    assert caught.value.where == str(path)


@pytest.mark.parametrize("sizes", [(6, 5), (200, 150)])
def test_families_stand_together_and_the_odd_run_is_last(sizes):
    matrix, member = families(sizes)
    order = family_order(matrix)
    assert sorted(order) == list(range(len(matrix)))
    assert order[-1] == len(matrix) - 1
    assert np.count_nonzero(np.diff(member[order[:-1]])) == 1


def test_runs_without_a_correlation_come_after_all_others():
    matrix, _ = families()
    matrix[2, :] = matrix[:, 2] = np.nan
    assert family_order(matrix)[-2:] == [11, 2]


def test_pairs_of_one_person_and_of_different_people_are_told_apart():
    matrix = np.full((4, 4), 0.5)
    matrix[0, 1] = matrix[1, 0] = 0.9
    matrix[2, 3] = matrix[3, 2] = np.nan
    same, different = runs_of(matrix, n_sessions=2).pairs()
    assert same.tolist() == [0.9]
    assert different.tolist() == [0.5] * 4


def test_one_odd_run_does_not_take_the_scale():
    values = np.array([*np.linspace(0.90, 0.94, 80), 0.1])
    norm, clipped = _scale(values)
    assert 0.8 < norm.vmin < 0.9
    assert norm.vmax == 0.94
    assert clipped
    assert not _scale(values[:-1])[1]


def test_names_do_not_touch_and_stay_beside_the_matrix():
    heights = _apart([0, 50, 97, 98, 99], 4.0, 100)
    assert heights == [0.0, 50.0, 91.0, 95.0, 99.0]


def test_cells_of_many_runs_are_means_of_what_is_known(monkeypatch):
    monkeypatch.setattr(similarity_matrix, "MOST_CELLS", 2)
    matrix = np.array([[1.0, 0.9, 0.2], [0.9, 1.0, 0.4], [0.2, 0.4, 1.0]])
    cells, step = similarity_matrix.binned(matrix)
    assert step == 2
    # A run with itself counts for nothing; of the third alone nothing is left.
    np.testing.assert_allclose(cells, [[0.9, 0.3], [0.3, np.nan]], rtol=1e-6)


def names_in(path):
    # Text is drawn as outlines; what it says stands in a comment before it.
    return re.findall(r"<!-- +(sub-\S+) +-->", path.read_text())


def test_few_runs_are_all_named_and_lead_to_their_reports(tmp_path):
    matrix, _ = families()
    pages = [f"sub-{i:03d}.html" for i in range(len(matrix) - 1)] + [""]
    path = plot_similarity(runs_of(matrix, pages=pages), tmp_path / "few.svg")
    assert len(names_in(path)) == 12
    assert set(re.findall(r'xlink:href="(sub[^"]+)"', path.read_text())) == set(pages[:-1])


def test_of_many_runs_those_that_stand_apart_are_named_and_those_without_a_number(tmp_path):
    matrix, _ = families((40, 30))
    matrix[5, :] = matrix[:, 5] = np.nan
    path = plot_similarity(runs_of(matrix, apart=[70]), tmp_path / "many.svg")
    assert names_in(path) == ["sub-070_ses-0", "sub-005_ses-0"]


def test_of_too_many_that_stand_apart_the_rest_is_counted(tmp_path):
    matrix, _ = families((40, 30))
    path = plot_similarity(runs_of(matrix, apart=range(30)), tmp_path / "many.svg")
    assert len(names_in(path)) == 24
    assert "<!-- and 6 more  -->" in path.read_text()


def test_fewer_than_three_runs_that_can_be_compared_are_not_drawn(tmp_path):
    matrix = np.eye(3)
    matrix[2, :] = matrix[:, 2] = np.nan
    shown = runs_of(matrix)
    path = write_similarity(matrix, list(shown.runs), tmp_path / f"{STEM}.tsv")
    path.with_suffix(".json").write_text('{"Atlas": "A"}')
    empty = QualityTable([], {})
    assert similarity_items("A", read_similarities([path])["A"], empty, [], tmp_path) == []
    assert similarity_items("A", None, empty, [], tmp_path) == []


def test_the_page_shows_it_with_what_good_looks_like_and_the_medians(tmp_path):
    base = random_counts(1)[0] + 1
    rng = np.random.default_rng(3)
    for i in range(6):
        own = base * rng.lognormal(0, 0.5, base.shape)
        for session in ("A", "B"):
            counts = np.zeros((N, N)) if (i, session) == (4, "B") else symmetric(rng.poisson(own))
            write_connectome(tmp_path, f"{i:02d}", counts, session=session)
        (tmp_path / f"sub-{i:02d}.html").write_text("<html></html>")
    run_group(tmp_path, GroupConfig(), None, None, work_dir=tmp_path / "work")
    text = (tmp_path / "group.html").read_text()
    start = text.index('<div class="item" id="atlas-A-similarity">')
    shown = text[start : text.index("</section>", start)]
    assert "Good: one even block" in shown
    assert (
        'role="img" aria-label="Matrix of the correlations between the connectomes of 12' in shown
    )
    assert "1 run has an empty matrix or a constant one" in shown
    assert 'xlink:href="sub-03.html"' in shown
    table = pd.read_csv(tmp_path / "group" / f"{STEM}.tsv", sep="\t", index_col="run")
    same = [table.loc[f"sub-{i:02d}_ses-A", f"sub-{i:02d}_ses-B"] for i in range(6) if i != 4]
    assert f"{np.median(same):.3f} of the same person" in shown
    assert (tmp_path / "group" / "figures" / "atlas-A_similarity.svg").is_file()
    # Two drawings are in the page: their parts must not go by the same names.
    names = re.findall(r'\bid="([^"]+)"', text)
    assert len(names) == len(set(names))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', text)) <= set(names)


@pytest.mark.parametrize(("value", "far"), [("1", "-inf"), ("3", "+inf")])
def test_a_run_below_runs_that_are_all_the_same_is_below_them(value, far):
    rows = [{"run": "sub-01", "seeds": value, "outliers": "seeds"}]
    said = {"LongName": "Seeds", "Median": 2.0, "RobustSD": 0.0, "Good": "The same."}
    (told,) = _outliers(QualityTable(rows, {"seeds": said}), [""])
    assert f"{told['z']:+.1f}" == far
