"""From seeds to streamlines in chunks: the chunks must not show."""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass

import pytest
import torch
from problems import crossing_bundles, scaling

from difftract_bids.config import TrackingConfig
from difftract_bids.core.field import FodfField
from difftract_bids.core.generate import NoStreamlinesWarning, choose_device, generate
from difftract_bids.core.propagate import track_field
from difftract_bids.core.regions import Regions, Sphere
from difftract_bids.core.seeding import GivenSeeds, RandomSeeds
from difftract_bids.errors import ConfigError

#: The package has a function of the same name.
MODULE = sys.modules[generate.__module__]
AFFINE = scaling(2.0)
CONFIG = TrackingConfig(step_size_mm=0.5, min_length_mm=8.0)
NOWHERE = Regions(include=(Sphere((1e4, 0.0, 0.0), 1.0),))


@pytest.fixture(scope="module")
def fodf():
    return crossing_bundles(AFFINE, shape=(12, 12, 8), lmax=4).float()


@pytest.fixture(scope="module")
def field(fodf):
    return FodfField.from_fodf(fodf, AFFINE, cutoff=0.1, peak_tolerance=1e-4)


@pytest.fixture(scope="module")
def source(fodf):
    return RandomSeeds(fodf[..., 0] != 0, AFFINE, 5)


@dataclass
class Whole:
    """The chunks of a run put together."""

    points: torch.Tensor
    counts: torch.Tensor
    seed_index: torch.Tensor
    seed_vertex: torch.Tensor
    stop_reason: torch.Tensor
    seed_status: torch.Tensor


def run(*arguments, **options):
    chunks = list(generate(*arguments, **options))
    return Whole(
        torch.cat([chunk.points for chunk in chunks]),
        torch.cat([chunk.n_vertices() for chunk in chunks]),
        torch.cat([chunk.seed_index for chunk in chunks]),
        torch.cat([chunk.seed_vertex for chunk in chunks]),
        torch.cat([chunk.stop_reason for chunk in chunks]),
        torch.cat([chunk.seed_status for chunk in chunks]),
    )


def assert_same(one, other):
    for name in Whole.__dataclass_fields__:
        assert torch.equal(getattr(one, name), getattr(other, name)), name


def at_once(field, source, n_seeds):
    """What one call of the tracker gives."""
    seeds_mm, directions = source.draw(0, n_seeds)
    found = track_field(field, seeds_mm.float(), directions.float(), CONFIG)
    return Whole(
        found.points,
        found.n_vertices(),
        found.seed_index,
        found.seed_vertex,
        found.stop_reason,
        found.seed_status,
    )


@pytest.mark.parametrize("seeds_per_chunk", [1, 37, 400, 16_384])
def test_chunks_together_are_one_call_of_the_tracker(field, source, seeds_per_chunk):
    n = 60 if seeds_per_chunk == 1 else 400
    found = run(field, source, CONFIG, n_seeds=n, seeds_per_chunk=seeds_per_chunk)
    assert_same(found, at_once(field, source, n))


@pytest.mark.parametrize("seeds_per_chunk", [23, 300, 16_384])
def test_the_streamlines_of_the_lowest_seeds_are_kept_whatever_the_chunks(
    field, source, seeds_per_chunk
):
    everything = at_once(field, source, 1000)
    found = run(field, source, CONFIG, n_streamlines=150, seeds_per_chunk=seeds_per_chunk)
    assert len(found.seed_index) == 150
    assert torch.equal(found.seed_index, everything.seed_index[:150])
    assert torch.equal(found.points, everything.points[: everything.counts[:150].sum()])
    # No seed after that of the last streamline counts as tried.
    tried = int(found.seed_index[-1]) + 1
    assert torch.equal(found.seed_status, everything.seed_status[:tried])


