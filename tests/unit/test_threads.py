"""Sums of threads: in one order, whichever thread is the first."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from problems import oblique, scaling
from tracking_cases import crossing_case, with_gradients

from difftract_bids.core import SoftConnectome, TrackingConfig, sample_along, soft_survival
from difftract_bids.core.kernels import threads

N_THREADS = 4
CONFIG = TrackingConfig(backend="cpu", min_length_mm=1.0, max_length_mm=8.0)


class LastFirst:
    """An executor whose calls run one by one, the last first: no thread need be lucky."""

    def __init__(self, n_threads):
        assert n_threads == N_THREADS
        self.calls = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        assert not self.calls

    def submit(self, call, given):
        self.calls.append((call, given, done := Done(self)))
        return done

    def run(self):
        while self.calls:
            call, given, done = self.calls.pop()
            done.value = call(given)


class Done:
    def __init__(self, pool):
        self.pool, self.value = pool, None

    def result(self):
        self.pool.run()
        return self.value


@pytest.fixture(autouse=True)
def several_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(N_THREADS)
    yield
    torch.set_num_threads(before)


def numbers(*shape, scale=1.0):
    generator = torch.Generator().manual_seed(2)
    return scale * torch.rand(shape, generator=generator, dtype=torch.float64)


def of_tracking():
    _, to_fodf, to_seeds = with_gradients(crossing_case(600).to(torch.float32), CONFIG)
    return to_fodf, to_seeds


def of_survival():
    case = crossing_case(600).to(torch.float32)
    case.fodf.requires_grad_()
    with torch.no_grad():
        lines = case.track(CONFIG)
    weights = soft_survival(case.fodf, case.vox2ras, lines, cutoff=0.1, softness=0.05)
    weights.log().sum().backward()
    return weights.detach(), case.fodf.grad


def of_a_soft_connectome():
    labels = (numbers(8, 7, 6) * 12).long()
    soft = SoftConnectome(labels, scaling(2.0))
    return (soft(numbers(3000, 2, 3, scale=15.0), numbers(3000)),)


def of_means_of_an_image():
    image = numbers(8, 7, 6).requires_grad_()
    offsets = torch.from_numpy(np.arange(0, 6001, 10))
    found = sample_along(image, oblique(), 40 * numbers(6000, 3) - 20, offsets)
    (found * numbers(600)).sum().backward()
    return found.detach(), image.grad


@pytest.mark.parametrize(
    "summed", [of_tracking, of_survival, of_a_soft_connectome, of_means_of_an_image]
)
def test_the_order_in_which_threads_begin_changes_no_bit(summed, monkeypatch):
    first = summed()
    assert all(bool(part.any()) for part in first)
    monkeypatch.setattr(threads, "ThreadPoolExecutor", LastFirst)
    for one, other in zip(first, summed(), strict=True):
        assert torch.equal(one, other)


def test_what_each_share_gave_is_in_the_order_of_the_shares(monkeypatch):
    monkeypatch.setattr(threads, "ThreadPoolExecutor", LastFirst)
    done = threads.share(lambda spans: [*spans], threads.in_turn(1000, 7))
    assert done == [
        [(at, min(at + 7, 1000)) for at in range(7 * i, 1000, 7 * N_THREADS)]
        for i in range(N_THREADS)
    ]


def test_an_error_in_one_thread_is_raised():
    def work_on(spans):
        if (0, 7) in spans:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        threads.share(work_on, threads.in_turn(1000, 7))
