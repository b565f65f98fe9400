"""The figure of nodes: left beside right, the strongest edges, and where they are."""

import time

import numpy as np
import pytest
from matplotlib.text import Text

from difftract_bids.errors import InputError
from difftract_bids.interfaces.reportlets.connectome import PlotNodes
from difftract_bids.io.centroids import read_centroids
from difftract_bids.io.images import save_volume
from difftract_bids.io.matrices import write_matrix, write_table
from difftract_bids.reports.connectome import nodes as nodes_figure
from difftract_bids.reports.connectome.edge_histograms import _weight_bins
from difftract_bids.reports.connectome.glass_brain import strongest_edges
from difftract_bids.reports.connectome.node_pairs import regions, without_side
from difftract_bids.reports.connectome.nodes import plot_nodes

NAMES = ["L_a", "R_b", "L_b", "R_a", "Stem"]
COUNTS = np.array(
    [
        [7.0, 0, 10, 40, 0],
        [0, 0, 0, 5, 0],
        [10, 0, 0, 0, 0],
        [40, 5, 0, 0, 0],
        [0, 0, 0, 0, 3],
    ]
)
PLACES_MM = np.array([[-30.0, 0, 0], [30, 20, 0], [-30, 20, 0], [30, 0, 0], [0, -20, -30]])


@pytest.fixture
def figures(monkeypatch):
    kept = []
    save = nodes_figure.save_svg
    monkeypatch.setattr(
        nodes_figure, "save_svg", lambda figure, path: kept.append(figure) or save(figure, path)
    )
    return kept


def panel(figure, title):
    (axes,) = [one for one in figure.axes if one.get_title(loc="left").startswith(title)]
    return axes


def dots(axes, marker):
    """Value of each row that has such a marker, in one colour after the other."""
    found = {}
    for line in axes.lines:
        if line.get_marker() == marker:
            x, y = line.get_data()
            found[line.get_color()] = dict(
                zip(np.asarray(y).tolist(), np.asarray(x).tolist(), strict=True)
            )
    return list(found.values())


@pytest.mark.parametrize(
    ("name", "bare"),
    [
        ("7Networks_LH_Vis_1", "7Networks_Vis_1"),
        ("HIP-rh", "HIP"),
        ("Right-Thalamus", "Thalamus"),
        ("ctx.lh.cuneus", "ctx.cuneus"),
        ("Larynx", "Larynx"),
        ("L", "L"),
    ],
)
def test_a_name_without_its_side(name, bare):
    assert without_side(name) == bare


def test_nodes_of_both_sides_share_a_row_and_none_is_lost():
    rows = regions([*NAMES, "l_a"])
    assert [(row.name, row.nodes) for row in rows] == [
        ("a", {"left": 0, "right": 3}),
        ("b", {"left": 2, "right": 1}),
        ("Stem", {"midline": 4}),
        ("l_a", {"left": 5}),
    ]


def test_rows_are_sorted_by_group_as_the_matrix_is():
    names = [
        "7Networks_LH_Vis_1",
        "7Networks_LH_Cont_1",
        "7Networks_RH_Vis_1",
        "7Networks_LH_Vis_2",
    ]
    assert [row.name for row in regions(names)] == ["Vis_1", "Vis_2", "Cont_1"]
    assert [row.group for row in regions(NAMES, list("xyxyx"))] == ["x", "x", "x", "y", "y"]


def test_strength_and_degree_leave_out_a_nodes_connection_to_itself(tmp_path, figures):
    plot_nodes(COUNTS, NAMES, None, tmp_path / "n.svg")
    left, right = dots(panel(figures[0], "Strength"), "o")
    assert left == {0: 50, 1: 10}
    assert right == {0: 45, 1: 5}
    assert dots(panel(figures[0], "Strength"), "D") == [{2: 0}]
    assert dots(panel(figures[0], "Degree"), "o") == [{0: 2, 1: 1}, {0: 2, 1: 1}]
    labels = panel(figures[0], "Strength").get_yticklabels()
    assert [label.get_text() for label in labels] == ["a", "b", "Stem"]