def test_a_few_streamlines_do_not_take_a_whole_chunk_of_seeds(field, source):
    drawn = []

    class Counting(RandomSeeds):
        def draw(self, first, n):
            drawn.append(n)
            return super().draw(first, n)

    run(field, Counting(source.mask, AFFINE, 5), CONFIG, n_streamlines=3)
    assert sum(drawn) <= 512


def test_whichever_number_is_reached_first_ends_it(field, source):
    few_seeds = run(field, source, CONFIG, n_seeds=50, n_streamlines=1000)
    assert_same(few_seeds, at_once(field, source, 50))
    few_streamlines = run(field, source, CONFIG, n_seeds=1000, n_streamlines=4)
    assert len(few_streamlines.seed_index) == 4
    assert len(few_streamlines.seed_status) < 50


@pytest.mark.parametrize("numbers", [{}, {"n_seeds": 10_000}, {"n_streamlines": 10_000}])
def test_a_finite_source_ends_with_its_last_seed(field, numbers):
    rows = RandomSeeds(torch.ones(12, 12, 8, dtype=torch.bool), AFFINE, 1).draw(0, 90)[0]
    found = run(field, GivenSeeds(rows), CONFIG, seeds_per_chunk=40, **numbers)
    assert len(found.seed_status) == 90
    assert len(found.seed_index) > 10


def test_without_a_single_streamline_the_chunks_are_empty_but_counted(field, source):
    found = run(field, source, CONFIG, NOWHERE, n_seeds=500, seeds_per_chunk=200)
    assert len(found.seed_index) == len(found.points) == 0
    assert len(found.seed_status) == 500


def test_a_thousand_seeds_are_tried_for_each_streamline_asked_for(field, source):
    found = run(field, source, CONFIG, NOWHERE, n_streamlines=2)
    assert len(found.seed_status) == 2000


def test_hopeless_seeds_are_given_up_with_a_warning(field, source, monkeypatch):
    monkeypatch.setattr(MODULE, "_HOPELESS", 1000)
    with pytest.warns(NoStreamlinesWarning, match="1,000 seeds gave no streamline"):
        found = run(field, source, CONFIG, NOWHERE, n_streamlines=5, seeds_per_chunk=300)
    assert len(found.seed_status) == 1000
    with warnings.catch_warnings():  # who gives a number of seeds has them all tried
        warnings.simplefilter("error")
        found = run(field, source, CONFIG, NOWHERE, n_seeds=1100, seeds_per_chunk=300)
    assert len(found.seed_status) == 1100


def test_seeds_without_an_end_are_refused(field, source):
    with pytest.raises(ConfigError, match="no end"):
        next(generate(field, source, CONFIG))


@pytest.mark.parametrize("name", ["n_seeds", "n_streamlines", "seeds_per_chunk"])
def test_numbers_below_one_are_refused_by_name(field, source, name):
    with pytest.raises(ConfigError, match=name):
        next(generate(field, source, CONFIG, **{"n_seeds": 10, name: 0}))


def test_a_gpu_that_is_not_there_is_missed_only_by_who_asks_for_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device(TrackingConfig()).type == "cpu"
    assert choose_device(TrackingConfig(device="cpu")).type == "cpu"
    for config in (TrackingConfig(device="cuda"), TrackingConfig(backend="cuda")):
        with pytest.raises(ConfigError, match="no NVIDIA GPU"):
            choose_device(config)


@pytest.mark.parametrize(("device", "backend"), [("cpu", "cuda"), ("cuda", "cpu")])
def test_a_backend_for_another_device_is_refused(device, backend):
    with pytest.raises(ConfigError, match="backend is"):
        choose_device(TrackingConfig(device=device, backend=backend))


def test_a_gpu_is_used_where_the_kernels_can_and_not_by_the_reference(monkeypatch):
    monkeypatch.setattr(MODULE, "_missing_for_cuda", lambda: "")
    assert choose_device(TrackingConfig()).type == "cuda"
    assert choose_device(TrackingConfig(backend="reference")).type == "cpu"
    assert choose_device(TrackingConfig(algorithm="tensor_det")).type == "cpu"
