"""Gradients of whole streamlines, in float64 with converged peaks, against finite differences."""

from __future__ import annotations

import pytest
import torch
from problems import circles, crossing_bundles, fodf_of, oblique, scaling

from difftract_bids.core import StreamlinePropagator, TrackingConfig, random_seeds, track

INTEGRATORS = ["euler", "midpoint", "rk4", "rk4_classic"]
EXACT = 1e-12


def small_problem() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A bent bundle with noise in a few anisotropic, oblique voxels, and five seeds in it."""
    affine = oblique()
    centre = affine[:3, :3] @ torch.tensor([2.0, 2, 1]).double() + affine[:3, 3]
    fodf = fodf_of(circles((float(centre[0]) - 20, float(centre[1]), 0.0)), (5, 5, 3), affine, 4)
    fodf = fodf + 0.01 * torch.randn(
        fodf.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    mask = torch.zeros(5, 5, 3, dtype=torch.bool)
    mask[1:4, 1:4, 1] = True
    seeds, wobble = random_seeds(mask, affine, 5, random_seed=2)
    return fodf, seeds, torch.tensor([0.0, 1.0, 0.0]) + 0.2 * wobble, affine


@pytest.mark.parametrize("integrator", INTEGRATORS)
def test_gradcheck_of_whole_streamlines_by_fodf_and_seeds(integrator):
    fodf, seeds, starts, affine = small_problem()
    config = TrackingConfig(
        integrator=integrator, peak_tolerance=EXACT, step_size_mm=0.6, min_length_mm=2.0
    )

    def points(fodf: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
        return track(fodf, seeds, starts, affine, config).points

    assert len(track(fodf, seeds, starts, affine, config)) >= 4
    fodf.requires_grad_()
    seeds.requires_grad_()
    # fast_mode compares random projections of the 1125 × ~200 Jacobian, not each of its entries.
    assert torch.autograd.gradcheck(points, (fodf, seeds), fast_mode=True)
    assert torch.autograd.gradcheck(lambda s: points(fodf.detach(), s), (seeds,), fast_mode=True)


@pytest.mark.slow
@pytest.mark.parametrize("integrator", INTEGRATORS)
def test_gradcheck_entry_by_entry_of_the_coefficients_that_matter_most(integrator):
    fodf, seeds, starts, affine = small_problem()
    config = TrackingConfig(
        integrator=integrator, peak_tolerance=EXACT, step_size_mm=0.6, min_length_mm=2.0
    )
    fodf.requires_grad_()
    track(fodf, seeds, starts, affine, config).points.square().sum().backward()
    largest = fodf.grad.abs().flatten().topk(40).indices
    fodf = fodf.detach()

    def points(entries: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
        changed = fodf.flatten().index_put((largest,), entries).reshape(fodf.shape)
        return track(changed, seeds, starts, affine, config).points

    entries = fodf.flatten()[largest].requires_grad_()
    assert torch.autograd.gradcheck(points, (entries, seeds.requires_grad_()))


def test_gradient_of_each_streamline_matches_finite_differences_on_a_noisy_crossing():
    affine = oblique()
    fodf = crossing_bundles(affine, (12, 12, 8))
    inner = torch.zeros(fodf.shape[:3], dtype=torch.bool)
    inner[3:9, 3:9, 2:6] = True
    seeds, wobble = random_seeds(inner, affine, 12, random_seed=4)
    starts = torch.tensor([1.0, 0.0, 0.4]) + 0.2 * wobble
    starts[::2] = torch.tensor([0.0, 1.0, 0.0]) + 0.2 * wobble[::2]
    config = TrackingConfig(peak_tolerance=EXACT, max_length_mm=30.0)
    generator = torch.Generator().manual_seed(3)
    change = torch.randn(fodf.shape, generator=generator, dtype=torch.float64) * (fodf != 0)
    small = 1e-6
    fodf.requires_grad_()
    result = track(fodf, seeds, starts, affine, config)
    up, down = (
        track(fodf.detach() + sign * small * change, seeds, starts, affine, config)
        for sign in (1, -1)
    )
    assert torch.equal(up.offsets, down.offsets)
    assert len(result) >= 8
    weights = torch.randn(result.points.shape, generator=generator, dtype=torch.float64)
    errors = []
    for i in range(len(result)):
        here = slice(int(result.offsets[i]), int(result.offsets[i + 1]))
        (gradient,) = torch.autograd.grad(
            (weights[here] * result.points[here]).sum(), fodf, retain_graph=True
        )
        expected = (weights[here] * (up.points[here] - down.points[here])).sum() / (2 * small)
        difference = ((gradient * change).sum() - expected).abs()
        errors.append(float(difference / expected.abs().clamp(min=1)))
    assert sorted(errors)[len(errors) // 2] < 2e-8
    assert max(errors) < 1e-6


def test_gradient_by_fodf_is_zero_where_no_streamline_goes():
    fodf, seeds, starts, affine = small_problem()
    fodf.requires_grad_()
    config = TrackingConfig(step_size_mm=0.6, min_length_mm=0.0, max_length_mm=0.6)
    result = track(fodf, seeds[:1], starts[:1], affine, config)
    result.points.sum().backward()
    voxel = (
        torch.linalg.inv(affine)
        @ torch.cat([result.points.detach().T, torch.ones(1, len(result.points))])
    )[:3]
    touched = (fodf.grad != 0).any(-1)
    index = torch.nonzero(touched).double()
    distance = (index[:, None] - voxel.T[None]).abs().amax(-1).amin(1)
    assert 0 < touched.sum() < touched.numel()
    assert (distance < 1).all()


def test_vertices_of_a_straight_bundle_move_with_their_seed():
    affine = scaling(2.0)
    fodf = fodf_of(lambda p: torch.tensor([1.0, 0, 0]).double().expand_as(p), (12, 4, 4), affine)
    seed = torch.tensor([[11.0, 3.1, 2.9]], dtype=torch.float64, requires_grad=True)
    start = torch.tensor([[1.0, 0.1, 0.0]], dtype=torch.float64)
    result = track(fodf, seed, start, affine, TrackingConfig(peak_tolerance=EXACT))
    result.points.sum().backward()
    expected = torch.full((1, 3), float(len(result.points)), dtype=torch.float64)
    torch.testing.assert_close(seed.grad, expected)


def test_lengths_and_ends_pass_gradients_on():
    fodf, seeds, starts, affine = small_problem()
    seeds.requires_grad_()
    result = track(fodf, seeds, starts, affine, TrackingConfig(step_size_mm=0.6, min_length_mm=0))
    (gradient,) = torch.autograd.grad(result.ends().sum(), seeds, retain_graph=True)
    assert (gradient[result.seed_index] != 0).any(1).all()
    (gradient,) = torch.autograd.grad(result.lengths_mm().sum(), seeds)
    assert gradient.abs().max() < 1e-9  # every step has the same length


@pytest.mark.parametrize(
    ("backend", "dtype"), [("reference", torch.float32), ("cpu", torch.float64)]
)
def test_gradients_change_nothing_about_the_streamlines(backend, dtype):
    fodf, seeds, starts, affine = small_problem()
    fodf, seeds, starts = fodf.to(dtype), seeds.to(dtype), starts.to(dtype)
    config = TrackingConfig(min_length_mm=0.0, backend=backend)
    plain = track(fodf, seeds, starts, affine, config)
    with_graph = track(fodf.clone().requires_grad_(), seeds, starts, affine, config)
    assert torch.equal(plain.points, with_graph.points.detach())
    assert not plain.points.requires_grad
    with torch.no_grad():
        assert not track(
            fodf.clone().requires_grad_(), seeds, starts, affine, config
        ).points.requires_grad


def test_no_kept_streamline_still_has_a_gradient_of_zero():
    fodf, seeds, starts, affine = small_problem()
    fodf.requires_grad_()
    result = track(fodf, seeds, starts, affine, TrackingConfig(cutoff=50.0))
    assert len(result) == 0
    result.points.sum().backward()
    assert (fodf.grad == 0).all()


def test_adam_moves_a_bundle_onto_a_target_by_changing_the_fodf():
    affine = scaling(2.0)
    shape = (8, 7, 3)

    def bundle(slope: float) -> torch.Tensor:
        direction = torch.tensor([1.0, slope, 0.0], dtype=torch.float64)
        return fodf_of(direction.expand_as, shape, affine, 4)

    seeds = torch.tensor([[2.0, y, 2.0] for y in (4.0, 5.0, 6.0)], dtype=torch.float64)
    starts = torch.tensor([[-1.0, 0.0, 0.0]], dtype=torch.float64).expand(3, 3)
    propagator = StreamlinePropagator(
        TrackingConfig(step_size_mm=1.5, min_length_mm=0.0, max_length_mm=12.0)
    )

    def far_ends(fodf: torch.Tensor) -> torch.Tensor:
        result = propagator(fodf, seeds, starts, affine)
        assert result.seed_index.tolist() == [0, 1, 2]
        return result.ends()[:, 1]

    target = far_ends(bundle(0.35))
    fodf = bundle(0.0).requires_grad_()
    optimiser = torch.optim.Adam([fodf], lr=0.03)
    distances = []
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.92)
    for _ in range(40):
        optimiser.zero_grad()
        distance = torch.linalg.vector_norm(far_ends(fodf) - target, dim=1)
        (distance**2).mean().backward()
        optimiser.step()
        schedule.step()
        distances.append(float(distance.detach().mean()))
    assert distances[0] > 4.0
    assert distances[-1] < 0.2
