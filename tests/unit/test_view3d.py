"""The view of streamlines and slices: what is in the page, where a browser takes it from."""

from __future__ import annotations

import base64
import json
import re

import numpy as np
import pytest

from difftract_bids.reports.drawing.typed_arrays import coded, run_lengths
from difftract_bids.reports.page.scripts import page_scripts
from difftract_bids.reports.streamlines.view3d import write_view3d

SHAPE = (24, 30, 20)
#: Oblique, flipped left to right, y and z swapped, voxels that are not cubes.
TILT = np.array([[0.96, -0.28, 0.0], [0.28, 0.96, 0.0], [0.0, 0.0, 1.0]])
GRIDS = {
    "along the scanner's axes": np.diag([5.0, 5.0, 6.0, 1.0]),
    "flipped": np.diag([-5.0, 5.0, 6.0, 1.0]),
    "oblique": np.block([[TILT @ np.diag([-5.0, 5.0, 6.0]), np.zeros((3, 1))], [0, 0, 0, 1]]),
    "permuted": np.eye(4)[[0, 2, 1, 3]] @ np.diag([5.0, 6.0, 5.0, 1.0]),
}
CENTRE_MM = np.array([4.0, -11.0, 7.0])
RADII_MM = np.array([40.0, 48.0, 44.0])


def centred(grid):
    vox2ras = grid.copy()
    vox2ras[:3, 3] = CENTRE_MM - vox2ras[:3, :3] @ ((np.array(SHAPE) - 1) / 2)
    return vox2ras


def head(vox2ras):
    """Make an ellipsoid whose grey grows by a different step along each of the scanner's axes."""
    voxels = np.moveaxis(np.indices(SHAPE), 0, -1)
    position = voxels @ vox2ras[:3, :3].T + vox2ras[:3, 3] - CENTRE_MM
    mask = (np.square(position / RADII_MM).sum(axis=-1)) < 1
    return 300 + position @ [3.0, 1.0, 0.3], mask


def some_streamlines(n=20, n_points=60):
    rng = np.random.default_rng(3)
    along = np.linspace(-30, 30, n_points)
    wave = 8 * np.sin(along / 9)
    lines = [
        np.stack(np.roll([along, wave, np.full(n_points, rng.uniform(-20, 20))], i, 0), 1)
        for i in range(n)
    ]
    points = np.concatenate(lines) + CENTRE_MM
    return points.astype(np.float32), np.arange(n + 1) * n_points


def payload_of(path):
    (text,) = re.findall(
        r'<script type="application/json">(.*?)</script>', path.read_text(encoding="utf-8")
    )
    return json.loads(text)


def decoded(entry):
    kind = {"Uint8Array": "u1", "Int16Array": "<i2", "Uint16Array": "<u2", "Uint32Array": "<u4"}
    return np.frombuffer(base64.b64decode(entry["base64"]), dtype=kind[entry["type"]])


def lines_of(payload):
    shown = payload["streamlines"]
    points = decoded(shown["points"]).reshape(-1, 3) * shown["quantum_mm"] + shown["origin_mm"]
    ends = np.cumsum(decoded(shown["counts"]))
    colors = np.array(
        [[int(color[i : i + 2], 16) for i in (1, 3, 5)] for color in payload["palette"]]
    )[decoded(shown["colors"])]
    return np.split(points, ends[:-1]), np.split(colors, ends[:-1])


def brain_of(payload):
    """Rebuild the grey values as the script does: -1 outside."""
    brain = payload["brain"]
    runs = decoded(brain["runs"])
    inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    values = np.full(np.prod(brain["shape"]), -1)
    values[inside] = decoded(brain["grey"])
    return values.reshape(brain["shape"]), np.array(brain["origin_mm"]), brain["spacing_mm"]


def written(tmp_path, vox2ras=None, **options):
    vox2ras = centred(GRIDS["oblique"]) if vox2ras is None else vox2ras
    background, mask = head(vox2ras)
    points, offsets = options.pop("streamlines", None) or some_streamlines()
    path = tmp_path / "view.html"
    return write_view3d(points, offsets, background, mask, vox2ras, path, **options)


