"""The report's pictures of what an edge depends on, and of how certain each edge is."""

from __future__ import annotations

import base64
import io
import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from nibabel.affines import from_matvec
from PIL import Image

from difftract_bids.reports.connectome import edge_errors, sensitivity
from difftract_bids.reports.connectome.edge_errors import plot_edge_errors, uncertain_strong_edges
from difftract_bids.reports.connectome.sensitivity import NODE_COLORS, plot_sensitivity, slices_of

SHAPE = (30, 36, 24)
VOX2RAS = from_matvec(np.diag([3.0, 3.0, 3.0]), [-45.0, -54.0, -36.0])
NODES = {7: "LH-Precentral", 39: "Brainstem"}
PANELS_PER_ROW = 6


def brain():
    place = (np.stack(np.indices(SHAPE), axis=-1) - np.array(SHAPE) / 2) / np.array(SHAPE)
    return np.linalg.norm(place, axis=-1) < 0.4


def parcellation():
    labels = np.zeros(SHAPE, dtype=int)
    labels[6:9, 15:20, 14:17] = 7
    labels[13:17, 15:20, 5:8] = 39
    return labels


def blob(value=1.0):
    magnitude = np.zeros(SHAPE)
    magnitude[7:10, 16:19, 12:16] = value
    return magnitude


@pytest.fixture
def figures(monkeypatch):
    """Every figure saved while a test runs, beside the file itself."""
    saved: list[Figure] = []
    for module in (sensitivity, edge_errors):
        save = module.save_svg

        def keep(figure, path, save=save):
            saved.append(figure)
            return save(figure, path)

        monkeypatch.setattr(module, "save_svg", keep)
    return saved


def draw(path, magnitude=None, nodes=NODES, **changed):
    given_ = {
        "background": brain() * 0.5,
        "vox2ras": VOX2RAS,
        "parcellation": parcellation(),
        "what": "this edge",
        "units": "streamlines",
        **changed,
    }
    return plot_sensitivity(
        blob() if magnitude is None else magnitude, nodes=nodes, path=path, **given_
    )


def overlays(figure):
    """What lies over the background: RGBA of each panel, six to a row, axial row first."""
    return [
        image.get_array()
        for axes in figure.axes
        for image in axes.get_images()
        if image.get_array().ndim == 3
    ]


def words(figure):
    everywhere = [*figure.texts, *(text for axes in figure.axes for text in axes.texts)]
    return " ".join(text.get_text() for text in everywhere)


def lines_of(figure, color):
    return [line for axes in figure.axes for line in axes.get_lines() if line.get_color() == color]


