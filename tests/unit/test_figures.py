"""The report's pictures show the brain the right way round, and what they claim to show."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from dipy.reconst.shm import real_sh_tournier
from matplotlib.colors import to_rgb
from nibabel.affines import from_matvec
from nibabel.eulerangles import euler2mat
from PIL import Image

from difftract_bids.checks.sides import side_of
from difftract_bids.errors import FodfError
from difftract_bids.io.gradients import GradientTable
from difftract_bids.reports.connectome.edges import mark_sides
from difftract_bids.reports.connectome.matrix import (
    _draw_groups,
    group_of,
    node_order,
    plot_connectome,
    side_runs,
)
from difftract_bids.reports.drawing.mosaic import Canonical, Mosaic, Panel
from difftract_bids.reports.drawing.style import (
    OUTLINE,
    direction_colors,
    label_colors,
    new_figure,
    shell_colors,
)
from difftract_bids.reports.fodf import peaks as peaks_figure
from difftract_bids.reports.fodf.peaks import fodf_peaks, plot_fodf_peaks, stick_segments
from difftract_bids.reports.images.fa import plot_fa
from difftract_bids.reports.images.five_tissue_types import plot_five_tissue_types
from difftract_bids.reports.images.gradients import (
    _shell_rows,
    equal_area,
    plot_gradients,
    shell_members,
)
from difftract_bids.reports.images.outlines import plot_mask, plot_parcellation, plot_registration
from difftract_bids.reports.streamlines.tractogram import _segments, plot_tractogram

SIZES_MM = np.array([2.0, 2.5, 4.0])
VOX2RAS = from_matvec(np.diag(SIZES_MM), [-40.0, -50.0, -40.0])
SHAPE = (41, 41, 21)
#: The same grid stored with its axes permuted and two of them reversed.
STORED = ((2, 1, 0), (1, 2))


def ball(radius_mm: float = 30.0, centre_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)):
    points = np.stack(np.indices(SHAPE), axis=-1) * SIZES_MM + VOX2RAS[:3, 3]
    return np.linalg.norm(points - centre_mm, axis=-1) <= radius_mm


def stored_otherwise(volume):
    axes, reversed_axes = STORED
    return np.flip(volume.transpose(axes), reversed_axes)


def affine_of_stored():
    axes, reversed_axes = STORED
    affine = VOX2RAS[:, [*axes, 3]].copy()
    for axis in reversed_axes:
        affine[:, 3] += affine[:, axis] * (SHAPE[axes[axis]] - 1)
        affine[:, axis] *= -1
    return affine


def pictures(path):
    """Every picture embedded in an SVG, bottom row first, as RGBA from 0 to 1."""
    codes = re.findall(r"data:image/\w+;base64,\s*([^\"]+)\"", path.read_text())
    read = [Image.open(io.BytesIO(base64.b64decode(code))).convert("RGBA") for code in codes]
    return [np.flipud(np.asarray(picture) / 255) for picture in read]


def test_a_mosaic_is_the_same_however_the_image_is_stored():
    volume = np.random.default_rng(0).random(SHAPE)
    plain = Mosaic(ball(), VOX2RAS)
    other = Mosaic(stored_otherwise(ball()), affine_of_stored())
    turned = other.grid.turn(stored_otherwise(volume))
    np.testing.assert_allclose(other.grid.vox2ras, VOX2RAS, atol=1e-12)
    for a, b in zip(plain, other, strict=True):
        np.testing.assert_array_equal(a.take(plain.grid.turn(volume)), b.take(turned))


def test_right_front_and_top_are_drawn_right_front_and_up():
    mosaic = Mosaic(stored_otherwise(ball()), affine_of_stored())
    position_mm = np.stack(np.indices(SHAPE), axis=-1) * SIZES_MM + VOX2RAS[:3, 3]
    turned = mosaic.grid.turn(stored_otherwise(position_mm.transpose(3, 0, 1, 2)[0]))
    assert (np.diff(mosaic.panels[0].take(turned), axis=1) > 0).all()  # x grows to the right
    for number, row in enumerate(("xy", "xz", "yz")):
        panel = mosaic.panels[7 * number]
        for name, axis in zip(row, (1, 0), strict=True):
            along = stored_otherwise(position_mm[..., "xyz".index(name)])
            assert (np.diff(panel.take(mosaic.grid.turn(along)), axis=axis) > 0).all()
    written = [text.get_text() for text in mosaic.panels[0].axes.texts]
    assert {"L", "R", "A", "P"} <= set(written)


def test_slices_keep_their_proportions_in_millimetres():
    for panel in Mosaic(ball(), VOX2RAS):
        left, right, bottom, top = panel.extent_mm
        frame = panel.axes.get_window_extent()
        assert frame.height / frame.width == pytest.approx((top - bottom) / (right - left))


def test_slice_labels_are_scanner_coordinates():
    mosaic = Mosaic(ball(), VOX2RAS)
    panel = mosaic.panels[3]
    assert panel.axes.texts[0].get_text() == f"z = {4 * panel.index - 40} mm"


def test_the_mask_is_outlined_on_every_slice_that_cuts_it(tmp_path):
    path = plot_mask(ball().astype(np.float32), ball(), VOX2RAS, tmp_path / "mask.svg")
    assert path.read_text().count(f"stroke: {OUTLINE}") == 21


def test_the_half_of_the_brain_that_a_mask_lacks_is_in_its_picture(tmp_path):
    right = np.arange(SHAPE[0])[:, None, None] >= SHAPE[0] // 2
    whole, half = (
        pictures(plot_mask(ball().astype(np.float32), mask, VOX2RAS, tmp_path / "mask.svg"))
        for mask in (ball(), ball() & right)
    )
    assert [picture.shape for picture in half[:14]] == [picture.shape for picture in whole[:14]]


def test_an_empty_mask_still_gives_a_picture(tmp_path):
    path = plot_mask(np.ones(SHAPE), np.zeros(SHAPE, dtype=bool), VOX2RAS, tmp_path / "mask.svg")
    assert f"stroke: {OUTLINE}" not in path.read_text()
    assert len(pictures(path)) == 21


def test_an_image_of_one_slice_still_gives_pictures(tmp_path):
    inside = ball()[..., SHAPE[2] // 2 : SHAPE[2] // 2 + 1]
    b0, labels = inside.astype(np.float32), inside.astype(int)
    fodf = inside[..., None] * delta(np.array([0.1, 1.0, 0.2]), lmax=4)
    tissues = np.zeros((*inside.shape, 5))
    tissues[..., 2] = inside
    drawn = [
        plot_mask(b0, inside, VOX2RAS, tmp_path / "mask.svg"),
        plot_parcellation(b0, labels, inside, VOX2RAS, tmp_path / "dseg.svg"),
        plot_registration(b0, inside, VOX2RAS, b0, VOX2RAS, tmp_path / "coreg.svg"),
        plot_five_tissue_types(tissues, VOX2RAS, b0, VOX2RAS, tmp_path / "tissue.svg"),
        plot_fodf_peaks(fodf, 0.5 * inside, inside, VOX2RAS, tmp_path / "fodf.svg"),
    ]
    assert [len(pictures(path)) >= 6 for path in drawn] == [True] * 5
    assert f"stroke: {OUTLINE}" in drawn[0].read_text()


def test_figures_are_the_same_bytes_each_time(tmp_path):
    first, second = (
        plot_mask(np.ones(SHAPE), ball(), VOX2RAS, tmp_path / name) for name in ("a.svg", "b.svg")
    )
    assert first.read_bytes() == second.read_bytes()


def test_touching_parcels_are_both_outlined_in_their_own_colours(tmp_path):
    labels = np.where(ball(), 7, 0)
    labels[21:] = np.where(ball(), 3, 0)[21:]
    colors = {7: "#ff0000", 3: "#00ff00"}
    path = plot_parcellation(
        np.ones(SHAPE), labels, ball(), VOX2RAS, tmp_path / "dseg.svg", colors=colors
    )
    overlays = [picture for picture in pictures(path) if picture[..., 3].min() == 0]
    middle = overlays[3]
    drawn = {tuple(pixel[:3]) for pixel in middle[middle[..., 3] > 0]}
    assert drawn == {(1.0, 0.0, 0.0), (0.0, 1.0, 0.0)}
    red = np.flatnonzero(((middle[..., 0] > 0) & (middle[..., 3] > 0)).any(axis=0))
    green = np.flatnonzero(((middle[..., 1] > 0) & (middle[..., 3] > 0)).any(axis=0))
    assert red.max() + 1 == green.min()  # left parcel red, right parcel green, no gap


@pytest.mark.parametrize("shift_mm", [0.0, 8.0])
def test_edges_of_the_t1w_lie_where_the_t1w_is(tmp_path, shift_mm):
    t1w_vox2ras = VOX2RAS.copy()
    t1w_vox2ras[0, 3] += shift_mm
    inner = 100.0 * ball(20.0) + 50.0 * ball(35.0)
    path = plot_registration(
        np.ones(SHAPE), ball(35.0), VOX2RAS, inner, t1w_vox2ras, tmp_path / "coreg.svg"
    )
    edges = [picture for picture in pictures(path) if picture[..., 3].min() == 0][3][..., 3] > 0
    row = np.flatnonzero(edges[edges.shape[0] // 2])
    mosaic = Mosaic(ball(35.0), VOX2RAS)
    left_mm = mosaic.panels[3].extent_mm[0] + VOX2RAS[0, 3]
    across_mm = left_mm + (row + 0.5) * SIZES_MM[0] / 4
    for expected in (-20.0, 20.0):
        assert np.abs(across_mm - (expected + shift_mm)).min() < 1.5


@pytest.mark.parametrize(("axis", "channel"), [(0, 0), (1, 1), (2, 2)])
def test_fa_colours_follow_scanner_axes_not_voxel_axes(tmp_path, axis, channel):
    v1 = np.zeros((*SHAPE, 3))
    v1[..., axis] = -1.0
    path = plot_fa(
        stored_otherwise(ball() * 0.5),
        np.flip(v1.transpose(2, 1, 0, 3), (1, 2)),
        stored_otherwise(ball()),
        affine_of_stored(),
        tmp_path / "fa.svg",
    )
    brightest = pictures(path)[3][..., :3].max(axis=(0, 1))
    assert brightest[channel] == pytest.approx(0.5 / 0.7, abs=0.01)
    assert np.delete(brightest, channel).max() == 0


def delta(direction, lmax=8):
    """SH coefficients of a fibre in one direction, unit integral, apodised."""
    x, y, z = direction / np.linalg.norm(direction)
    basis, _, degree = real_sh_tournier(lmax, np.arccos([z]), np.arctan2([y], [x]), legacy=False)
    return basis[0] * np.exp(-0.02 * degree * (degree + 1))


def angle_deg(a, b):
    cosine = abs(a @ b) / np.linalg.norm(a) / np.linalg.norm(b)
    return np.rad2deg(np.arccos(min(cosine, 1.0)))


def test_peaks_lie_along_the_fibres_in_scanner_axes():
    first, second = np.array([0.8, 0.5, 0.2]), np.array([-0.3, 0.1, 0.9])
    peaks = fodf_peaks(np.stack([delta(first), delta(first) + 0.8 * delta(second)]))
    assert angle_deg(peaks[0, 0], first) < 5
    assert angle_deg(peaks[1, 0], first) < 6
    assert angle_deg(peaks[1, 1], second) < 6
    assert not peaks[0, 1:].any()


def test_peaks_below_the_cutoff_are_left_out():
    sh_coeffs = delta(np.array([1.0, 0, 0]))[None]
    amplitude = np.linalg.norm(fodf_peaks(sh_coeffs)[0, 0])
    assert fodf_peaks(sh_coeffs, cutoff=0.95 * amplitude).any()
    assert not fodf_peaks(sh_coeffs, cutoff=1.05 * amplitude).any()


def test_coefficients_of_no_even_degree_are_refused():
    with pytest.raises(FodfError, match="16 coefficients"):
        fodf_peaks(np.zeros((1, 16)))


def test_sticks_follow_the_voxels_of_an_oblique_image():
    rotation = euler2mat(z=0.3, y=0.2, x=-0.1)
    grid = Canonical(from_matvec(rotation * SIZES_MM, [1.0, 2.0, 3.0]), SHAPE)
    axes = new_figure(4, 4).add_axes((0, 0, 1, 1))
    panel = Panel(axes, "axial", 10, ((0, 41), (0, 41), (0, 21)), grid.voxel_sizes_mm)
    peaks = np.zeros((41, 41, 3, 3))
    peaks[20, 5, 0] = rotation[:, 0]  # along the image's own first axis
    (segment,), (color,) = stick_segments(panel, peaks, grid.rotation, full=1.0)
    np.testing.assert_allclose(segment.mean(axis=0), [5 * 2.0, 20 * 2.5])
    assert segment[1, 1] == pytest.approx(segment[0, 1])
    assert abs(segment[1, 0] - segment[0, 0]) == pytest.approx(2.0)
    np.testing.assert_allclose(color, np.abs(rotation[:, 0]) / np.abs(rotation[:, 0]).max())


def test_the_picture_of_fodfs_has_a_slice_of_each_plane_and_its_close_up(tmp_path):
    fodf = ball()[..., None] * delta(np.array([0.1, 1.0, 0.2]), lmax=4)
    drawn = pictures(plot_fodf_peaks(fodf, 0.5 * ball(), ball(), VOX2RAS, tmp_path / "fodf.svg"))
    empty = pictures(plot_fodf_peaks(0 * fodf, 0.5 * ball(), ball(), VOX2RAS, tmp_path / "n.svg"))
    assert len(drawn) == len(empty) == 6
    for number, (with_fibres, without) in enumerate(zip(drawn, empty, strict=True)):
        assert without[..., :3].std(axis=-1).max() < 0.02  # grey alone
        coloured = with_fibres[with_fibres[..., :3].std(axis=-1) > 0.2][:, :3]
        assert len(coloured) > 300, number
        assert (coloured.argmax(axis=1) == 1).mean() > 0.7, number  # front to back is green


def test_the_close_up_shows_the_voxels_that_are_framed(tmp_path, monkeypatch):
    fodf = np.zeros((*SHAPE, 15))
    right, front = delta(np.array([1.0, 0, 0]), 4), delta(np.array([0, 1.0, 0]), 4)
    fodf[ball()] = right
    fodf[25:33, 22:30, 8:13] = right + front  # the only crossing, at the right
    seen, draw = [], peaks_figure.draw_glyphs

    def keep(panel, *given, **named):
        seen.append(panel)
        draw(panel, *given, **named)

    monkeypatch.setattr(peaks_figure, "draw_glyphs", keep)
    plot_fodf_peaks(fodf, 0.5 * ball(), ball(), VOX2RAS, tmp_path / "fodf.svg")
    axial = seen[0]
    # Millimetres from the first voxel: the picture covers the window, and that the crossing.
    left, right_end, bottom, top = axial.axes.images[0].get_extent()
    (x0, x1), (y0, y1) = axial.axes.get_xlim(), axial.axes.get_ylim()
    assert x1 - x0 == pytest.approx(48.0)
    assert left <= x0 < 51
    assert 63 < x1 <= right_end
    assert bottom <= y0 < 58
    assert 69 < y1 <= top
    assert axial.extent_mm == (left, right_end, bottom, top)


def test_segments_cover_streamlines_from_end_to_end():
    line = np.stack([np.linspace(0, 10.1, 102), np.zeros(102), np.zeros(102)], axis=1)
    points, offsets = np.concatenate([line, line[:1], line + 5]), np.array([0, 102, 103, 205])
    segments = _segments(points, offsets, np.array([0, 1, 2]))
    lengths = np.linalg.norm(segments[:, 1] - segments[:, 0], axis=1)
    assert lengths.sum() == pytest.approx(2 * 10.1)
    assert lengths.max() <= 1.6
    np.testing.assert_array_equal(segments[0, 0], line[0])
    np.testing.assert_array_equal(segments[-1, 1], line[-1] + 5)


def test_streamlines_are_drawn_in_the_colour_of_their_direction(tmp_path):
    line = np.stack([np.zeros(50), np.linspace(-25, 25, 50), np.zeros(50)], axis=1)
    points, offsets = np.tile(line, (30, 1)), np.arange(31) * 50
    path = plot_tractogram(points, offsets, ball(), VOX2RAS, tmp_path / "tracks.svg")
    above, _, right = pictures(path)
    for picture in (above, right):
        assert picture[..., 3].min() == 1  # on black, which compresses
        drawn = picture[picture[..., 1] > 0.2][:, :3]
        assert len(drawn) > 100
        assert drawn[:, [0, 2]].max() < 0.1


def test_an_empty_tractogram_still_gives_a_picture(tmp_path):
    path = plot_tractogram(np.zeros((0, 3)), np.zeros(1, int), ball(), VOX2RAS, tmp_path / "t.svg")
    assert "<svg" in path.read_text()


def test_a_part_of_a_large_tractogram_is_chosen_by_the_seed(tmp_path):
    rng = np.random.default_rng(1)
    points, offsets = rng.normal(size=(400, 3)) * 10, np.arange(101) * 4
    a, b, c = (
        plot_tractogram(
            points,
            offsets,
            ball(),
            VOX2RAS,
            tmp_path / f"{i}.svg",
            max_streamlines=10,
            random_seed=seed,
        ).read_bytes()
        for i, seed in enumerate((0, 0, 1))
    )
    assert a == b
    assert a != c


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("7Networks_LH_Vis_1", "left"),
        ("HIP-rh", "right"),
        ("L_05", "left"),
        ("Right-Thalamus", "right"),
        ("ctx.lh.cuneus", "left"),
        ("Brainstem", "midline"),
        ("RostralPole", "midline"),
        ("Larynx", "midline"),
        ("Left Thalamus", "left"),
        ("ctx_rh_G_L_x", "right"),
    ],
)
def test_the_side_is_read_from_the_name(name, side):
    assert side_of(name) == side


def test_networks_are_read_from_schaefers_names_only():
    assert group_of("7Networks_LH_SalVentAttn_Med_1") == "SalVentAttn"
    assert group_of("HIP-rh") == ""


def test_nodes_are_sorted_by_side_then_group_and_none_is_lost():
    sides = ["right", "left", "right", "left", "midline"]
    groups = ["b", "a", "a", "b", ""]
    assert node_order(sides, groups) == [3, 1, 0, 2, 4]


def test_edges_without_streamlines_are_blank(tmp_path):
    counts = np.zeros((4, 4))
    counts[0, 1] = counts[1, 0] = 10
    counts[2, 2] = 1000
    names = ["L_a", "R_b", "L_c", "R_d"]
    cells = pictures(plot_connectome(counts, names, tmp_path / "relmat.svg"))[0]
    blank = np.isclose(cells[..., :3], to_rgb("#eeeeee"), atol=0.01).all(axis=-1)
    assert blank.mean() == pytest.approx(13 / 16, abs=0.02)


def test_hemispheres_are_headings_only_where_names_tell_them():
    assert side_runs(["left", "midline"]) == [("left", (0, 1)), ("midline", (1, 2))]
    assert side_runs(["midline"] * 3) == []
    for sides, told in ((["left", "right"], ["left", "right"]), (["midline"] * 2, [])):
        axes = new_figure(1, 1).subplots()
        mark_sides(axes, sides)
        _draw_groups(axes, sides, ["", ""])
        assert [text.get_text() for text in axes.texts] == 2 * told


def test_a_matrix_that_does_not_fit_its_names_is_refused(tmp_path):
    with pytest.raises(ValueError, match="3 node names"):
        plot_connectome(np.zeros((2, 2)), ["a", "b", "c"], tmp_path / "x.svg")


def test_a_connectome_without_streamlines_still_gives_a_picture(tmp_path):
    path = plot_connectome(np.zeros((2, 2)), ["a", "b"], tmp_path / "x.svg")
    assert "<svg" in path.read_text()


def table(n=60):
    rng = np.random.default_rng(0)
    bvecs = rng.normal(size=(n, 3))
    bvecs /= np.linalg.norm(bvecs, axis=1, keepdims=True)
    bvals = np.repeat([0.0, 995.0, 1005.0, 2000.0], n // 4)
    bvecs[bvals == 0] = 0
    return GradientTable(bvals, bvecs)


def test_every_weighted_volume_is_in_one_shell():
    gradients = table()
    members = shell_members(gradients)
    assert [round(mean) for mean, _ in members] == [1000, 2000]
    np.testing.assert_array_equal(
        sum(where.astype(int) for _, where in members), ~gradients.b0_mask
    )


def many_shells(n):
    bvals = np.repeat(500.0 * np.arange(n + 1), 6)
    bvecs = np.tile(np.eye(3), (2 * (n + 1), 1)) * (bvals > 0)[:, None]
    return GradientTable(bvals, bvecs)


@pytest.mark.parametrize("n", [2, 7, 12])
def test_no_two_shells_have_one_colour(n):
    colors = np.array([to_rgb(color) for color in shell_colors(n)])
    apart = np.linalg.norm(colors[:, None] - colors, axis=-1)[np.triu_indices(n, 1)]
    assert apart.min() > 0.05
    assert colors.mean(axis=1).max() < 0.75  # on white


@pytest.mark.parametrize(("n", "rows"), [(2, 3), (6, 7), (7, 7), (30, 7)])
def test_the_table_of_shells_ends_within_the_figure(n, rows):
    told = _shell_rows(many_shells(n))
    assert len(told) == rows
    assert sum(volumes for _, _, volumes, _ in told) == 6 * (n + 1)
    assert told[-1][0] == (f"and {n - 5} more" if n > 6 else f"b={500 * n}")
    assert told[-1][3] == (f"3000 to {500 * n}" if n > 6 else f"{500 * n}")


def test_the_projection_of_the_sphere_keeps_areas():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(20_000, 3))
    points = np.abs(points / np.linalg.norm(points, axis=1, keepdims=True)) * [1, 1, 1]
    share = (np.linalg.norm(equal_area(points), axis=1) < 0.5).mean()
    assert share == pytest.approx(0.25, abs=0.01)


def test_every_direction_is_drawn_on_one_disc_and_its_opposite_on_the_other(tmp_path):
    text = plot_gradients(table(), tmp_path / "gradients.svg").read_text()
    discs = text[text.index('id="axes_3"') :]
    marks = re.findall(r"<use [^>]*style=\"([^\"]*)\"", discs)
    filled = sum("fill: none" not in style for style in marks)
    assert filled == 45
    assert len(marks) - filled == 45


def test_the_signal_of_each_volume_is_drawn_and_a_lost_one_is_a_gap(tmp_path):
    signal = np.ones(len(table().bvals_s_mm2))
    signal[4] = 0.0
    text = plot_gradients(table(), tmp_path / "gradients.svg", signal=signal).read_text()
    panel = text[text.index('id="axes_2"') : text.index('id="axes_3"')]
    bars = [corners.split() for corners in re.findall(r'd="([^"]*)" clip-path', panel)]
    heights = [float(bar[2]) - float(bar[8]) for bar in bars]
    assert len(bars) == len(signal)
    assert heights[4] == 0
    assert sum(height > 40 for height in heights) == len(signal) - 1


def test_directions_and_labels_get_colours_that_differ():
    np.testing.assert_allclose(direction_colors(np.array([[0, 0, -3.0], [0, 0, 0]]))[0], [0, 0, 1])
    colors = label_colors(120)
    assert np.linalg.norm(np.diff(colors, axis=0), axis=1).min() > 0.3
