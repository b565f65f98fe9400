"""The connectome in a browser: what is in the page is the matrix, in the figure's order."""

from __future__ import annotations

import base64
import json
import re

import numpy as np
import pytest

from difftract_bids.reports.connectome.matrix_view import EdgeMeasure, write_matrix_view

NAMES = ["7Networks_RH_Vis_1", "7Networks_LH_Vis_1", "Brain-Stem", "7Networks_LH_Cont_1"]
#: Left, then right, then midline; groups in the order in which the atlas has them.
ORDER = [1, 3, 0, 2]
COUNTS = np.array([[4, 0, 7, 0], [0, 0, 0, 120], [7, 0, 0, 3], [0, 120, 3, 0]], dtype=float)


def payload_of(path):
    (text,) = re.findall(
        r'<script type="application/json">(.*?)</script>', path.read_text(encoding="utf-8")
    )
    return json.loads(text)


def decoded(entry):
    kind = {"Uint8Array": "u1", "Uint16Array": "<u2", "Uint32Array": "<u4"}[entry["type"]]
    return np.frombuffer(base64.b64decode(entry["base64"]), dtype=kind)


def matrices_of(payload):
    """Rebuild the matrices as the script does, in the order shown."""
    n_nodes = len(payload["names"])
    places = np.cumsum(decoded(payload["gaps"]).astype(int))
    matrices = {}
    for measure in payload["measures"]:
        values = decoded(measure["values"]).astype(float)
        if measure["least"] is not None:
            values = np.where(
                values > 0, measure["least"] * np.exp(measure["ratio"] * (values - 1)), 0
            )
        half = np.zeros(n_nodes * n_nodes)
        half[places] = values
        half = half.reshape(n_nodes, n_nodes)
        matrices[measure["key"]] = np.maximum(half, half.T)
    return matrices


def some_connectome(n_nodes, density, seed=0):
    rng = np.random.default_rng(seed)
    there = np.triu(rng.random((n_nodes, n_nodes)) < density)
    counts = np.where(there, np.ceil(np.exp(rng.normal(1, 2, there.shape))), 0)
    lengths = np.where(there, rng.uniform(5, 250, there.shape), 0)
    weights = np.where(there, np.exp(rng.normal(0, 2, there.shape)), 0)
    return {"count": counts, "meanlength": lengths, "sift2": weights}


def test_the_page_holds_the_matrix_in_the_order_of_the_figure(tmp_path):
    payload = payload_of(write_matrix_view(COUNTS, NAMES, tmp_path / "a.html"))
    assert payload["names"] == ["LH_Vis_1", "LH_Cont_1", "RH_Vis_1", "Brain-Stem"]
    np.testing.assert_array_equal(matrices_of(payload)["count"], COUNTS[np.ix_(ORDER, ORDER)])
    assert payload["sides"] == [
        {"name": "left", "first": 0, "last": 1},
        {"name": "right", "first": 2, "last": 2},
        {"name": "midline", "first": 3, "last": 3},
    ]
    groups = [(group["name"], group["first"]) for group in payload["groups"]]
    assert groups == [("Vis", 0), ("Cont", 1), ("Vis", 2)]
    assert payload["groups"][0]["color"] == payload["groups"][2]["color"]


def test_there_is_no_heading_where_names_tell_no_sides(tmp_path):
    payload = payload_of(write_matrix_view(COUNTS, list("abcd"), tmp_path / "a.html"))
    assert payload["sides"] == []


@pytest.mark.parametrize("n_nodes", [5, 300])
def test_all_values_of_all_edges_come_back(tmp_path, n_nodes):
    given = some_connectome(n_nodes, 0.3)
    given["meanlength"][0, 0] = np.nan
    measures = {
        "meanlength": EdgeMeasure("Mean length", given["meanlength"], "mm"),
        "sift2": EdgeMeasure("SIFT2", given["sift2"].T, logarithmic=True),
    }
    names = [f"node {i}" for i in range(n_nodes)]
    path = write_matrix_view(given["count"], names, tmp_path / "a.html", measures=measures)
    found = matrices_of(payload_of(path))
    np.testing.assert_array_equal(found["count"], np.maximum(given["count"], given["count"].T))
    for key in measures:
        half = np.nan_to_num(given[key])
        np.testing.assert_allclose(found[key], np.maximum(half, half.T), rtol=2e-4)


def test_counts_that_are_sums_of_weights_are_kept_to_four_digits(tmp_path):
    payload = payload_of(write_matrix_view(0.37 * COUNTS, NAMES, tmp_path / "a.html", unit="mass"))
    found = matrices_of(payload)["count"]
    np.testing.assert_allclose(found, 0.37 * COUNTS[np.ix_(ORDER, ORDER)], rtol=2e-4)
    assert payload["measures"][0]["title"] == "Mass"


def test_a_thousand_nodes_and_a_hundred_thousand_edges_stay_below_two_megabytes(tmp_path):
    given = some_connectome(1000, 0.2)
    measures = {
        key: EdgeMeasure(key, given["sift2"]) for key in ("sift2", "meanfa", "meanmd", "length")
    }
    names = [f"7Networks_LH_Default_{i}" for i in range(1000)]
    path = write_matrix_view(given["count"], names, tmp_path / "a.html", measures=measures)
    assert len(decoded(payload_of(path)["gaps"])) > 99_000
    assert path.stat().st_size < 2e6


def test_an_edge_is_there_when_any_measure_knows_it(tmp_path):
    lengths = np.zeros((4, 4))
    lengths[0, 1] = 31.5
    measures = {"meanlength": EdgeMeasure("Mean length", lengths, "mm")}
    path = write_matrix_view(COUNTS, NAMES, tmp_path / "a.html", measures=measures)
    found = matrices_of(payload_of(path))
    assert found["meanlength"][2, 0] == pytest.approx(31.5)
    assert found["count"][2, 0] == 0
    assert "4 nodes, 3 edges" in path.read_text(encoding="utf-8")


def test_one_edge_is_one_edge(tmp_path):
    path = write_matrix_view(np.eye(2)[::-1], ["a", "b"], tmp_path / "a.html")
    assert path.read_text(encoding="utf-8").count("2 nodes, 1 edge") == 2
    assert "1 edges" not in path.read_text(encoding="utf-8")


def test_a_connectome_without_edges_still_gives_a_matrix(tmp_path):
    empty = np.zeros((4, 4))
    measures = {"meanfa": EdgeMeasure("Mean FA", empty)}
    payload = payload_of(write_matrix_view(empty, NAMES, tmp_path / "a.html", measures=measures))
    assert not matrices_of(payload)["count"].any()


def test_a_matrix_that_does_not_fit_its_names_is_refused(tmp_path):
    measures = {"meanfa": EdgeMeasure("Mean FA", np.zeros((3, 3)))}
    with pytest.raises(ValueError, match=r"meanfa .* 4 node names"):
        write_matrix_view(COUNTS, NAMES, tmp_path / "a.html", measures=measures)


def test_names_cannot_end_the_script_and_come_back_as_they_were(tmp_path):
    names = ["</script>", "<!--", 'a"b', "ventro-médial"]
    path = write_matrix_view(COUNTS, names, tmp_path / "a.html", atlas="<i>")
    assert payload_of(path)["names"] == names
    assert "<i>" not in path.read_text(encoding="utf-8")
