"""Flickers show two pictures of one place: what comes and goes is what changed."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from nibabel.affines import from_matvec
from nibabel.eulerangles import euler2mat
from PIL import Image

from difftract_bids.errors import GradientError
from difftract_bids.reports.drawing.style import new_figure
from difftract_bids.reports.flickers.denoising import flick_denoising
from difftract_bids.reports.flickers.flicker import write_flicker
from difftract_bids.reports.flickers.motion import ShellMaps, flick_motion, shell_maps
from difftract_bids.reports.flickers.registration import flick_coregistration, flick_template
from difftract_bids.reports.flickers.shell import fullest_shell, of_range
from difftract_bids.reports.templates import packaged_text

SHAPE, VOX2RAS = (36, 40, 32), from_matvec(np.diag([5.0, 5, 5]), [-87.5, -97.5, -77.5])
#: Another grid over the same head: smaller voxels, turned, tilted, and two of its axes reversed.
OTHER_SHAPE = (52, 64, 56)
_AXES = 3.5 * euler2mat(0.1, -0.15, 0.2) @ np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, -1]])
OTHER = from_matvec(_AXES, -_AXES @ (np.array(OTHER_SHAPE) - 1) / 2)


class Elements(HTMLParser):
    """Attributes of the elements of a part of a page, by tag."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def __getitem__(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


def pictures(path):
    """Both pictures as arrays of integers, (y, x, 3)."""
    sources = [image["src"] for image in Elements(path.read_text())["img"]]
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    opened = [Image.open(io.BytesIO(base64.b64decode(one.split(",")[1]))) for one in sources]
    first, second = (np.asarray(one.convert("RGB")).astype(int) for one in opened)
    assert first.shape == second.shape
    return first, second


def changed(path):
    """Where the two differ: which rows, and which columns, as shares of height and width."""
    first, second = pictures(path)
    hit = (first != second).any(axis=-1)
    rows, columns = np.nonzero(hit)
    return rows / hit.shape[0], columns / hit.shape[1]


def painted(values, size_in=(7.0, 4.0)):
    figure = new_figure(*size_in, dark=True)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.imshow(values, cmap="gray", vmin=0, vmax=1, aspect="auto", interpolation="none")
    return figure


def flicker(path, before, after, **changes):
    given = {"title": "Both", "alts": ("The first", "The second")} | changes
    return write_flicker(painted(before), painted(after), path, **given)


def positions_mm(shape=SHAPE, vox2ras=VOX2RAS):
    voxels = np.stack(np.indices(shape), axis=-1)
    return voxels @ vox2ras[:3, :3].T + vox2ras[:3, 3]


def head(shape=SHAPE, vox2ras=VOX2RAS, shift_mm=(0.0, 0.0, 0.0)):
    """Return a smooth head without any symmetry, anywhere in millimetres, on any grid."""
    at = positions_mm(shape, vox2ras) - shift_mm
    radius = np.linalg.norm(at / [62.0, 75, 55], axis=-1)
    lobe = np.exp(-(((at - [25, 30, 10]) / 18) ** 2).sum(axis=-1))
    return ((1 + lobe) / (1 + np.exp(12 * (radius - 1)))).astype(np.float32)


@pytest.fixture
def mask():
    return head() > 0.5


def test_pictures_differ_where_the_figures_differ_and_nowhere_else(tmp_path):
    before = np.random.default_rng(0).random((20, 35))
    after = before.copy()
    after[4:8, 10:15] = 1 - after[4:8, 10:15]
    rows, columns = changed(flicker(tmp_path / "a.html", before, after))
    block = 8 / 800  # JPEG's blocks of eight pixels may hold a bit of both
    assert rows.min() == pytest.approx(4 / 20, abs=block)
    assert rows.max() == pytest.approx(8 / 20, abs=block)
    assert columns.min() == pytest.approx(10 / 35, abs=block)
    assert columns.max() == pytest.approx(15 / 35, abs=block)


def test_the_first_picture_is_that_of_before(tmp_path):
    path = flicker(tmp_path / "a.html", np.zeros((2, 2)), np.ones((2, 2)))
    first, second = pictures(path)
    assert first.max() < 10
    assert second.min() > 245
    assert first.shape[1] == 1400


def test_both_pictures_say_what_they_show_to_those_who_do_not_see(tmp_path):
    path = flicker(
        tmp_path / "a.html", np.zeros((2, 2)), np.ones((2, 2)), names=("T1w", "b<5"), title='"All"'
    )
    elements = Elements(path.read_text())
    assert [image["alt"] for image in elements["img"]] == ["The first", "The second"]
    assert elements["div"][0]["aria-label"] == '"All"'
    assert re.findall(r"<label[^>]*>([^<]*)<", path.read_text()) == ["T1w", "flicker", "b&lt;5"]
    assert re.findall(r"<figcaption[^>]*>([^<]*)<", path.read_text()) == ["T1w", "b&lt;5"]


