"""Pictures in figures are stored small, and look the same."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image, ImageFile
from scipy import ndimage

from difftract_bids.reports.drawing.compress import (
    LARGE_PIXELS,
    compress_svg,
    encode,
    with_palette,
)
from difftract_bids.reports.drawing.style import new_figure, save_svg

SIDE = int(np.ceil(np.sqrt(LARGE_PIXELS)))


def photograph(side, *, seed=0):
    """A smooth picture of many colours, as a photograph is."""
    noise = np.random.default_rng(seed).random((side, side, 3))
    smooth = ndimage.gaussian_filter(noise, (4, 4, 0))
    smooth = (smooth - smooth.min()) / np.ptp(smooth)
    grain = np.random.default_rng(seed + 1).normal(0, 2, noise.shape)
    return np.clip(255 * smooth + grain, 0, 255).astype(np.uint8)


def decoded(content, mode="RGBA"):
    return np.asarray(Image.open(io.BytesIO(content)).convert(mode)).astype(int)


def figure_of(picture, tmp_path, name="a.svg"):
    figure = new_figure(4, 4)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(picture, interpolation="none")
    axes.plot([0.123456789, 1], [0.2, 1.987654321])
    return save_svg(figure, tmp_path / name).read_text()


def png_size(picture):
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format="png")
    return len(stream.getvalue())


def test_a_large_photograph_becomes_a_jpeg_a_third_as_large_that_looks_the_same():
    picture = photograph(SIDE)
    kind, content = encode(Image.fromarray(picture))
    assert kind == "jpeg"
    assert len(content) < png_size(picture) / 3
    assert np.abs(decoded(content, "RGB") - picture).mean() < 3


def test_a_large_drawing_of_few_colours_stays_as_it_is():
    picture = np.zeros((SIDE, SIDE, 3), np.uint8)
    picture[::7], picture[:, ::5] = (255, 0, 0), (0, 90, 200)
    kind, content = encode(Image.fromarray(picture))
    assert kind == "png"
    np.testing.assert_array_equal(decoded(content, "RGB"), picture)


@pytest.mark.parametrize("colours", ["grey", "few", "many"])
def test_small_pictures_are_kept_to_the_last_bit(colours):
    picture = photograph(80)
    if colours == "grey":
        picture = np.repeat(picture[..., :1], 3, axis=-1)
    elif colours == "few":
        picture = picture // 100 * 100
    kind, content = encode(Image.fromarray(picture).convert("RGBA"))
    assert kind == "png"
    assert len(content) < png_size(np.dstack([picture, np.full((80, 80), 255, np.uint8)]))
    np.testing.assert_array_equal(decoded(content, "RGB"), picture)


@pytest.mark.parametrize("alphas", [[0, 255], [0, 100, 200]])
def test_what_is_transparent_stays_transparent_and_the_rest_keeps_its_colour(alphas):
    rng = np.random.default_rng(3)
    colours = rng.choice([0, 128, 255], (SIDE, SIDE, 3)).astype(np.uint8)
    alpha = rng.choice(alphas, (SIDE, SIDE)).astype(np.uint8)
    kind, content = encode(Image.fromarray(np.dstack([colours, alpha])))
    assert kind == "png"
    back = decoded(content)
    np.testing.assert_array_equal(back[..., 3], alpha)
    np.testing.assert_array_equal(back[alpha > 0][:, :3], colours[alpha > 0])


def test_a_palette_never_changes_a_transparent_picture_visibly():
    picture = np.dstack([photograph(120), photograph(120, seed=5)[..., 0]])
    _, content = encode(Image.fromarray(picture))
    shown = np.where(picture[..., 3:] > 0, picture, 0)
    assert np.abs(decoded(content) - shown).max() <= 4


def test_a_palette_of_sharp_lines_changes_little_and_has_256_colours():
    picture = np.repeat(np.repeat(photograph(30), 8, axis=0), 8, axis=1)
    fewer = with_palette(picture)
    assert len(np.unique(fewer.reshape(-1, 3), axis=0)) <= 256
    assert np.abs(fewer.astype(int) - picture).mean() < 8


def test_a_figure_has_no_size_of_its_own_and_nothing_that_nireports_would_change(tmp_path):
    text = figure_of(photograph(30), tmp_path)
    opening = text[: text.index(">")]
    assert opening.startswith("<svg ")
    assert "viewBox=" in opening
    assert not re.search(r"\b(width|height)=", opening)
    assert text == "\n".join(text.splitlines())


def test_noise_has_a_small_encoding_too():
    noise = np.random.default_rng(0).integers(0, 256, (600, 600, 3), dtype=np.uint8)
    kind, content = encode(Image.fromarray(noise))
    assert kind == "jpeg"
    assert Image.open(io.BytesIO(content)).size == (600, 600)


def test_a_figure_holds_the_small_encoding_and_says_which_it_is(tmp_path):
    text = figure_of(photograph(SIDE), tmp_path)
    ((kind, code),) = re.findall(r"data:image/(\w+);base64,([^\"]+)\"", text)
    assert kind == "jpeg"
    assert base64.b64decode(code)[:2] == b"\xff\xd8"
    assert figure_of(photograph(SIDE), tmp_path, "b.svg") == text


def test_a_figure_is_the_same_whatever_its_process_has_drawn_before(tmp_path):
    room = ImageFile.MAXBLOCK
    photo, few = photograph(SIDE), np.repeat(photograph(SIDE)[..., :1] // 8 * 8, 3, axis=-1)
    first = [figure_of(photo, tmp_path), figure_of(few, tmp_path)]
    encode(Image.fromarray(np.random.default_rng(0).integers(0, 256, (999, 999, 3), np.uint8)))
    assert [figure_of(photo, tmp_path), figure_of(few, tmp_path)] == first
    assert room == ImageFile.MAXBLOCK  # what others in this process write is as it was, too


def test_only_voxels_that_are_magnified_have_hard_edges(tmp_path):
    assert "pixelated" in figure_of(photograph(30), tmp_path)
    assert "pixelated" not in figure_of(photograph(SIDE), tmp_path)


def test_lines_are_rounded_to_hundredths_of_a_point(tmp_path):
    text = figure_of(photograph(30), tmp_path)
    paths = re.findall(r' d="([^"]*)"', text)
    assert paths
    assert not any(re.search(r"\.\d{3}", path) for path in paths)


def test_what_is_no_picture_is_left_alone():
    text = '<?xml version="1.0"?>\n<svg width="9pt" viewBox="0 0 9 9"><g id="a.123456"/>\n</svg>\n'
    assert compress_svg(text) == '<svg viewBox="0 0 9 9"><g id="a.123456"/>\n</svg>'