def test_colour_lies_on_sensitive_voxels_and_on_no_other(tmp_path, figures):
    draw(tmp_path / "a.svg")
    axial = overlays(figures[0])[PANELS_PER_ROW // 2]  # the slice at the median
    rows, columns = np.nonzero(axial[..., 3] > 0)
    assert (len(set(rows)), len(set(columns))) == (3, 3)
    assert (axial[rows, columns, 3] == 1).all()


def test_the_first_panel_of_a_row_is_the_maximum_of_all_slices(tmp_path, figures):
    magnitude = blob()
    magnitude[20, 20, 4] = 1.0  # in none of the slices that show the blob
    draw(tmp_path / "a.svg", magnitude)
    n_colored = [int((picture[..., 3] > 0).sum()) for picture in overlays(figures[0])]
    assert n_colored[0] == 3 * 3 + 1
    assert max(n_colored[1:PANELS_PER_ROW]) == 3 * 3
    assert n_colored[PANELS_PER_ROW] == 3 * 4 + 1


def test_the_scale_is_logarithmic_and_a_single_bright_voxel_does_not_stretch_it(tmp_path, figures):
    rng = np.random.default_rng(0)
    magnitude = np.where(brain(), 10 ** rng.uniform(-1, 0, SHAPE), 0.0)
    magnitude[10, 10, 10] = 1e6
    draw(tmp_path / "a.svg", magnitude)
    bar = figures[0].axes[-1]
    low, high = bar.get_xlim()
    assert bar.get_xscale() == "log"
    assert high == pytest.approx(np.percentile(magnitude[magnitude > 0], 99.5))
    assert low == pytest.approx(high / 100)
    assert "99.5th percentile" in bar.get_xlabel()
    assert "streamlines" in bar.get_xlabel()


def test_what_is_weak_lets_the_anatomy_through(tmp_path, figures):
    magnitude = blob()
    magnitude[7, 16:19, 12:16] = 0.03
    magnitude[8, 16:19, 12:16] = 0.005
    draw(tmp_path / "a.svg", magnitude)
    axial = overlays(figures[0])[PANELS_PER_ROW // 2]
    alpha = sorted(set(np.round(axial[..., 3].ravel(), 3)))
    assert alpha[0] == 0.0
    assert 0.2 < alpha[1] < 0.9
    assert alpha[2:] == [1.0]


def test_slices_are_where_the_sensitivity_is(tmp_path, figures):
    draw(tmp_path / "a.svg")
    # Voxels 12 to 15 of an axis that begins at -36 mm: the median is 13.
    assert "z = 3 mm" in words(figures[0])
    assert "x = -21 mm" in words(figures[0])


def test_sides_are_written_in_each_row(tmp_path, figures):
    draw(tmp_path / "a.svg")
    for row, ends in enumerate(("LRAP", "LRSI", "PASI")):
        written = {text.get_text() for text in figures[0].axes[row * PANELS_PER_ROW].texts}
        assert set(ends) <= written


def test_nodes_are_outlined_along_their_voxels_and_named(tmp_path, figures):
    draw(tmp_path / "a.svg")
    for (label, name), color in zip(NODES.items(), NODE_COLORS, strict=True):
        axes = figures[0].axes[0]  # axial, all slices: the node's shadow
        (line,) = [one for one in axes.get_lines() if one.get_color() == color]
        place_mm = np.array(line.get_data())
        inside = np.argwhere(parcellation() == label)[:, :2]
        np.testing.assert_allclose(np.nanmin(place_mm, axis=1), (inside.min(axis=0) - 0.5) * 3)
        np.testing.assert_allclose(np.nanmax(place_mm, axis=1), (inside.max(axis=0) + 0.5) * 3)
        extent = np.ptp(inside, axis=0) + 1
        assert np.isnan(place_mm).any(axis=0).sum() == 2 * extent.sum()  # a stroke per face
        named = [text.get_text() for text in figures[0].legends[0].get_texts()]
        assert name in named


def test_long_names_stay_clear_of_the_title(tmp_path, figures):
    names = [f"ctx_{side}_G_and_S_cingul-Mid-Post-and-what-follows-it" for side in ("lh", "rh")]
    draw(tmp_path / "a.svg", nodes=dict(zip(NODES, names, strict=True)), what=" x ".join(names))
    figure = figures[0]
    title = figure.texts[0].get_window_extent()
    assert title.x1 < figure.legends[0].get_window_extent().x0


def test_a_stored_order_of_axes_changes_nothing(tmp_path):
    def turned(volume):
        return volume.transpose(2, 0, 1)[:, ::-1]

    other = VOX2RAS[:, [2, 0, 1, 3]].copy()
    other[:, 3] += other[:, 1] * (SHAPE[0] - 1)
    other[:, 1] *= -1
    plain = draw(tmp_path / "a.svg")
    stored = draw(
        tmp_path / "b.svg",
        turned(blob()),
        background=turned(brain() * 0.5),
        parcellation=turned(parcellation()),
        vox2ras=other,
    )
    assert plain.read_bytes() == stored.read_bytes()


def test_half_of_the_sum_is_found_in_the_strongest_voxels(tmp_path, figures):
    magnitude = blob(1.0)  # 36 voxels
    magnitude[20, 20, 10] = magnitude[21, 20, 10] = 18.0
    draw(tmp_path / "a.svg", magnitude)
    assert "Half of the sum lies in 2 of 38 voxels above zero (0.054 cm³)" in words(figures[0])


@pytest.mark.parametrize("nodes", [NODES, {}])
def test_an_edge_that_nothing_changes_says_so_over_its_nodes(tmp_path, figures, nodes):
    draw(tmp_path / "a.svg", np.zeros(SHAPE), nodes)
    assert "Nothing in the image changes this edge" in words(figures[0])
    assert not overlays(figures[0])
    assert all(len(lines_of(figures[0], color)) > 3 for color in NODE_COLORS[: len(nodes)])


def test_an_empty_brain_still_gives_a_picture(tmp_path):
    nothing = np.zeros(SHAPE)
    path = draw(tmp_path / "a.svg", nothing, {}, background=nothing)
    assert "<svg" in path.read_text()


def test_without_nodes_there_is_no_outline_and_no_legend(tmp_path, figures):
    draw(tmp_path / "a.svg", nodes={})
    assert not figures[0].legends
    assert not any(lines_of(figures[0], color) for color in NODE_COLORS)


def test_the_picture_in_the_file_is_that_of_the_figure(tmp_path):
    codes = re.findall(
        r"data:image/png;base64,\s*([^\"]+)\"", draw(tmp_path / "a.svg").read_text()
    )
    read = [Image.open(io.BytesIO(base64.b64decode(code))).convert("RGBA") for code in codes]
    colored = [one for one in read if np.asarray(one)[..., 3].min() == 0]
    assert len(colored) >= 3 * PANELS_PER_ROW


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"magnitude": blob(-1.0)}, "36 voxels .* negative or not finite"),
        ({"magnitude": blob(np.nan)}, "36 voxels .* negative or not finite"),
        ({"parcellation": parcellation()[1:]}, "parcellation of shape .* not on the grid"),
        ({"background": np.ones((2, 2, 2))}, "background of shape .* not on the grid"),
        ({"nodes": {1: "a", 2: "b", 3: "c"}}, "at most two nodes, not 3"),
    ],
)
def test_images_that_cannot_be_drawn_are_refused(tmp_path, changed, message):
    with pytest.raises(ValueError, match=message):
        draw(tmp_path / "a.svg", **changed)