def test_the_page_knows_the_size_of_the_pictures_before_it_decodes_them(tmp_path):
    path = flicker(tmp_path / "a.html", np.zeros((2, 2)), np.ones((2, 2)))
    for image, picture in zip(Elements(path.read_text())["img"], pictures(path), strict=True):
        assert (int(image["height"]), int(image["width"])) == picture.shape[:2]


def test_two_in_one_page_are_chosen_from_apart(tmp_path):
    ids, names = set(), set()
    for number in range(2):
        path = flicker(tmp_path / "a.html", np.zeros((2, 2)), np.full((2, 2), 0.5 + number / 2))
        elements = Elements(path.read_text())
        own = {radio["id"] for radio in elements["input"]}
        assert [label["for"] for label in elements["label"]] == [
            r["id"] for r in elements["input"]
        ]
        assert len(own) == 3
        assert not own & ids
        ids |= own
        names |= {radio["name"] for radio in elements["input"]}
    assert len(names) == 2


def test_a_flicker_is_the_same_bytes_wherever_it_is_written(tmp_path):
    values = np.random.default_rng(0).random((9, 9))
    first, second = (flicker(tmp_path / name, values, 1 - values) for name in ("a.html", "b.html"))
    assert first.read_bytes() == second.read_bytes()


def test_a_flicker_of_nothing_but_noise_weighs_less_than_450_kb(tmp_path):
    before, after = np.random.default_rng(0).random((2, 800, 1400))
    path = flicker(tmp_path / "a.html", before, after)
    assert path.stat().st_size < 450_000
    assert pictures(path)[0].shape[1] >= 400


def test_figures_of_different_sizes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="1400"):
        write_flicker(
            painted(np.ones((2, 2))),
            painted(np.ones((2, 2)), size_in=(7.0, 5.0)),
            tmp_path / "a.html",
            title="Both",
            alts=("", ""),
        )


def test_every_class_of_the_part_has_a_look_and_the_sheet_fits_into_a_template(tmp_path):
    path = flicker(tmp_path / "a.html", np.zeros((2, 2)), np.ones((2, 2)))
    sheet = packaged_text("report/flicker.css")
    looks = set(re.findall(r"\.([a-z-]+)", sheet))
    # The second picture is at rest what is seen: nothing need be said of choosing it.
    classes = {a["class"] for _, a in Elements(path.read_text()).found if "class" in a}
    assert classes - looks == {"flicker-choose-after"}
    assert not re.search(r"\{[{%#]", sheet)


def test_denoising_changes_the_row_and_the_side_that_it_changed(tmp_path, mask):
    b0, weighted = head(), 0.5 * head()
    cleaner = b0.copy()
    cleaner[positions_mm()[..., 0] > 15] *= 0.8
    path = flick_denoising(
        (b0, weighted), (cleaner, weighted), mask, VOX2RAS, tmp_path / "a.html", b_s_mm2=1000
    )
    rows, columns = changed(path)
    assert rows.max() < 0.5  # the b=0 volume's row
    width = 0.25  # of a slice, roughly: two axial ones, a coronal and a sagittal one
    for number in range(2):
        of_slice = columns[(columns >= number * width) & (columns < (number + 0.9) * width)]
        assert len(of_slice)
        assert of_slice.min() > (number + 0.5) * width - 0.02  # right is on the right