def distance_to_line(points, line):
    """Measure how far points are from a line of segments, in plain NumPy."""
    start, step = line[:-1], np.diff(line, axis=0)
    share = ((points[:, None] - start) * step).sum(-1) / (step**2).sum(-1)
    nearest = start + np.clip(share, 0, 1)[..., None] * step
    return np.linalg.norm(points[:, None] - nearest, axis=-1).min(axis=1)


def test_streamlines_are_where_they_were(tmp_path):
    points, offsets = some_streamlines()
    lines, _ = lines_of(payload_of(written(tmp_path)))
    assert len(lines) == len(offsets) - 1
    for line, first, last in zip(lines, offsets[:-1], offsets[1:], strict=True):
        assert len(line) < last - first
        np.testing.assert_allclose(line[[0, -1]], points[[first, last - 1]], atol=0.02)
        assert distance_to_line(points[first:last], line).max() < 0.33


def test_vertices_have_the_colour_of_their_direction(tmp_path):
    lines, colors = lines_of(payload_of(written(tmp_path)))
    for line, color in zip(lines, colors, strict=True):
        along = np.diff(line, axis=0)
        along /= np.linalg.norm(along, axis=1, keepdims=True)
        direction = np.abs(along[:-1] + along[1:])
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        shown = color[1:-1] / np.linalg.norm(color[1:-1], axis=1, keepdims=True)
        assert (direction * shown).sum(axis=1).min() > np.cos(np.radians(8))


def test_neighbouring_streamlines_differ_in_brightness(tmp_path):
    points, offsets = some_streamlines(2)
    points[60:] = points[:60] + 5.0
    _, (one, other) = lines_of(payload_of(written(tmp_path, streamlines=(points, offsets))))
    assert (one.max(axis=1) > 1.05 * other.max(axis=1)).all()


@pytest.mark.parametrize("grid", GRIDS)
def test_slices_show_the_right_place_whatever_the_grid(tmp_path, grid):
    values, origin_mm, spacing_mm = brain_of(payload_of(written(tmp_path, centred(GRIDS[grid]))))
    brain = np.argwhere(values > 0)
    position = origin_mm + spacing_mm * brain - CENTRE_MM
    # Inside the ellipsoid, and reaching its surface on all six sides.
    assert (np.square(position / (RADII_MM + 4)).sum(axis=1)).max() < 1
    np.testing.assert_allclose(position.min(axis=0), -RADII_MM, atol=5)
    np.testing.assert_allclose(position.max(axis=0), RADII_MM, atol=5)
    # Grey grows to the right most, and as much more as it should than to the front and up.
    grey = values[tuple(brain.T)]
    clear = (grey > 5) & (grey < 250)
    design = np.column_stack([position, np.ones(len(position))])[clear]
    slope = np.linalg.lstsq(design, grey[clear], rcond=None)[0]
    np.testing.assert_allclose(slope[:3] / slope[0], [1.0, 1 / 3, 0.1], atol=0.02)


def test_a_mask_may_have_a_grid_of_its_own(tmp_path):
    vox2ras = centred(GRIDS["oblique"])
    background, mask = head(vox2ras)
    other = centred(GRIDS["flipped"])
    _, other_mask = head(other)
    points = some_streamlines()
    same = write_view3d(*points, background, mask, vox2ras, tmp_path / "a.html")
    apart = write_view3d(
        *points, background, other_mask, vox2ras, tmp_path / "b.html", mask_vox2ras=other
    )
    sizes = [np.count_nonzero(brain_of(payload_of(path))[0] > 0) for path in (same, apart)]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.03)
    with pytest.raises(ValueError, match="does not fit"):
        write_view3d(*points, background, mask[1:], vox2ras, tmp_path / "c.html")


