"""Losses on fODFs, streamlines, connectomes and densities: known values, slopes, empty sets."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import gradcheck

from difftract_bids.config.training import LossConfig
from difftract_bids.core.streamlines import Streamlines
from difftract_bids.errors import ConfigError, InputError
from difftract_bids.learn.losses import (
    Amplitudes,
    Objective,
    Propagated,
    correlation_loss,
    density_loss,
    fodf_loss,
    log_count_loss,
    relative_loss,
    streamline_losses,
    tract_density,
)

VOX2RAS = torch.tensor(
    [[2.0, 0, 0, -7], [0, 0, 2.0, 3], [0, -2.0, 0, 11], [0, 0, 0, 1]], dtype=torch.float64
)
ALL = LossConfig(**dict.fromkeys(LossConfig.__dataclass_fields__, 0.5))


def of(*lines: torch.Tensor, seeds=None, seed_vertex=None, n_seeds=9) -> Streamlines:
    """Streamlines with the vertices given, seeded at their first vertex."""
    counts = torch.tensor([len(line) for line in lines], dtype=torch.int64)
    none = torch.zeros_like(counts)
    points = torch.cat(lines) if lines else torch.zeros(0, 3, dtype=torch.float64)
    return Streamlines(
        points=points,
        offsets=torch.cat([none.new_zeros(1), counts.cumsum(0)]),
        seed_index=torch.arange(len(lines)) if seeds is None else torch.tensor(seeds),
        seed_vertex=none if seed_vertex is None else torch.tensor(seed_vertex),
        stop_reason=torch.stack([none, none], 1),
        seed_status=torch.zeros(n_seeds, dtype=torch.int64),
    )


def straight(n: int, first=(0.0, 0.0, 0.0), way=(1.0, 0.0, 0.0)) -> torch.Tensor:
    steps = torch.arange(n, dtype=torch.float64)[:, None]
    return torch.tensor(first, dtype=torch.float64) + steps * torch.tensor(way).double()


def wiggly(n: int, seed: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    noise = 0.2 * torch.randn(n, 3, generator=rng, dtype=torch.float64)
    return straight(n, first=(-1.0, 4.0, 5.0)) + noise


def symmetric(n: int, seed: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    upper = 20 * torch.rand(n, n, generator=rng, dtype=torch.float64).triu()
    return upper + upper.triu(1).T


# --- fODFs


def test_fodf_loss_of_zeros_is_one_and_of_the_target_itself_zero():
    target, mask = torch.randn(2, 3, 4, 15), torch.rand(2, 3, 4) > 0.4
    assert float(fodf_loss(torch.zeros_like(target), target, mask)) == pytest.approx(1)
    assert float(fodf_loss(target, target, mask)) == 0


def test_fodf_loss_is_the_same_whichever_axis_the_coefficients_are_along():
    predicted, target = torch.randn(2, 3, 4, 5, 15), torch.randn(2, 3, 4, 5, 15)
    mask = torch.rand(2, 3, 4, 5) > 0.4
    last = fodf_loss(predicted, target, mask)
    first = fodf_loss(predicted.movedim(-1, 1), target.movedim(-1, 1), mask, channel_dim=1)
    by_hand = ((predicted - target)[mask] ** 2).sum() / (target[mask] ** 2).sum()
    assert float(last) == pytest.approx(float(by_hand), rel=1e-5)
    assert float(first) == pytest.approx(float(last), rel=1e-5)


def test_patches_that_share_a_scale_average_to_the_loss_of_the_whole():
    predicted, target = torch.randn(6, 4, 4, 6), torch.randn(6, 4, 4, 6)
    mask = torch.ones(6, 4, 4, dtype=torch.bool)
    scale = float(target.square().sum(-1).mean())
    parts = [
        fodf_loss(predicted[some], target[some], mask[some], mean_square=scale)
        for some in (slice(0, 3), slice(3, 6))
    ]
    whole = fodf_loss(predicted, target, mask)
    assert float(sum(parts) / 2) == pytest.approx(float(whole), rel=1e-5)


def test_fodf_loss_takes_half_precision_without_overflow():
    predicted = torch.full((40, 40, 1, 6), 30.0, dtype=torch.float16)
    target, mask = torch.full((40, 40, 1, 6), 15.0), torch.ones(40, 40, 1, dtype=torch.bool)
    assert float(fodf_loss(predicted, target, mask)) == pytest.approx(1)


@pytest.mark.parametrize("layout", [(2, 2, 2, 28), (2, 2, 3, 15)], ids=["lmax", "grid"])
def test_fodfs_of_another_lmax_or_grid_are_refused(layout):
    mask = torch.ones(2, 2, 2, dtype=torch.bool)
    with pytest.raises(InputError, match=r"target \(2, 2"):
        fodf_loss(torch.zeros(2, 2, 2, 15), torch.zeros(layout), mask)


# --- streamlines


@pytest.mark.parametrize(("shift", "expected"), [(1.0, 0.5), (0.5, 0.125), (3.0, 2.5)])
def test_a_shifted_streamline_is_its_huber_distance_away(shift, expected):
    target = of(straight(8))
    found = of(straight(8, first=(0.0, shift, 0.0)))
    losses = streamline_losses(found, target)
    assert float(losses.points) == pytest.approx(expected)
    assert float(losses.ends) == pytest.approx(expected)
    assert float(losses.directions) == pytest.approx(0, abs=1e-12)
    assert losses.n_compared == 1


def test_a_streamline_at_a_right_angle_has_lost_all_direction():
    found, target = of(straight(5, way=(0.0, 1.0, 0.0))), of(straight(5))
    assert float(streamline_losses(found, target).directions) == pytest.approx(1)


def test_streamlines_found_from_the_other_end_are_the_same():
    line = wiggly(9, 0)
    forth = of(line, seed_vertex=[3])
    back = of(line.flip(0), seed_vertex=[5])
    losses = streamline_losses(forth, back)
    assert [float(value) for value in losses] == pytest.approx([0, 0, 0, 1], abs=1e-12)


def test_vertices_are_matched_from_the_seed_and_only_as_far_as_both_go():
    line = straight(11)
    whole, part = of(line, seed_vertex=[6]), of(line[4:9], seed_vertex=[2])
    losses = streamline_losses(part, whole)
    assert float(losses.points) == 0
    assert float(losses.directions) == pytest.approx(0, abs=1e-12)
    # Ends 4 mm and 2 mm short: 3.5 and 1.5 mm of Huber's.
    assert float(losses.ends) == pytest.approx(2.5)


def test_only_streamlines_of_common_seeds_are_compared():
    lines = [straight(6, first=(0.0, 10.0 * i, 0.0)) for i in range(4)]
    found = of(lines[0], lines[2], lines[3], seeds=[0, 5, 7])
    target = of(lines[1], lines[2] + torch.tensor([0, 0, 1.0]), seeds=[3, 5])
    losses = streamline_losses(found, target)
    assert losses.n_compared == 1
    assert float(losses.points) == pytest.approx(0.5)


def test_many_streamlines_are_compared_as_one_by_one():
    rng = torch.Generator().manual_seed(3)
    found, target, starts = [], [], ([], [])
    for i in range(12):
        n, m = (int(torch.randint(2, 12, (), generator=rng)) for _ in range(2))
        found.append(wiggly(n, i))
        target.append(wiggly(m, 50 + i) if i % 2 else wiggly(m, 50 + i).flip(0))
        starts[0].append(int(torch.randint(0, n, (), generator=rng)))
        starts[1].append(int(torch.randint(0, m, (), generator=rng)))
    joined = streamline_losses(
        of(*found, seed_vertex=starts[0], n_seeds=12),
        of(*target, seed_vertex=starts[1], n_seeds=12),
    )
    points, ends = [], []
    for a, b, s, t in zip(found, target, *starts, strict=True):
        here = a[min(s + 1, len(a) - 1)] - a[max(s - 1, 0)]
        there = b[min(t + 1, len(b) - 1)] - b[max(t - 1, 0)]
        if float(here @ there) < 0:
            b, t = b.flip(0), len(b) - 1 - t  # noqa: PLW2901 - the plain way to say it
        steps = range(-min(s, t), min(len(a) - s, len(b) - t))
        points += [float((a[s + k] - b[t + k]).norm()) for k in steps]
        ends += [float((a[0] - b[0]).norm()), float((a[-1] - b[-1]).norm())]
    huber = [[d - 0.5 if d > 1 else d * d / 2 for d in some] for some in (points, ends)]
    assert float(joined.points) == pytest.approx(sum(huber[0]) / len(huber[0]))
    assert float(joined.ends) == pytest.approx(sum(huber[1]) / len(huber[1]))


@pytest.mark.parametrize("name", ["points", "directions", "ends"])
def test_slopes_of_streamline_losses_are_right(name):
    target = of(wiggly(7, 1), wiggly(5, 2), seed_vertex=[3, 0])
    lengths = (6, 8)

    def loss(points):
        found = of(*points.split(lengths), seed_vertex=[2, 1])
        return getattr(streamline_losses(found, target), name)

    points = torch.cat([wiggly(n, 10 + n) for n in lengths]).requires_grad_()
    assert gradcheck(loss, points)


def test_identical_streamlines_have_a_finite_slope():
    points = wiggly(6, 0).requires_grad_()
    losses = streamline_losses(of(points), of(points.detach()))
    (losses.points + losses.directions + losses.ends).backward()
    assert bool(points.grad.isfinite().all())


def test_a_streamline_that_stands_still_has_a_finite_slope():
    points = torch.zeros(4, 3, dtype=torch.float64, requires_grad=True)
    losses = streamline_losses(of(points), of(straight(4)))
    (losses.points + losses.directions).backward()
    assert bool(points.grad.isfinite().all())


def test_without_common_streamlines_all_is_zero_and_still_in_the_graph():
    points = wiggly(6, 0).requires_grad_()
    for target in (of(), of(straight(4), seeds=[5])):
        losses = streamline_losses(of(points), target)
        assert [float(value.detach()) for value in losses[:3]] == [0, 0, 0]
        assert losses.n_compared == 0
        losses.points.backward()
        assert not bool(points.grad.any())


def test_streamlines_of_other_seeds_are_refused():
    with pytest.raises(InputError, match="9 seeds, those wanted of 4"):
        streamline_losses(of(straight(4)), of(straight(4), n_seeds=4))


# --- connectomes


def test_losses_of_connectomes_have_the_values_worked_out_by_hand():
    target = torch.tensor([[0.0, 3.0], [3.0, 4.0]])
    found = torch.tensor([[0.0, 1.0], [1.0, 4.0]])
    assert float(relative_loss(found, target)) == pytest.approx(4 / 25)
    logs = (math.log(4), math.log(5))
    expected = (math.log(2) - logs[0]) ** 2 / (logs[0] ** 2 + logs[1] ** 2)
    assert float(log_count_loss(found, target)) == pytest.approx(expected)


def test_a_scaled_connectome_has_the_same_pattern():
    target = symmetric(6, 0)
    assert float(correlation_loss(3.7 * target, target)) == pytest.approx(0, abs=1e-12)
    assert float(correlation_loss(-target, target)) == pytest.approx(2)
    assert float(correlation_loss(1e-180 * target, target)) == pytest.approx(0, abs=1e-12)


def test_correlation_is_that_of_edges_between_different_nodes():
    found, target = symmetric(6, 0), symmetric(6, 1)
    upper = torch.ones(6, 6).triu(1).bool()
    expected = 1 - torch.corrcoef(torch.stack([found[upper], target[upper]]))[0, 1]
    assert float(correlation_loss(found, target)) == pytest.approx(float(expected))
    assert float(correlation_loss(found + 100 * torch.eye(6), target)) == pytest.approx(
        float(expected)
    )


@pytest.mark.parametrize("loss", [relative_loss, log_count_loss, correlation_loss])
def test_slopes_of_connectome_losses_are_right(loss):
    found = symmetric(5, 3).requires_grad_()
    assert gradcheck(lambda matrix: loss(matrix, symmetric(5, 4)), found)


@pytest.mark.parametrize("loss", [relative_loss, log_count_loss, correlation_loss])
def test_empty_connectomes_are_equal_and_in_the_graph(loss):
    found = torch.zeros(4, 4, dtype=torch.float64, requires_grad=True)
    value = loss(found, torch.zeros(4, 4))
    value.backward()
    assert float(value.detach()) == 0
    assert not bool(found.grad.any())


def test_a_connectome_without_a_pattern_is_wholly_wrong_and_has_no_slope():
    found = torch.zeros(4, 4, dtype=torch.float64, requires_grad=True)
    value = correlation_loss(found, symmetric(4, 0))
    value.backward()
    assert float(value.detach()) == 1
    assert not bool(found.grad.any())


@pytest.mark.parametrize("loss", [relative_loss, log_count_loss, correlation_loss])
def test_connectomes_of_other_nodes_are_refused(loss):
    with pytest.raises(InputError, match=r"\(3, 3\), the one wanted \(4, 4\)"):
        loss(torch.zeros(3, 3), torch.zeros(4, 4))


# --- densities


def test_density_adds_up_to_the_length_of_all_streamlines():
    lines = of(wiggly(9, 0), wiggly(4, 1))
    density = tract_density(lines, (9, 8, 7), VOX2RAS)
    assert float(density.sum()) == pytest.approx(float(lines.lengths_mm().sum()))


def test_a_segment_gives_its_length_to_the_voxels_around_its_middle():
    centre = VOX2RAS[:3, :3] @ torch.tensor([3.0, 4.0, 2.0]).double() + VOX2RAS[:3, 3]
    half = torch.tensor([0.0, 0.0, 0.4]).double()
    at_centre = tract_density(of(torch.stack([centre - half, centre + half])), (9, 8, 7), VOX2RAS)
    assert float(at_centre[3, 4, 2]) == pytest.approx(0.8)
    along = 0.25 * VOX2RAS[:3, 0]
    between = torch.stack([centre + along - half, centre + along + half])
    shared = tract_density(of(between), (9, 8, 7), VOX2RAS)
    assert float(shared[3, 4, 2]) == pytest.approx(0.6)
    assert float(shared[4, 4, 2]) == pytest.approx(0.2)


def test_slopes_of_density_are_right():
    target = tract_density(of(wiggly(5, 5)), (9, 8, 7), VOX2RAS)
    assert float(target.sum()) > 1

    def loss(points):
        return density_loss(tract_density(of(*points.split((6, 4))), (9, 8, 7), VOX2RAS), target)

    assert gradcheck(loss, wiggly(10, 6).requires_grad_())


def test_what_is_outside_the_image_leaves_no_trace():
    far = straight(5, first=(500.0, 0.0, 0.0)).requires_grad_()
    density = tract_density(of(far), (9, 8, 7), VOX2RAS)
    density.sum().backward()
    assert not bool(density.any())
    assert not bool(far.grad.any())


def test_the_density_of_no_streamlines_is_in_the_graph():
    points = torch.zeros(0, 3, dtype=torch.float64, requires_grad=True)
    value = density_loss(tract_density(of(points), (3, 3, 3), VOX2RAS), torch.zeros(3, 3, 3))
    value.backward()
    assert float(value.detach()) == 0


# --- all of them


def everything(seed: int) -> Propagated:
    lines = of(wiggly(8, seed), wiggly(5, seed + 1), seed_vertex=[2, 2])
    amplitudes = Amplitudes(*(torch.full((3,), 0.2),) * 2, cutoff=0.1, softness=0.02)
    density = tract_density(lines, (9, 8, 7), VOX2RAS)
    return Propagated(lines, symmetric(4, seed), density, amplitudes)


def test_the_total_is_the_weighted_sum_of_the_parts_and_zero_at_the_target():
    objective = Objective(ALL)
    fodf, mask = torch.randn(2, 2, 2, 6), torch.ones(2, 2, 2, dtype=torch.bool)
    parts = objective(everything(0), everything(5)).with_parts(
        objective.fodf(fodf, 2 * fodf, mask)
    )
    assert set(parts) == set(LossConfig.__dataclass_fields__)
    assert float(parts.total) == pytest.approx(0.5 * sum(parts.numbers().values()))
    assert parts.n_compared == 2
    same = objective(everything(0), everything(0))
    assert float(same.total) == pytest.approx(0, abs=1e-12)


def test_losses_of_weight_zero_are_not_worked_out():
    objective = Objective(LossConfig(fodf=0.0, ends=2.0))
    parts = objective(everything(0), Propagated(everything(5).streamlines))
    assert set(parts) == {"ends"}
    assert not objective.fodf(torch.zeros(1, 1, 1, 6), torch.zeros(0), torch.zeros(0))
    assert not objective.needs_density


def test_a_loss_of_what_is_not_there_is_refused():
    for loss, what in (("connectome_log", "connectome"), ("survival", "amplitudes")):
        with pytest.raises(ConfigError, match=f"no {what}"):
            Objective(LossConfig(**{loss: 1.0}))(Propagated(), Propagated())
