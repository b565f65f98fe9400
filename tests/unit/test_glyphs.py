"""Glyphs of fODFs point where the fibres do, in every plane and on every grid."""

import numpy as np
import pytest
from dipy.reconst.shm import real_sh_tournier
from nibabel.affines import from_matvec
from nibabel.eulerangles import euler2mat

from difftract_bids.errors import FodfError
from difftract_bids.reports.drawing.mosaic import PLANES, Canonical, Panel
from difftract_bids.reports.drawing.style import new_figure
from difftract_bids.reports.fodf.glyphs import draw_glyphs, glyphs, view_axes

PIXELS = 32


def fibre(direction, lmax=8, weight=1.0):
    """SH coefficients of one fibre, apodised."""
    x, y, z = np.asarray(direction) / np.linalg.norm(direction)
    basis, _, degree = real_sh_tournier(lmax, np.arccos([z]), np.arctan2([y], [x]), legacy=False)
    return weight * basis[0] * np.exp(-0.02 * degree * (degree + 1))


#: Amplitude of a fibre along itself: the sum of (2 l + 1) / 4 pi, apodised.
PEAK = sum((2 * n + 1) / (4 * np.pi) * np.exp(-0.02 * n * (n + 1)) for n in range(0, 9, 2))


def ball(radius, lmax=8):
    coefficients = np.zeros((lmax + 1) * (lmax + 2) // 2)
    coefficients[0] = radius * np.sqrt(4 * np.pi)
    return coefficients


def painted(coefficients, plane="axial", full=PEAK, rotation=None):
    viewer = view_axes(plane) if rotation is None else view_axes(plane) @ rotation.T
    colors, cover = glyphs(np.asarray(coefficients)[None], viewer, full=full, pixels=PIXELS)
    return colors[0], cover[0]


def tilt_deg(cover):
    """Angle of the longest axis of a shape to the right, and its length over its width."""
    up, across = np.indices(cover.shape) - (len(cover) - 1) / 2
    weights = cover / cover.sum()
    moments = np.array(
        [
            [(weights * across * across).sum(), (weights * across * up).sum()],
            [(weights * across * up).sum(), (weights * up * up).sum()],
        ]
    )
    values, vectors = np.linalg.eigh(moments)
    return np.rad2deg(np.arctan2(*vectors[::-1, 1])) % 180, np.sqrt(values[1] / values[0])


def test_planes_are_seen_from_above_from_behind_and_from_the_right():
    towards = {plane: view_axes(plane)[2].tolist() for plane in PLANES}
    assert towards == {"axial": [0, 0, 1], "coronal": [0, -1, 0], "sagittal": [1, 0, 0]}
    for plane in PLANES:
        assert np.linalg.det(view_axes(plane)) == pytest.approx(1.0)


@pytest.mark.parametrize("plane", ["axial", "coronal"])
def test_a_fibre_to_the_right_is_long_across_the_picture_and_red(plane):
    colors, cover = painted(fibre([1, 0, 0]), plane)
    angle, elongation = tilt_deg(cover)
    assert min(angle, 180 - angle) < 1
    assert elongation > 3
    reach = np.flatnonzero(cover.max(axis=0) > 0.2)
    assert reach.min() <= 1  # it reaches both borders
    assert reach.max() >= PIXELS - 2
    red, green, blue = colors.sum(axis=(0, 1))
    assert red > 2 * max(green, blue)


def test_a_fibre_at_the_viewer_is_a_round_spot():
    colors, cover = painted(fibre([1, 0, 0]), "sagittal")
    assert tilt_deg(cover)[1] == pytest.approx(1.0, abs=0.1)
    assert colors.sum(axis=(0, 1)).argmax() == 0


@pytest.mark.parametrize(
    ("plane", "direction", "expected_deg"),
    [
        ("axial", [1, 1, 0], 45),
        ("axial", [-2, 1, 0], 180 - 26.6),
        ("coronal", [1, 0, 2], 63.4),
        ("coronal", [-1, 0, 1], 135),
        ("sagittal", [0, 1, 1], 45),
        ("sagittal", [0, 2, -1], 180 - 26.6),
    ],
)
def test_a_tilted_fibre_is_tilted_as_it_is_and_not_mirrored(plane, direction, expected_deg):
    _, cover = painted(fibre(direction), plane)
    assert tilt_deg(cover)[0] == pytest.approx(expected_deg, abs=2)


@pytest.mark.parametrize("plane", list(PLANES))
def test_near_lobes_hide_far_ones(plane):
    right, up, near = view_axes(plane)
    # On the right, the steep fibre is before the flat one; on the left it is behind it.
    both = fibre(0.6 * right + 0.8 * near) + fibre(0.8 * right - 0.6 * near)
    colors, cover = painted(both, plane)
    halves = np.split(colors, 2, axis=1)
    steep, flat = (np.abs(axis).argmax() for axis in (near, right))
    share_left, share_right = (half[..., steep].sum() / half[..., flat].sum() for half in halves)
    assert share_right > 1.3 * share_left
    assert up @ near == 0
    assert cover.max() == 1


@pytest.mark.parametrize("lmax", range(2, 13, 2))
def test_an_isotropic_fodf_is_a_ball_of_its_amplitude(lmax):
    _, cover = painted(ball(0.3, lmax), full=0.6)
    assert cover.mean() == pytest.approx(np.pi / 16, rel=0.03)


@pytest.mark.parametrize("lmax", range(2, 13, 2))
def test_a_fibre_points_the_right_way_at_every_lmax(lmax):
    _, cover = painted(fibre([2, 1, 0], lmax))
    assert tilt_deg(cover)[0] == pytest.approx(26.6, abs=2)


def test_light_comes_from_above():
    colors, cover = painted(ball(1.0), full=1.2)
    upper, lower = (colors[rows].sum() / cover[rows].sum() for rows in (slice(16, 32), slice(16)))
    assert upper > 1.2 * lower


def test_negative_lobes_specks_and_what_is_not_finite_are_left_out():
    broken = fibre([1, 0, 0])
    broken[:] = np.nan
    for coefficients in (ball(-1.0), ball(0.01), broken):
        assert not painted(coefficients, full=1.0)[1].any()
    plain, dented = (painted(fibre([1, 0, 0]) - ball(x))[1] for x in (0.0, 0.2))
    assert 0 < dented.sum() < plain.sum()


def test_a_shape_that_would_leave_its_voxel_is_made_smaller_and_keeps_its_form():
    fits, large = (painted(fibre([1, 1, 0], weight=weight))[1] for weight in (1.0, 4.0))
    angle, elongation = tilt_deg(large)
    assert angle == pytest.approx(45, abs=1)
    assert elongation == pytest.approx(tilt_deg(fits)[1], rel=0.1)
    assert not large[[0, -1]].any()  # its tips are on the circle, not in the corners


def test_coefficients_of_no_even_degree_are_refused():
    with pytest.raises(FodfError, match="16 coefficients"):
        painted(np.zeros(16))


ROTATION = euler2mat(z=0.4, y=0.3, x=-0.2)


@pytest.mark.parametrize("plane", list(PLANES))
def test_glyphs_of_an_oblique_grid_follow_its_voxels_and_are_coloured_by_scanner_axes(plane):
    sizes_mm = np.array([2.0, 2.0, 4.0])
    grid = Canonical(from_matvec(ROTATION * sizes_mm, [1.0, 2, 3]), (5, 4, 3))
    axes = new_figure(4, 4).add_axes((0, 0, 1, 1))
    panel = Panel(axes, plane, 1, ((0, 5), (0, 4), (0, 3)), grid.voxel_sizes_mm)
    _, across, up = PLANES[plane]
    along_rows = ROTATION[:, across]
    shape = (panel.box[up][1], panel.box[across][1])
    there = np.zeros(shape, dtype=bool)
    there[1, 2] = True
    fodf = np.broadcast_to(fibre(along_rows), (*shape, 45))
    draw_glyphs(panel, fodf, there, np.full(shape, 0.2), grid.rotation, full=PEAK, pixels=PIXELS)
    (image,) = axes.images
    picture = np.asarray(image.get_array()).astype(float)
    rows, columns = (round(PIXELS * sizes_mm[axis] / 2) for axis in (up, across))
    assert picture.shape == (rows * shape[0], columns * shape[1], 3)
    assert np.allclose(image.get_extent(), panel.extent_mm)
    drawn = np.abs(picture - 51).max(axis=-1) > 2
    found = np.argwhere(drawn)
    assert (found[:, 0] // rows == 1).all()
    assert (found[:, 1] // columns == 2).all()
    tile = drawn[rows : 2 * rows, 2 * columns : 3 * columns]
    up_px, across_px = (np.ptp(np.flatnonzero(tile.any(axis=axis))) for axis in (1, 0))
    assert across_px > 0.9 * PIXELS
    assert up_px < 0.6 * PIXELS
    colour = picture[drawn].sum(axis=0)
    assert colour.argmax() == np.abs(along_rows).argmax()
