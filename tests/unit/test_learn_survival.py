"""Whether streamlines go on: the loss on amplitudes along the streamlines of both."""

from __future__ import annotations

import pytest
import torch
from problems import fodf_of, scaling
from torch.autograd import gradcheck

from difftract_bids.config import TrackingConfig
from difftract_bids.core.field import FodfField
from difftract_bids.core.seeding import RandomSeeds
from difftract_bids.core.sh import sh_basis
from difftract_bids.core.streamlines import Streamlines
from difftract_bids.learn.losses.survival import Amplitudes, beyond_ends, survival_loss
from difftract_bids.learn.targets import Propagation, PropagationTarget

VOX2RAS, SHAPE = scaling(2.0), (14, 6, 6)
MASK = torch.ones(SHAPE, dtype=torch.bool)
TRACKING = TrackingConfig(step_size_mm=1.0, min_length_mm=3.0, cutoff=0.1)


def bundle(gain: torch.Tensor | float = 1.0) -> torch.Tensor:
    """One bundle along x, of an amplitude that may differ from voxel to voxel along it."""
    along = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    fodf = fodf_of(lambda places: along.expand(*places.shape[:-1], 3), SHAPE, VOX2RAS)
    return fodf * torch.as_tensor(gain, dtype=torch.float64).reshape(-1, 1, 1, 1)


def gap(amplitude: float) -> torch.Tensor:
    """A bundle that is interrupted in the middle."""
    gain = torch.full((SHAPE[0],), 0.5, dtype=torch.float64)
    gain[6:8] = amplitude
    return gain


def target_of(fodf: torch.Tensor) -> PropagationTarget:
    return PropagationTarget(
        fodf, VOX2RAS, MASK, TRACKING, survival_softness=0.02, with_amplitudes=True
    )


def loss_of(target: PropagationTarget, fodf: torch.Tensor, seed: int = 0) -> torch.Tensor:
    drawn = target.draw(60, seed)
    return survival_loss(target.found(fodf, drawn).amplitudes)


def numbers(found, wanted, **settings) -> Amplitudes:
    settings = {"cutoff": 0.1, "softness": 0.02} | settings
    return Amplitudes(torch.as_tensor(found), torch.as_tensor(wanted), **settings)


def test_the_loss_is_the_divergence_of_one_choice_from_the_other():
    found, wanted = torch.tensor([0.12, 0.05]).double(), torch.tensor([0.08, 0.3]).double()
    p, q = (torch.sigmoid((x - 0.1) / 0.02) for x in (wanted, found))
    expected = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()
    assert float(survival_loss(numbers(found, wanted))) == pytest.approx(float(expected))
    assert float(survival_loss(numbers(wanted, wanted))) == pytest.approx(0, abs=1e-12)


def test_its_slope_is_exact_and_finite_far_from_the_cutoff():
    found = torch.tensor([-40.0, 0.09, 0.11, 60.0], dtype=torch.float64, requires_grad=True)
    wanted = torch.tensor([3.0, 0.2, 0.0, -3.0], dtype=torch.float64)
    assert gradcheck(lambda x: survival_loss(numbers(x, wanted)), found)
    (slope,) = torch.autograd.grad(survival_loss(numbers(found, wanted)), found)
    assert slope.isfinite().all()
    assert (slope[[0, 1]] < 0).all()
    assert (slope[[2, 3]] > 0).all()


def test_its_expected_value_is_least_where_as_many_go_on():
    """The mean amplitude, which squares lead to, is below the cutoff: everything would end."""
    wanted = torch.tensor([0.02, 0.02, 0.13, 0.13, 0.13], dtype=torch.float64)
    assert float(wanted.mean()) < 0.1
    tried = torch.linspace(0.0, 0.2, 401, dtype=torch.float64)
    losses = [survival_loss(numbers(x.expand(5), wanted, softness=0.005)) for x in tried]
    best = tried[torch.stack(losses).argmin()]
    share = torch.sigmoid((wanted - 0.1) / 0.005).mean()
    assert float(torch.sigmoid((best - 0.1) / 0.005)) == pytest.approx(float(share), abs=0.03)
    assert best > 0.1