def test_both_pictures_of_denoising_have_one_grey_scale(tmp_path, mask):
    volume = head()
    path = flick_denoising(
        (2 * volume, volume), (volume, volume), mask, VOX2RAS, tmp_path / "a.html", b_s_mm2=1000
    )
    before, after = pictures(path)
    upper = slice(0, before.shape[0] // 2)
    assert before[upper].mean() > 1.2 * after[upper].mean()


def maps_of(volume, vox2ras):
    return ShellMaps(volume, 0.3 * volume, vox2ras)


def test_a_series_on_another_grid_is_drawn_where_it_lies(tmp_path, mask):
    after = maps_of(head(), VOX2RAS)
    same = flick_motion(
        maps_of(head(OTHER_SHAPE, OTHER), OTHER), after, mask, tmp_path / "a.html", b_s_mm2=700
    )
    first, second = pictures(same)
    assert np.abs(first - second).mean() < 3
    moved = head(OTHER_SHAPE, OTHER, shift_mm=(0.0, 10.0, 0.0))
    apart = flick_motion(maps_of(moved, OTHER), after, mask, tmp_path / "b.html", b_s_mm2=700)
    first, second = pictures(apart)
    assert np.abs(first - second).mean() > 8


def test_what_the_coils_make_brighter_is_no_motion(tmp_path, mask):
    gain = (1 + 0.004 * positions_mm()[..., 1]).astype(np.float32)
    path = flick_motion(
        maps_of(gain * head(), VOX2RAS),
        maps_of(head(), VOX2RAS),
        mask,
        tmp_path / "a.html",
        b_s_mm2=700,
    )
    first, second = pictures(path)
    assert np.abs(first - second).mean() < 3


def test_volumes_that_do_not_lie_on_each_other_scatter_at_the_rim(mask):
    shifts = np.random.default_rng(0).normal(0, 4, (12, 3))
    moving = np.stack([head(shift_mm=shift) for shift in shifts], axis=-1)
    still = np.stack([head()] * 12, axis=-1)
    volumes = np.ones(12, dtype=bool)
    inner = head() > 0.95
    rim = mask & ~inner
    scatter = shell_maps(moving, volumes, VOX2RAS).scatter
    assert scatter[rim].mean() > 3 * scatter[inner].mean()
    np.testing.assert_allclose(shell_maps(still, volumes, VOX2RAS).scatter, 0, atol=1e-3)


def test_the_maps_of_a_shell_are_those_of_its_volumes_alone():
    series = np.random.default_rng(0).random((3, 4, 5, 6)).astype(np.float32)
    volumes = np.array([False, True, True, False, True, False])
    mean, scatter, _ = shell_maps(series, volumes, VOX2RAS)
    np.testing.assert_allclose(mean, series[..., volumes].mean(axis=-1), rtol=1e-5)
    np.testing.assert_allclose(scatter, series[..., volumes].std(axis=-1), rtol=1e-4)


@pytest.mark.parametrize(
    ("bvals", "chosen"),
    [
        ([0, 700, 705, 2000, 2000, 2000], [3, 4, 5]),
        ([0, 2000, 2000, 700, 705], [3, 4]),
        ([0, 5], [0, 1]),
    ],
)
def test_the_shell_of_most_volumes_is_shown_and_the_weakest_among_equals(bvals, chosen):
    mean, volumes = fullest_shell(np.array(bvals, dtype=float), 50.0)
    assert np.flatnonzero(volumes).tolist() == chosen
    if len(bvals) > 2:
        assert mean == pytest.approx(np.mean(np.array(bvals)[chosen]))


def test_the_shell_is_found_again_in_the_raw_series():
    raw = np.array([0, 2000, 702.4, 698, 0])
    found = of_range(raw, np.array([698.0, 702.0]), "raw.bval")
    assert np.flatnonzero(found).tolist() == [2, 3]
    with pytest.raises(GradientError, match="b-value of 3000"):
        of_range(raw, np.array([3000.0]), "raw.bval")


@pytest.mark.parametrize("draw", [flick_coregistration, flick_template])
def test_images_that_lie_on_each_other_do_so_whatever_their_grids(tmp_path, mask, draw):
    path = draw(head(), mask, VOX2RAS, 7 * head(OTHER_SHAPE, OTHER), OTHER, tmp_path / "a.html")
    first, second = pictures(path)
    assert np.abs(first - second).mean() < 3
    moved = head(OTHER_SHAPE, OTHER, shift_mm=(8.0, 0.0, 0.0))
    path = draw(head(), mask, VOX2RAS, moved, OTHER, tmp_path / "b.html")
    first, second = pictures(path)
    assert np.abs(first - second).mean() > 8


def test_the_t1w_comes_first_and_the_template_before_the_t1w(tmp_path, mask):
    bright, black = head(), np.zeros(SHAPE, dtype=np.float32)
    path = flick_coregistration(bright, mask, VOX2RAS, black, VOX2RAS, tmp_path / "a.html")
    first, second = pictures(path)
    assert first.mean() < 0.2 * second.mean()
    assert Elements(path.read_text())["img"][0]["alt"].startswith("T1-weighted")
    path = flick_template(black, mask, VOX2RAS, bright, VOX2RAS, tmp_path / "b.html")
    first, second = pictures(path)
    assert first.mean() < 0.2 * second.mean()
    assert Elements(path.read_text())["img"][0]["alt"].startswith("Template")


def test_the_outline_of_the_brain_is_on_both(tmp_path, mask):
    path = flick_coregistration(head(), mask, VOX2RAS, head(), VOX2RAS, tmp_path / "a.html")
    for picture in pictures(path):
        red, blue = picture[..., 0], picture[..., 2]
        assert (red - blue > 80).sum() > 2000


def test_an_empty_mask_still_gives_a_flicker(tmp_path):
    nothing = np.zeros(SHAPE, dtype=bool)
    maps = maps_of(head(), VOX2RAS)
    pictures(flick_motion(maps, maps, nothing, tmp_path / "a.html", b_s_mm2=700))
    pictures(flick_coregistration(head(), nothing, VOX2RAS, head(), VOX2RAS, tmp_path / "b.html"))