def test_a_node_without_streamlines_is_crossed_out(tmp_path, figures):
    plot_nodes(COUNTS, NAMES, None, tmp_path / "n.svg")
    crosses = [line for line in panel(figures[0], "Strength").lines if line.get_marker() == "x"]
    assert [y for line in crosses for y in line.get_ydata()] == [2]


def test_the_strongest_edges_are_found_and_empty_ones_are_not():
    rows, columns = strongest_edges(COUNTS, 2)
    assert list(zip(rows, columns, strict=True)) == [(0, 2), (0, 3)]
    assert len(strongest_edges(COUNTS)[0]) == 3
    assert len(strongest_edges(np.zeros((3, 3)))[0]) == 0


def test_nodes_lie_at_their_centroids_and_edges_between_them(tmp_path, figures):
    places = PLACES_MM.copy()
    places[1] = np.nan  # nowhere: neither a disc nor its edge
    plot_nodes(COUNTS, NAMES, None, tmp_path / "n.svg", centroids_mm=places)
    from_above, from_behind, from_right = figures[0].axes[:3]
    for axes, (across, up) in ((from_above, (0, 1)), (from_behind, (0, 2)), (from_right, (1, 2))):
        lines, discs = axes.collections
        drawn = {tuple(place) for place in discs.get_offsets().tolist()}
        assert drawn == {
            tuple(place) for place in np.delete(PLACES_MM, 1, 0)[:, [across, up]].tolist()
        }
        segments = [segment.tolist() for segment in lines.get_segments()]
        assert segments == [PLACES_MM[[0, end]][:, [across, up]].tolist() for end in (2, 3)]
        widths = lines.get_linewidths()
        assert widths[1] > 2 * widths[0]
    areas = dict(zip(map(tuple, discs.get_offsets().tolist()), discs.get_sizes(), strict=True))
    assert areas[0.0, 0.0] >= 4 * areas[20.0, 0.0]
    said = [text.get_text() for text in figures[0].findobj(Text)]
    assert "discs: strength of the nodes; lines: the 2 strongest edges" in said


def test_the_brain_is_outlined_where_there_is_a_mask(tmp_path, figures):
    mask = np.zeros((20, 20, 20), dtype=bool)
    mask[3:-3, 3:-3, 3:-3] = True
    vox2ras = np.diag([5.0, 5, 5, 1])
    vox2ras[:3, 3] = -50
    brain = {"mask": mask, "vox2ras": vox2ras}
    plot_nodes(COUNTS, NAMES, None, tmp_path / "n.svg", centroids_mm=PLACES_MM, **brain)
    outline = figures[0].axes[0].collections[0].get_paths()[0].vertices
    assert outline.min(axis=0) == pytest.approx([-36, -36], abs=4)
    assert outline.max(axis=0) == pytest.approx([31, 31], abs=4)


def test_lengths_are_weighted_by_streamlines(tmp_path, figures):
    lengths_mm = np.where(COUNTS == 40, 100.0, np.where(COUNTS > 0, 20.0, 0.0))
    plot_nodes(COUNTS, NAMES, lengths_mm, tmp_path / "n.svg")
    numbers, borders, _ = panel(figures[0], "Mean length").patches[0].get_data()
    assert numbers.sum() == 55
    assert numbers[np.searchsorted(borders, 100) - 1] == 40
    said = [text.get_text() for text in figures[0].findobj(Text)]
    assert "median 100 mm" in said
    assert "median 10" in said  # of the weights 5, 10, 40


def test_a_single_edge_is_told_in_whole_numbers_and_its_median_beside_the_line(tmp_path, figures):
    counts = np.zeros((4, 4))
    counts[0, 1] = counts[1, 0] = 1
    names = ["L_a", "R_a", "L_b", "R_b"]
    plot_nodes(counts, names, 140 * counts, tmp_path / "n.svg", centroids_mm=PLACES_MM[:4])
    said = [text.get_text() for text in figures[0].findobj(Text)]
    assert "Weights of 1 edge (17% of all pairs)" in said
    assert "discs: strength of the nodes; lines: the strongest edge" in said
    lengths = panel(figures[0], "Mean length")
    for axis in (
        panel(figures[0], "Strength").xaxis,
        panel(figures[0], "Degree").xaxis,
        lengths.yaxis,
    ):
        labels = [label.get_text() for label in axis.get_ticklabels()]
        assert len(set(labels)) == len(labels), labels
    (median,) = lengths.texts
    box, frame = median.get_window_extent(), lengths.get_window_extent()
    assert frame.x0 < box.x0 < box.x1 <= frame.x1