def test_streamlines_go_on_straight_ahead_for_two_vertices():
    lines = Streamlines(
        points=torch.tensor([[0.0, 0, 0], [1, 0, 0], [5, 5, 5], [5, 6, 5], [5, 6, 7.0]]),
        offsets=torch.tensor([0, 2, 5]),
        seed_index=torch.tensor([0, 1]),
        seed_vertex=torch.tensor([0, 0]),
        stop_reason=torch.zeros(2, 2, dtype=torch.int64),
        seed_status=torch.zeros(2, dtype=torch.int64),
    )
    longer = beyond_ends(lines)
    assert longer[0].tolist() == [[x, 0.0, 0.0] for x in (-2, -1, 0, 1, 2, 3)]
    assert longer[1].tolist() == [[5.0, y, z] for y, z in zip(
        (3, 4, 5, 6, 6, 6, 6), (5, 5, 5, 5, 7, 9, 11), strict=True
    )]  # fmt: skip
    nothing = beyond_ends(
        Streamlines(
            lines.points[:0], lines.offsets[:1], *(x[:0] for x in (
                lines.seed_index, lines.seed_vertex, lines.stop_reason, lines.seed_status
            ))
        )
    )  # fmt: skip
    assert len(nothing) == 0
    assert len(nothing.points) == 0


def test_a_streamline_that_should_have_gone_on_pulls_the_amplitude_up_where_it_ended():
    """None of its own vertices is there: only those of the target know."""
    target = target_of(bundle(0.5))
    fodf = bundle(gap(0.06)).requires_grad_()
    (slope,) = torch.autograd.grad(loss_of(target, fodf), fodf)
    mean = slope[..., 0].sum(dim=(1, 2))
    assert (mean[6:8] < 0).all()
    assert mean[6:8].abs().min() > 10 * mean[[2, 3, 10, 11]].abs().max()


def test_a_streamline_that_should_have_ended_pulls_the_amplitude_down_where_it_goes_on():
    target = target_of(bundle(gap(0.04)))
    fodf = bundle(0.5).requires_grad_()
    (slope,) = torch.autograd.grad(loss_of(target, fodf), fodf)
    mean = slope[..., 0].sum(dim=(1, 2))
    assert (mean[6:8] > 0).all()
    assert mean[6:8].abs().min() > 10 * mean[[2, 3, 10, 11]].abs().max()


def test_descent_closes_the_gap_through_which_streamlines_do_not_pass():
    target = target_of(bundle(0.5))
    gain = gap(0.05).requires_grad_()
    optimiser = torch.optim.Adam([gain], lr=0.01)
    for _ in range(25):
        optimiser.zero_grad()
        loss_of(target, bundle() * gain[:, None, None, None]).backward()
        optimiser.step()
    assert (gain.detach()[6:8] > 0.15).all()
    assert float(loss_of(target, (bundle() * gain[:, None, None, None]).detach())) < 1e-2


def test_amplitudes_are_those_of_the_peaks_where_streamlines_may_go():
    fodf = bundle(0.5)
    target = target_of(fodf)
    drawn = target.draw(40, random_seed=3)
    found = target.found(0.3 * fodf, drawn).amplitudes
    along = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    peak = float((fodf[0, 0, 0] * sh_basis(along, 8)[0]).sum())
    whole = found.wanted > 0.99 * peak  # beyond the last voxel's centre there is less of it
    assert whole.float().mean() > 0.8
    torch.testing.assert_close(found.found, 0.3 * found.wanted)
    lines = drawn.target.streamlines
    n_inner = int((lines.n_vertices() - 2).sum())
    assert len(found.found) >= 2 * n_inner


def test_where_nobody_goes_there_is_no_loss_but_a_graph():
    target = target_of(torch.zeros_like(bundle()))
    fodf = (0 * bundle()).requires_grad_()
    loss = loss_of(target, fodf)
    assert float(loss.detach()) == 0
    loss.backward()


def test_a_propagation_alone_has_no_amplitudes():
    seeds, directions = RandomSeeds(MASK, VOX2RAS, 0).draw(0, 20)
    propagation = Propagation(VOX2RAS, MASK, TRACKING)
    assert propagation.run(bundle(), seeds, directions).amplitudes is None
    assert isinstance(propagation.field_of(bundle()), FodfField)
