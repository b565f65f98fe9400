"""Adjusting fODFs to a connectome or a tractogram, held back by the signal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from chain import part_of_a_head
from problems import fodf_of, scaling

from difftract_bids.config import TrackingConfig
from difftract_bids.config.training import LossConfig
from difftract_bids.core.connectome.soft import SoftConnectome
from difftract_bids.core.deconvolution.convolution import convolution_matrix
from difftract_bids.core.propagate import track
from difftract_bids.core.seeding import RandomSeeds
from difftract_bids.errors import AtlasError, ConfigError, FodfError, InputError
from difftract_bids.io.gradients import GradientTable
from difftract_bids.learn.refine import RefineOptions, refine_fodf
from difftract_bids.learn.refine_targets import ConnectomeTarget, TractogramTarget
from difftract_bids.learn.resampling import Middles
from difftract_bids.learn.signal_fidelity import Signal
from difftract_bids.learn.targets import Propagation
from difftract_bids.modelling.deconvolution import build_deconvolution

SHAPE, VOX2RAS = (12, 10, 6), scaling(2.0)
MASK = torch.ones(SHAPE, dtype=torch.bool)
TRACKING = TrackingConfig(step_size_mm=0.5, min_length_mm=2.0)
RESPONSE = torch.tensor([300.0, -120.0, 40.0, -8.0], dtype=torch.float64)
OPTIONS = RefineOptions(n_steps=12, n_seeds=150, judge_every=3)
NODES = torch.tensor([3, 7, 11, 20])


def bending(bend: float) -> torch.Tensor:
    """One lobe everywhere, along x at the left and turned by ``bend`` (rad) at the right."""

    def direction(places_mm: torch.Tensor) -> torch.Tensor:
        angle = bend * places_mm[..., 0] / 24
        return torch.stack([torch.cos(angle), torch.sin(angle), torch.zeros_like(angle)], dim=-1)

    return fodf_of(direction, SHAPE, VOX2RAS)


def labels() -> torch.Tensor:
    image = torch.zeros(SHAPE, dtype=torch.int64)
    image[:2, :5], image[:2, 5:], image[-2:, :5], image[-2:, 5:] = 7, 3, 11, 20
    return image


def directions(n: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(0)
    return torch.nn.functional.normalize(torch.randn(n, 3, generator=rng).double(), dim=1)


def signal_of(fodf: torch.Tensor, n: int = 12) -> Signal:
    """The signal of some fODFs in a few directions, with a little noise."""
    matrix = convolution_matrix(directions(n), RESPONSE.expand(n, -1), 8)
    rng = torch.Generator().manual_seed(1)
    clean = fodf @ matrix.T
    return Signal(clean + torch.randn(clean.shape, generator=rng, dtype=clean.dtype), matrix)


def connectome_target(fodf: torch.Tensor, scale: float = 1.0) -> ConnectomeTarget:
    nodes = SoftConnectome(labels(), VOX2RAS, sigma_mm=2.0, node_labels=NODES)
    seeds = RandomSeeds(MASK, VOX2RAS, 50).draw(0, 2000)
    found = Propagation(VOX2RAS, MASK, TRACKING, nodes).run(fodf, *seeds).connectome
    return ConnectomeTarget(scale * found, labels(), VOX2RAS, NODES)


def tractogram_of(fodf: torch.Tensor, n: int = 300) -> TractogramTarget:
    seeds = RandomSeeds(MASK, VOX2RAS, 9).draw(0, n)
    lines = track(fodf, *seeds, VOX2RAS, TRACKING, MASK)
    return TractogramTarget(lines.points, lines.offsets)


def refined(target, start=None, **changes):
    start = bending(0.2) if start is None else start
    given = {"tracking": TRACKING, "signal": signal_of(start), "options": OPTIONS}
    return refine_fodf(start, VOX2RAS, MASK, target, **(given | changes))


# --- what it is for


@pytest.mark.parametrize(("kind", "factor"), [("connectome", 0.87), ("tractogram", 0.6)])
def test_the_loss_falls_and_the_signal_stays_explained(kind, factor):
    wanted = bending(0.6)
    target = connectome_target(wanted) if kind == "connectome" else tractogram_of(wanted)
    by_counts = LossConfig(fodf=0.0, connectome_relative=1.0) if kind == "connectome" else None
    rate = 0.03 if kind == "connectome" else 0.06
    options = RefineOptions(n_steps=24, n_seeds=300, learning_rate=rate, losses=by_counts)
    result = refined(target, options=options)
    assert result.target_after < factor * result.target_before
    assert result.misfit_after < 1.5 * result.misfit_before
    assert [step.step for step in result.history] == list(range(len(result.history)))
    assert result.history[0].judged == result.target_before
    assert result.history[result.best_step].judged == result.target_after


def test_a_scan_of_few_directions_comes_nearer_to_the_connectome_of_all(tmp_path):
    chain = part_of_a_head(tmp_path / "raw")
    gradients, labels_of = chain.gradients, torch.tensor(chain.nodes.index)
    weighted = np.flatnonzero(~gradients.b0_mask)
    kept = np.concatenate([np.flatnonzero(gradients.b0_mask), weighted[::3][:15]])
    few = GradientTable(gradients.bvals_s_mm2[kept], gradients.bvecs[kept])
    response = {"WM": chain.response}
    whole = build_deconvolution(gradients, response, "csd", 8)(chain.dwi, chain.mask)[0]
    with pytest.warns(UserWarning, match="super-resolved"):
        start = build_deconvolution(few, response, "csd", 8)(chain.dwi[..., kept], chain.mask)[0]
    nodes = SoftConnectome(chain.parcellation, chain.vox2ras, sigma_mm=2.0, node_labels=labels_of)
    propagation = Propagation(chain.vox2ras, chain.mask, TrackingConfig(), nodes)
    found = propagation.run(whole, *chain.seeds(4000, 5)).connectome
    zonal = torch.from_numpy(chain.response.deconvolved.copy())
    result = refine_fodf(
        start,
        chain.vox2ras,
        chain.mask,
        ConnectomeTarget(found, chain.parcellation, chain.vox2ras, labels_of),
        tracking=TrackingConfig(gradient_growth_limit=2.0),
        signal=Signal.of_shell(chain.dwi[..., kept], few, zonal, 8),
        options=RefineOptions(n_steps=8, n_seeds=1000, judge_every=4),
    )
    assert result.target_after < 0.85 * result.target_before
    assert result.misfit_after < 1.1 * result.misfit_before


def test_the_same_seed_gives_the_same_bytes():
    target = connectome_target(bending(0.6))
    one, same = (refined(target) for _ in range(2))
    assert torch.equal(one.fodf, same.fodf)
    assert one.history == same.history
    other = refined(target, options=replace(OPTIONS, random_seed=7))
    assert other.history != one.history


def test_only_voxels_that_streamlines_pass_are_changed():
    start = bending(0.2)
    corner = torch.zeros(SHAPE, dtype=torch.bool)
    corner[:, :, :3] = True
    start[~corner] = 0
    result = refined(tractogram_of(bending(0.6)), start, signal=signal_of(start))
    assert not bool(result.fodf[~corner].any())
    masked = refine_fodf(
        bending(0.2),
        VOX2RAS,
        corner,
        tractogram_of(bending(0.6)),
        tracking=TRACKING,
        options=OPTIONS,
    )
    assert torch.equal(masked.fodf[~corner], bending(0.2)[~corner])
    assert not torch.equal(masked.fodf[corner], bending(0.2)[corner])


def test_the_weight_of_the_signal_holds_the_fodfs_back():
    target = tractogram_of(bending(0.6))
    free, held = (
        refined(target, options=replace(OPTIONS, learning_rate=0.05, signal_weight=weight))
        for weight in (0.0, 100.0)
    )
    assert held.misfit_after < free.misfit_after
    assert free.misfit_after > 2 * free.misfit_before


def test_without_a_signal_nothing_is_said_of_it():
    result = refined(tractogram_of(bending(0.6)), signal=None)
    assert result.misfit_before is None
    assert result.history[0].increase is None


def test_fodfs_that_are_the_target_stay_as_they_are():
    start = bending(0.2)
    result = refined(tractogram_of(start), start)
    assert result.target_before == pytest.approx(0, abs=0.05)
    assert result.target_after <= result.target_before


# --- the target's scale, and the tractogram's steps


def test_the_scale_of_a_connectome_does_not_matter():
    one, other = (refined(connectome_target(bending(0.6), scale)) for scale in (1.0, 1e-4))
    assert other.target_before == pytest.approx(one.target_before)
    assert float(one.wanted.connectome.triu().sum()) == pytest.approx(
        float(one.before.connectome.triu().sum())
    )


def test_an_upper_triangle_is_completed_and_an_empty_diagonal_is_not_compared():
    whole = connectome_target(bending(0.6))
    upper = replace(whole, matrix=whole.matrix.triu(1))
    result = refined(upper)
    torch.testing.assert_close(result.wanted.connectome, result.wanted.connectome.T)
    assert not bool(result.before.connectome.diagonal().any())
    assert bool(refined(whole).before.connectome.diagonal().any())


def test_streamlines_are_resampled_from_their_middles_along_their_way():
    corner = torch.tensor([[0.0, 0, 0], [3, 0, 0], [3, 0, 0], [3, 4, 0]]).double()
    other = torch.tensor([[50.0, 1, 1], [50, 1, 3]]).double()
    middles = Middles.of(torch.cat([corner, other]), torch.tensor([0, 4, 4, 6]), 1.0)
    assert middles.half_steps.tolist() == [3, 0, 1]
    lines = middles.streamlines(torch.tensor([0, 2]))
    expected = [[0.5, 0, 0], [1.5, 0, 0], [2.5, 0, 0], [3, 0.5, 0], [3, 1.5, 0], [3, 2.5, 0]]
    torch.testing.assert_close(lines[0], torch.tensor([*expected, [3.0, 3.5, 0]]).double())
    torch.testing.assert_close(
        lines[1], torch.tensor([[50.0, 1, 1], [50, 1, 2], [50, 1, 3]]).double()
    )
    assert lines.seed_vertex.tolist() == [3, 1]


def test_the_signal_is_explained_whatever_the_fodfs_were_multiplied_by():
    fodf = bending(0.3)
    inside = torch.ones(SHAPE, dtype=torch.bool)
    signal = signal_of(fodf)
    rows = fodf[inside]
    plain, scaled = signal.misfit(fodf, inside), signal.misfit(5 * fodf, inside)
    assert float(scaled.relative(5 * rows)) == pytest.approx(float(plain.relative(rows)))
    assert float(plain.increase(rows)) == 0
    by_hand = ((signal.dwi - fodf @ signal.matrix.T) ** 2).sum() / (signal.dwi**2).sum()
    assert float(plain.relative(rows)) == pytest.approx(float(by_hand), rel=0.2)
    with_other = Signal(signal.dwi + 40.0, signal.matrix, torch.full_like(signal.dwi, 40.0))
    more = with_other.misfit(fodf, inside)
    torch.testing.assert_close(more.at_start, plain.at_start)


# --- what cannot be used


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (torch.ones(3, 3), r"\(3, 3\), but the parcellation has 4 nodes"),
        (torch.full((4, 4), torch.nan), "16 entries that are negative or not finite"),
        (-torch.ones(4, 4), "16 entries"),
        (torch.zeros(4, 4), "empty"),
        (torch.arange(16.0).reshape(4, 4), "not symmetric"),
    ],
)
def test_a_matrix_that_is_no_connectome_of_these_nodes_is_refused(matrix, message):
    with pytest.raises(InputError, match=message):
        ConnectomeTarget(matrix, labels(), VOX2RAS, NODES)


def test_nodes_that_are_not_in_the_brain_are_refused():
    target = connectome_target(bending(0.2))
    with pytest.raises(AtlasError, match="no node"):
        refined(replace(target, node_labels=torch.tensor([1, 2, 3, 4])))
    far = VOX2RAS.clone()
    far[0, 3] = 900
    with pytest.raises(InputError, match="connect no nodes"):
        refined(replace(target, vox2ras=far))


def test_tractograms_that_are_empty_damaged_or_elsewhere_are_refused():
    points, offsets = torch.rand(5, 3), torch.tensor([0, 5])
    with pytest.raises(InputError, match="no streamlines"):
        TractogramTarget(points[:0], offsets[:1])
    damaged = points.clone()
    damaged[2, 1] = torch.nan
    with pytest.raises(InputError, match="not finite"):
        TractogramTarget(damaged, offsets)
    with pytest.raises(InputError, match="do not rise"):
        TractogramTarget(points, torch.tensor([0, 9]))
    target = tractogram_of(bending(0.2))
    with pytest.raises(InputError, match="0 have their middle in the mask"):
        refined(replace(target, points_mm=target.points_mm + 500))


def test_fodfs_masks_and_signals_that_do_not_fit_are_refused():
    target, start = tractogram_of(bending(0.2)), bending(0.2)
    bad = start.clone()
    bad[2, 2, 2, 5] = torch.nan
    with pytest.raises(FodfError, match="not"):
        refined(target, bad, signal=signal_of(start))
    with pytest.raises(FodfError, match="0 have an fODF"):
        refined(target, 0 * start, signal=None)
    with pytest.raises(InputError, match="mask is"):
        refine_fodf(start, VOX2RAS, MASK[1:], target)
    signal = signal_of(start)
    with pytest.raises(InputError, match=r"lmax 8"):
        refined(target, signal=replace(signal, dwi=signal.dwi[1:]))
    with pytest.raises(InputError, match="no signal"):
        refined(target, signal=replace(signal, dwi=0 * signal.dwi))
    with pytest.raises(ConfigError, match="no connectome"):
        refined(target, options=replace(OPTIONS, losses=LossConfig(connectome_log=1.0)))


@pytest.mark.parametrize("name", ["n_steps", "learning_rate", "n_seeds", "patience"])
def test_options_out_of_range_are_refused(name):
    with pytest.raises(ConfigError, match=f"{name} is 0"):
        RefineOptions(**{name: 0})