def test_slices_stand_at_quantiles_of_the_weight():
    assert slices_of(np.ones(100)) == [9, 29, 49, 69, 89]
    assert slices_of(np.eye(100)[40], apart=3) == [34, 37, 40, 43, 46]


@given(
    st.lists(st.floats(0, 1e6, allow_subnormal=False), min_size=1, max_size=60).filter(any),
    st.integers(1, 5),
)
def test_slices_are_inside_and_apart_wherever_there_is_room(weight, apart):
    found = slices_of(np.array(weight), apart=apart)
    assert len(found) == 5
    assert min(found) >= 0
    assert max(found) < len(weight)
    away = [index for index in found if 0 < index < len(weight) - 1]
    assert all(later - former >= apart for former, later in pairwise(away))


NAMES = ["LH-A", "RH-B", "LH-C", "RH-D"]


def symmetric(**edges):
    matrix = np.zeros((4, 4))
    for nodes, value in edges.items():
        i, j = (int(digit) for digit in nodes.strip("n"))
        matrix[i, j] = matrix[j, i] = value
    return matrix


COUNT = symmetric(n01=100.0, n02=90.0, n03=2.0, n12=80.0, n33=1.0)
SD = symmetric(n01=5.0, n02=30.0, n03=3.0, n12=0.0, n33=0.5)


def test_the_least_certain_strong_edge_is_strong():
    # n03 is less certain, but weak; n12 is strong, but not among those that hold half.
    assert uncertain_strong_edges(COUNT, SD) == [(0, 2), (0, 1)]
    assert uncertain_strong_edges(COUNT, SD, 1) == [(0, 2)]
    assert uncertain_strong_edges(0 * COUNT, 0 * SD) == []


def test_every_edge_is_a_point_and_those_without_error_are_counted(tmp_path, figures):
    plot_edge_errors(COUNT, SD, NAMES, tmp_path / "a.svg")
    scatter = figures[0].axes[0]
    points = {tuple(point) for point in np.asarray(scatter.collections[0].get_offsets())}
    assert points == {(100.0, 5.0), (90.0, 30.0), (2.0, 3.0), (1.0, 0.5)}
    assert scatter.get_title(loc="left") == "4 edges, 1 more with a standard deviation of 0"


def test_the_line_of_a_poisson_count_is_its_square_root(tmp_path, figures):
    plot_edge_errors(COUNT, SD, NAMES, tmp_path / "a.svg")
    scatter = figures[0].axes[0]
    x, y = scatter.get_lines()[0].get_data()
    np.testing.assert_allclose(y, np.sqrt(x))
    assert "√count" in words(figures[0])


def test_the_matrix_is_the_standard_deviation_relative_to_the_count(tmp_path, figures):
    plot_edge_errors(COUNT, SD, NAMES, tmp_path / "a.svg")
    (image,) = figures[0].axes[1].get_images()
    cells = image.get_array()
    # Sorted by side: 0 and 2 left, then 1 and 3 right.
    assert cells[0, 1] == cells[1, 0] == pytest.approx(30 / 90)
    assert cells[0, 2] == pytest.approx(5 / 100)
    assert 0 < cells[1, 2] < 1e-6  # certain: not blank, as an edge without streamlines is
    assert cells.mask[1, 3]


def test_named_edges_carry_their_number_in_both_panels(tmp_path, figures):
    plot_edge_errors(COUNT, SD, NAMES, tmp_path / "a.svg")
    assert "1  LH-A \u2013 LH-C: 90 ± 30 (33%)" in words(figures[0])
    scatter, matrix = figures[0].axes[:2]
    numbers = {text.get_text(): text.xy for text in scatter.texts}
    assert numbers["1"] == (90.0, 30.0)
    assert {text.get_text(): text.xy for text in matrix.texts if hasattr(text, "xy")} == {
        "1": (1, 0),
        "2": (2, 0),
    }


def test_a_connectome_without_edges_or_without_errors_still_gives_a_picture(tmp_path):
    for number, (count, sd) in enumerate([(0 * COUNT, 0 * SD), (COUNT, 0 * SD)]):
        path = plot_edge_errors(count, sd, NAMES, tmp_path / f"{number}.svg")
        assert "<svg" in path.read_text()


@pytest.mark.parametrize(
    ("count", "sd", "message"),
    [
        (COUNT[:3, :3], SD, "count of shape .* 4 node names"),
        (COUNT, SD[:3, :3], "standard deviation of shape .* 4 node names"),
        (COUNT, -SD, "7 entries of the standard deviation"),
        (COUNT, np.full((4, 4), np.nan), "16 entries of the standard deviation"),
    ],
)
def test_errors_that_cannot_be_drawn_are_refused(tmp_path, count, sd, message):
    with pytest.raises(ValueError, match=message):
        plot_edge_errors(count, sd, NAMES, tmp_path / "a.svg")