def test_a_part_is_shown_of_too_many_streamlines_and_the_text_says_so(tmp_path):
    path = written(tmp_path, max_streamlines=7, n_total=12_345)
    lines, _ = lines_of(payload_of(path))
    points, offsets = some_streamlines()
    assert len(lines) == 7
    starts = {tuple(start) for start in np.round(points[offsets[:-1]]).tolist()}
    assert {tuple(np.round(line[0]).tolist()) for line in lines} <= starts
    assert "7</strong> of 7 streamlines shown" in path.read_text(encoding="utf-8")
    assert "a random part of 12,345" in path.read_text(encoding="utf-8")
    again = written(tmp_path, max_streamlines=7, n_total=12_345).read_text(encoding="utf-8")
    assert again == path.read_text(encoding="utf-8")
    other = payload_of(written(tmp_path, max_streamlines=7, random_seed=1))
    assert not np.array_equal(lines_of(other)[0][0], lines[0])


def test_many_long_streamlines_stay_below_the_size_of_a_view(tmp_path):
    rng = np.random.default_rng(0)
    points = rng.normal(0, 30, (5_000 * 100, 3)).astype(np.float32)  # nothing can be left out
    path = written(tmp_path, streamlines=(points, np.arange(5_001) * 100))
    assert 0.9e6 < path.stat().st_size < 1.5e6


def test_sliders_stop_at_the_centres_of_the_slices(tmp_path):
    path = written(tmp_path)
    payload = payload_of(path)
    _, origin_mm, spacing_mm = brain_of(payload)
    for axis, origin in zip("xyz", origin_mm, strict=True):
        (tag,) = re.findall(rf'<input type="range" name="at-{axis}"[^>]*>', path.read_text())
        found = {key: float(value) for key, value in re.findall(r'(\w+)="(-?[\d.]+)"', tag)}
        assert found["min"] == pytest.approx(origin)
        assert found["step"] == spacing_mm
        steps = (found["value"] - found["min"]) / found["step"]
        assert steps == pytest.approx(round(steps), abs=1e-6)


def test_a_tractogram_without_streamlines_still_gives_slices(tmp_path):
    empty = np.zeros((0, 3), dtype=np.float32), np.zeros(1, dtype=np.int64)
    payload = payload_of(written(tmp_path, streamlines=empty))
    assert len(decoded(payload["streamlines"]["counts"])) == 0
    assert (brain_of(payload)[0] > 0).sum() > 1000


def test_streamlines_far_from_the_origin_fit_the_coordinates(tmp_path):
    points, offsets = some_streamlines()
    lines, _ = lines_of(payload_of(written(tmp_path, streamlines=(points + 2_000, offsets))))
    np.testing.assert_allclose(lines[0][0], points[0] + 2_000, atol=0.02)


def test_what_names_say_cannot_end_the_script(tmp_path):
    text = written(tmp_path, background_name="</script><b>").read_text(encoding="utf-8")
    assert "</script><b>" not in text
    assert "&lt;/script&gt;&lt;b&gt;" in text


def test_runs_longer_than_a_number_can_say_are_split():
    flags = np.zeros(200_000, dtype=bool)
    flags[70_000:199_000] = True
    runs = run_lengths(flags)
    np.testing.assert_array_equal(np.repeat(np.arange(len(runs)) % 2 == 1, runs), flags)


def test_numbers_are_written_first_byte_least():
    assert base64.b64decode(coded(np.array([258], dtype=">u2"))["base64"]) == b"\x02\x01"


def test_a_page_gets_the_scripts_that_it_needs_and_no_more(tmp_path):
    view = written(tmp_path).read_text(encoding="utf-8")
    assert page_scripts('<p class="view3d">needs-plotly</p>') == ""
    scripts = page_scripts(view + view)
    assert scripts.count("Plotly, Inc.") == 1
    assert 'serve("view3d"' in scripts
    assert 'serve("matrix-view"' not in scripts
    assert scripts.count("<script>") == scripts.lower().count("</script") == 3