@pytest.mark.parametrize(
    "weights", [[1, 1, 2, 3, 900], [4], [0.25, 0.5, 3.7], [1e-9, 1e9], [1, 2], []]
)
def test_every_weight_is_in_a_bin_and_whole_numbers_leave_no_gap(weights):
    weights = np.array(weights, dtype=float)
    borders = _weight_bins(weights)
    assert (np.diff(borders) > 0).all()
    assert np.histogram(weights, borders)[0].sum() == len(weights)
    if len(weights) and (weights == np.round(weights)).all() and weights.max() < 1e6:
        np.testing.assert_array_equal(borders, np.round(borders))


def test_two_thousand_nodes_are_drawn_in_seconds_with_their_groups_named(tmp_path, figures):
    rng = np.random.default_rng(0)
    n = 2000
    nets = ("Vis", "Cont")
    names = [f"7Networks_{h}H_{nets[i % 2]}_{i}" for h in "LR" for i in range(n // 2)]
    counts = np.triu(rng.poisson(0.2, (n, n)), 1).astype(float)
    started = time.process_time()
    path = plot_nodes(
        counts + counts.T, names, None, tmp_path / "n.svg", centroids_mm=rng.normal(0, 30, (n, 3))
    )
    assert time.process_time() - started < 20
    assert path.stat().st_size < 1_500_000
    assert figures[0].get_figheight() < 25
    said = [text.get_text() for text in panel(figures[0], "Strength").texts]
    assert said == ["Vis", "Cont"]


def test_arrays_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ValueError, match="mean lengths of shape"):
        plot_nodes(COUNTS, NAMES, np.zeros((4, 4)), tmp_path / "n.svg")


def test_a_connectome_of_nothing_still_gives_a_picture(tmp_path):
    nowhere = np.full((2, 3), np.nan)
    path = plot_nodes(
        np.zeros((2, 2)), ["a", "b"], np.zeros((2, 2)), tmp_path / "n.svg", centroids_mm=nowhere
    )
    assert "<svg" in path.read_text()


def node_table(folder, names, places):
    columns = {"name": list(names)}
    for axis, values in zip("xyz", np.asarray(places).T, strict=True):
        columns[f"{axis}_mm"] = ["n/a" if np.isnan(value) else value for value in values]
    return write_table(columns, folder / "nodeindices.tsv")


def test_centroids_are_found_by_name(tmp_path):
    places = PLACES_MM.copy()
    places[2] = np.nan
    table = node_table(tmp_path, NAMES, places)
    np.testing.assert_array_equal(read_centroids(table, ["R_b", "L_b"]), places[[1, 2]])
    assert np.isnan(read_centroids(table, ["unknown"])).all()


def test_a_table_without_centroids_is_refused(tmp_path):
    table = write_table({"name": ["a"], "x_mm": [1.0]}, tmp_path / "t.tsv")
    with pytest.raises(InputError, match="y_mm"):
        read_centroids(table, ["a"])


def test_the_interface_completes_a_triangle_and_needs_the_matrix_alone(tmp_path, figures):
    matrix = write_matrix(np.triu(COUNTS), NAMES, tmp_path / "count.tsv")
    plot = PlotNodes(matrix=matrix)
    assert plot.run(cwd=tmp_path).outputs.out_report == str(tmp_path / "report.svg")
    assert dots(panel(figures[0], "Strength"), "o")[0] == {0: 50, 1: 10}
    save_volume(np.ones((4, 4, 4), np.uint8), np.diag([20.0, 20, 20, 1]), tmp_path / "mask.nii.gz")
    table = node_table(tmp_path, NAMES, PLACES_MM)
    PlotNodes(matrix=matrix, nodeindices=table, mask=tmp_path / "mask.nii.gz").run(cwd=tmp_path)
    assert len(figures[1].axes) == len(figures[0].axes) + 3
