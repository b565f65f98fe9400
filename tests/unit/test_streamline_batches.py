"""What connectomes read of streamlines, whatever the sizes of the batches."""

from __future__ import annotations

import itertools
from functools import partial

import numpy as np
import pytest

from difftract_bids.errors import InputError
from difftract_bids.io import streamline_batches, summaries
from difftract_bids.io.streamline_arrays import StreamlineArrays
from difftract_bids.io.streamline_batches import StreamlineFiles
from difftract_bids.io.summaries import write_summary
from difftract_bids.io.tractogram_reader import iter_tractogram
from difftract_bids.io.tractograms import write_tractogram

N = 57


@pytest.fixture
def files(tmp_path):
    """Streamlines in a summary, and the same with every second vertex left out in a file."""
    rng = np.random.default_rng(0)
    counts = 2 * rng.integers(1, 9, N) + 1
    offsets = np.concatenate([[0], np.cumsum(counts)])
    points = rng.normal(size=(offsets[-1], 3)).astype(np.float32) * 20
    lines = StreamlineArrays(points, offsets)
    samples = {"fa": rng.random(N).astype(np.float32)}
    write_summary(tmp_path / "a.parquet", np.arange(N), lines.ends(), lines.lengths_mm(), samples)
    kept = np.concatenate(
        [np.arange(first, last, 2) for first, last in itertools.pairwise(offsets)]
    )
    thinned = StreamlineArrays(points[kept], np.concatenate([[0], np.cumsum((counts + 1) // 2)]))
    write_tractogram(thinned, tmp_path / "a.tck", vox2ras=np.eye(4), shape=(9, 9, 9))
    return tmp_path / "a.parquet", tmp_path / "a.tck", lines, samples["fa"]


def n_vertices(lines):
    return np.diff(lines.offsets).astype(float)


@pytest.mark.parametrize(("points", "rows"), [(1, 7), (40, 100), (100_000, 1)])
def test_rows_of_the_summary_stay_with_their_streamlines(files, monkeypatch, points, rows):
    summary, tractogram, lines, fa = files
    monkeypatch.setattr(
        streamline_batches, "iter_tractogram", partial(iter_tractogram, max_points=points)
    )
    monkeypatch.setattr(
        streamline_batches, "iter_summary", partial(summaries.iter_summary, batch=rows)
    )
    both = StreamlineFiles(summary, tractogram, max_step_mm=1e9)
    batches = list(both.batches({"fa": n_vertices, "n": n_vertices}, with_paths=True))
    ends = np.concatenate([batch.ends_mm for batch in batches])
    np.testing.assert_array_equal(ends, lines.ends())
    lengths = np.concatenate([batch.lengths_mm for batch in batches])
    np.testing.assert_allclose(lengths, lines.lengths_mm(), rtol=1e-6)  # not the thinned ones'
    np.testing.assert_array_equal(np.concatenate([b.samples["fa"] for b in batches]), fa)
    sampled = np.concatenate([batch.samples["n"] for batch in batches])
    np.testing.assert_array_equal(sampled, (np.diff(lines.offsets) + 1) // 2)
    for batch in batches:
        np.testing.assert_array_equal(batch.paths.ends(), batch.ends_mm)


def test_the_tractogram_is_not_read_where_the_summary_suffices(files, monkeypatch):
    summary, tractogram, _, fa = files
    both = StreamlineFiles(summary, tractogram, max_step_mm=1.0)
    monkeypatch.setattr(streamline_batches, "iter_tractogram", None)
    (batch,) = both.batches({"fa": n_vertices}, with_paths=False)
    np.testing.assert_array_equal(batch.samples["fa"], fa)
    assert batch.paths is None


def test_long_segments_are_divided_and_ends_stay(files):
    _, tractogram, lines, _ = files
    (batch,) = StreamlineFiles(None, tractogram, max_step_mm=0.5).batches({}, with_paths=True)
    steps = np.linalg.norm(np.diff(batch.paths.points, axis=0), axis=1)
    inside = np.ones(len(steps), bool)
    inside[batch.paths.offsets[1:-1] - 1] = False
    assert steps[inside].max() <= 0.501
    np.testing.assert_array_equal(batch.paths.ends(), lines.ends())


def test_what_neither_file_has_is_named(files):
    summary = files[0]
    given = StreamlineFiles(summary, None, max_step_mm=1.0)
    with pytest.raises(InputError, match="what md is along them"):
        list(given.batches({"md": n_vertices}, with_paths=False))
