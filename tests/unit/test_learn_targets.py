"""What one tracking of a predicted fODF gives beside the target's, on a bundle that bends."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from problems import fodf_of, scaling

from difftract_bids.config import TrackingConfig
from difftract_bids.config.training import LossConfig
from difftract_bids.core.end_to_end import FODFToConnectome
from difftract_bids.core.propagate import track
from difftract_bids.errors import FodfError, InputError, SeedError
from difftract_bids.learn.losses import Objective
from difftract_bids.learn.targets import PropagationTarget

SHAPE, VOX2RAS = (12, 10, 6), scaling(2.0)
TRACKING = TrackingConfig(step_size_mm=0.5, min_length_mm=2.0, peak_tolerance=1e-12)
ALL = LossConfig(**dict.fromkeys(LossConfig.__dataclass_fields__, 1.0))


def bending(bend: float) -> torch.Tensor:
    """One lobe everywhere, along x at the left and turned by ``bend`` (rad) at the right."""

    def direction(places_mm: torch.Tensor) -> torch.Tensor:
        angle = bend * places_mm[..., 0] / 24
        zero = torch.zeros_like(angle)
        return torch.stack([torch.cos(angle), torch.sin(angle), zero], dim=-1)

    return fodf_of(direction, SHAPE, VOX2RAS)


def labels() -> torch.Tensor:
    image = torch.zeros(SHAPE, dtype=torch.int64)
    image[:2, :5], image[:2, 5:], image[-2:, :5], image[-2:, 5:] = 7, 3, 11, 20
    return image


def target_of(fodf: torch.Tensor, **settings: object) -> PropagationTarget:
    mask = torch.ones(SHAPE, dtype=torch.bool)
    return PropagationTarget(
        fodf,
        VOX2RAS,
        mask,
        TRACKING,
        parcellation=labels(),
        node_labels=torch.tensor([3, 7, 11, 20, 99]),
        with_density=True,
        with_amplitudes=settings.get("survival_softness", 0.05) is not None,
        **settings,
    )


def test_the_target_itself_has_no_loss():
    target = target_of(bending(0.4))
    drawn = target.draw(200, random_seed=1)
    parts = Objective(ALL)(target.found(target.fodf, drawn), drawn.target)
    assert parts.n_compared > 20
    assert parts.numbers() == pytest.approx(dict.fromkeys(parts, 0.0), abs=1e-12)


def test_one_tracking_gives_what_its_parts_give_one_by_one():
    fodf = bending(0.3)
    target = target_of(fodf, survival_softness=0.04)
    drawn = target.draw(150, random_seed=0)
    starts = drawn.seeds_mm, drawn.directions
    lines = track(fodf, *starts, VOX2RAS, TRACKING, target.mask)
    maker = FODFToConnectome(
        target.propagation.connectome, VOX2RAS, TRACKING, survival_softness=0.04
    )
    torch.testing.assert_close(drawn.target.streamlines.points, lines.points)
    torch.testing.assert_close(drawn.target.connectome, maker(fodf, *starts, target.mask))
    assert float(drawn.target.density.sum()) == pytest.approx(float(lines.lengths_mm().sum()))
    assert drawn.target.connectome.shape == (5, 5)


def test_every_loss_falls_as_the_prediction_nears_the_target():
    target = target_of(bending(0.5))
    drawn = target.draw(300, random_seed=2)
    objective = Objective(ALL)
    far, near = (
        objective(target.found(bending(bend), drawn), drawn.target).numbers()
        for bend in (0.2, 0.4)
    )
    assert all(near[name] < far[name] for name in far), (far, near)


def test_the_derivative_of_all_losses_together_is_right():
    target = target_of(bending(0.4))
    drawn = target.draw(60, random_seed=4)
    # Survival is compared where streamlines happen to be: that they move is not in its derivative.
    objective = Objective(replace(ALL, survival=0.0))
    start = bending(0.31)
    way = bending(0.45) - start

    def value(amount: float) -> tuple[float, torch.Tensor]:
        found = target.found(start + amount * way, drawn)
        return float(objective(found, drawn.target).total), found.streamlines.offsets

    fodf = start.clone().requires_grad_()
    total = objective(target.found(fodf, drawn), drawn.target).total
    (slope,) = torch.autograd.grad(total, fodf)
    amount = 1e-4  # where peaks are found to is rounded at 1e-10, which a smaller one would divide
    (ahead, one), (behind, other) = value(amount), value(-amount)
    assert torch.equal(one, other)  # nothing was decided otherwise
    assert float((slope * way).sum()) == pytest.approx((ahead - behind) / (2 * amount), rel=1e-4)


def test_counts_are_whole_and_know_what_makes_streamlines_end():
    fodf = 0.2 * bending(0.4)
    way = fodf.clone()  # larger amplitudes, and the same directions
    slopes, sums = {}, {}
    for name, settings in {
        "unweighted": {"survival_softness": None},
        "weighted": {"survival_softness": 0.05},
        "counts": {"survival_softness": 0.05, "counts": True},
    }.items():
        target = target_of(fodf, **settings)
        drawn = target.draw(100, random_seed=5)
        leaf = fodf.clone().requires_grad_()
        matrix = target.found(leaf, drawn).connectome
        (slope,) = torch.autograd.grad(matrix.sum(), leaf)
        slopes[name], sums[name] = float((slope * way).sum()), matrix.detach()
    torch.testing.assert_close(sums["counts"], sums["unweighted"])
    assert float(sums["weighted"].sum()) < 0.9 * float(sums["counts"].sum())
    assert slopes["unweighted"] == pytest.approx(0.0, abs=1e-6 * slopes["counts"])
    assert slopes["counts"] > slopes["weighted"] > 0


def test_steps_along_the_derivative_lower_the_loss():
    target = target_of(bending(0.5))
    drawn = target.draw(200, random_seed=3)
    objective = Objective(ALL)
    fodf = bending(0.35).requires_grad_()
    values = []
    optimiser = torch.optim.Adam([fodf], lr=0.003)
    for _ in range(8):
        total = objective(target.found(fodf, drawn), drawn.target).total
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        values.append(float(total.detach()))
    assert values[-1] < 0.7 * values[0]


def test_seeds_are_drawn_where_they_are_asked_for():
    where = torch.zeros(SHAPE, dtype=torch.bool)
    where[4:6, 2:5, 1] = True
    target = target_of(bending(0.1), seed_mask=where)
    drawn = target.draw(100, random_seed=0)
    voxel = torch.floor(drawn.seeds_mm / 2.0 + 0.5).long()
    assert bool(where[tuple(voxel.T)].all())
    assert not torch.equal(target.draw(100, random_seed=1).seeds_mm, drawn.seeds_mm)


def test_a_prediction_of_nothing_gives_losses_in_the_graph_and_no_error():
    target = target_of(bending(0.2))
    drawn = target.draw(50, random_seed=0)
    fodf = (1e-3 * bending(0.2)).requires_grad_()  # all below the cutoff
    parts = Objective(ALL)(target.found(fodf, drawn), drawn.target)
    parts.total.backward()
    assert parts.n_compared == 0
    assert float(parts["points"].detach()) == 0
    assert float(parts["connectome_relative"].detach()) == pytest.approx(1)
    assert bool(fodf.grad.isfinite().all())


def test_half_precision_predictions_are_tracked_at_single_precision():
    target = target_of(bending(0.2).float())
    drawn = target.draw(50, random_seed=0)
    found = target.found(bending(0.2).to(torch.bfloat16).requires_grad_(), drawn)
    assert found.streamlines.points.dtype == torch.float32
    Objective(ALL)(found, drawn.target).total.backward()


def test_without_a_parcellation_there_is_no_connectome():
    mask = torch.ones(SHAPE, dtype=torch.bool)
    drawn = PropagationTarget(bending(0.2), VOX2RAS, mask, TRACKING).draw(20, 0)
    assert drawn.target.connectome is None
    assert drawn.target.density is None


def test_what_cannot_be_used_is_refused():
    mask = torch.ones(SHAPE, dtype=torch.bool)
    with pytest.raises(InputError, match="grid of the mask"):
        PropagationTarget(bending(0.2)[1:], VOX2RAS, mask, TRACKING)
    with pytest.raises(SeedError, match="no voxel"):
        PropagationTarget(bending(0.2), VOX2RAS, ~mask, TRACKING).draw(10, 0)
    target = target_of(bending(0.2))
    bad = bending(0.2)
    bad[3, 3, 3, 0] = torch.nan
    with pytest.raises(FodfError, match="not finite in 1"):
        target.found(bad, target.draw(10, 0))
    with pytest.raises(InputError, match="on one grid"):
        target.found(bad[1:], target.draw(10, 0))
