"""Thinning: what is kept, and how far what is left out may be."""

import math

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from difftract_bids.io import thinning
from difftract_bids.io.streamline_arrays import StreamlineArrays
from difftract_bids.io.thinning import thin

ROUNDING_MM = 1e-9


def _one(points):
    points = np.asarray(points, dtype=np.float32).reshape(-1, 3)
    return StreamlineArrays(points, np.array([0, len(points)]))


def _several(parts):
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
    return StreamlineArrays(np.concatenate(parts).astype(np.float32), offsets)


def _split(streamlines):
    return np.split(streamlines.points, streamlines.offsets[1:-1])


def _distance_mm(vertex, start, end):
    """Distance of a vertex to a segment."""
    along = end - start
    length2 = along @ along
    t = np.clip((vertex - start) @ along / length2, 0, 1) if length2 > 0 else 0.0
    return np.linalg.norm(vertex - start - t * along)


def _worst_mm(original, kept):
    """Largest distance of a vertex to the segment in its place, under the best way to match.

    ``best[k]`` is the smallest such largest distance when the vertex looked at is kept as number
    k; it is found by trying every way, so nothing is taken from the method that is tested.
    """
    original, kept = original.astype(np.float64), kept.astype(np.float64)
    best = {0: 0.0}
    assert (original[0] == kept[0]).all()
    for vertex in original[1:]:
        after = {}
        for k, worst in best.items():
            if k + 1 < len(kept):
                left_out = max(worst, _distance_mm(vertex, kept[k], kept[k + 1]))
                after[k] = min(after.get(k, math.inf), left_out)
                if (vertex == kept[k + 1]).all():
                    after[k + 1] = min(after.get(k + 1, math.inf), worst)
            elif (vertex == kept[k]).all():  # repetitions of the last vertex
                after[k] = min(after.get(k, math.inf), worst)
        best = after
    return best[len(kept) - 1]


def _wandering(rng, n, bend, jitter_mm, step_mm=0.3):
    direction, points = np.array([1.0, 0, 0]), [np.zeros(3)]
    for _ in range(n - 1):
        direction = direction + bend * rng.normal(size=3)
        direction /= np.linalg.norm(direction)
        points.append(points[-1] + step_mm * direction)
    return np.array(points) + jitter_mm * rng.normal(size=(n, 3)) + [70, -60, 40]


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 60),
    bend=st.floats(0, 1.5),
    jitter_mm=st.sampled_from([0.0, 0.05, 0.5]),
    tolerance_mm=st.floats(0.001, 2),
    repeats=st.integers(1, 3),
)
def test_what_is_left_out_is_within_the_tolerance(seed, n, bend, jitter_mm, tolerance_mm, repeats):
    rng = np.random.default_rng(seed)
    line = _wandering(rng, n, bend, jitter_mm).astype(np.float32)
    line = np.repeat(line, rng.integers(1, repeats + 1, n), axis=0)
    (kept,) = _split(thin(_one(line), tolerance_mm))
    np.testing.assert_array_equal(kept[[0, -1]], line[[0, -1]])
    assert len(kept) <= len(line)
    assert _worst_mm(line, kept) <= tolerance_mm + ROUNDING_MM


@settings(max_examples=100, deadline=None)
@given(
    places=st.lists(st.tuples(*[st.integers(-2, 2)] * 3), min_size=1, max_size=12),
    tolerance_mm=st.sampled_from([0.5, 1.0, 1.5, 3.0]),
)
def test_backtracking_and_repeated_vertices_are_within_the_tolerance(places, tolerance_mm):
    line = np.array(places, dtype=np.float32)
    (kept,) = _split(thin(_one(line), tolerance_mm))
    assert _worst_mm(line, kept) <= tolerance_mm + ROUNDING_MM


def test_a_straight_streamline_becomes_its_ends():
    t = np.linspace(0, 1, 101)[:, None]
    (kept,) = _split(thin(_one(t * [30.0, -40, 20] + [5, 6, 7]), 0.001))
    assert len(kept) == 2


def test_a_circle_keeps_as_many_vertices_as_its_sagitta_asks_for():
    radius_mm, tolerance_mm, step_mm = 20.0, 0.1, 0.05
    angles = np.arange(0, math.pi, step_mm / radius_mm)
    circle = radius_mm * np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1)
    (kept,) = _split(thin(_one(circle), tolerance_mm))
    # A chord over an angle a is off by radius (1 - cos(a / 2)).
    longest = 2 * math.acos(1 - tolerance_mm / radius_mm)
    segments = math.ceil(angles[-1] / longest)
    assert segments <= len(kept) - 1 <= segments + 1


def test_a_corner_is_kept_to_the_vertex():
    x = np.arange(11.0)
    leg, other = np.stack([x, 0 * x, 0 * x], 1), np.stack([0 * x + 10, x, 0 * x], 1)
    (kept,) = _split(thin(_one(np.concatenate([leg, other[1:]])), 0.1))
    np.testing.assert_array_equal(kept, [[0, 0, 0], [10, 0, 0], [10, 10, 0]])


def test_streamlines_are_thinned_each_for_itself():
    rng = np.random.default_rng(0)
    parts = [_wandering(rng, n, 0.1, 0.0) for n in (1, 40, 2, 1, 90, 3)]
    together = _split(thin(_several(parts), 0.2))
    for alone, part in zip(together, parts, strict=True):
        np.testing.assert_array_equal(alone, thin(_one(part), 0.2).points)
    assert len(together[4]) < 45


@pytest.mark.parametrize("n", [1, 2])
def test_one_or_two_vertices_stay(n):
    streamlines = _one(np.zeros((n, 3)))
    np.testing.assert_array_equal(thin(streamlines, 5.0).points, streamlines.points)


def test_no_streamlines_stay_none():
    thinned = thin(StreamlineArrays(np.zeros((0, 3), np.float32), np.array([0])), 0.1)
    assert thinned.n_streamlines == 0
    assert thinned.points.shape == (0, 3)


@pytest.mark.parametrize("tolerance_mm", [None, 0, 0.0])
def test_without_a_tolerance_nothing_is_left_out(tolerance_mm):
    streamlines = _one(np.zeros((5, 3)))
    assert thin(streamlines, tolerance_mm) is streamlines


@pytest.mark.parametrize("tolerance_mm", [-0.1, math.nan, math.inf])
def test_a_tolerance_that_is_no_distance_is_refused(tolerance_mm):
    with pytest.raises(ValueError, match="tolerance"):
        thin(_one(np.zeros((5, 3))), tolerance_mm)


def test_thinning_needs_no_folder_for_compiled_code(monkeypatch):
    njit = numba.njit

    def with_no_folder(*, cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")  # as numba does
        return njit(**options)

    monkeypatch.setattr(numba, "njit", with_no_folder)
    assert thinning._compiled(lambda x: 2 * x)(2.0) == 4.0
