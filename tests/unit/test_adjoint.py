"""The discrete adjoint: against finite differences of streamlines, and as part of PyTorch."""

from __future__ import annotations

import copy
import io
import pickle
import shutil
from dataclasses import replace

import pytest
import torch
from mrtrix import human_scene
from streamline_derivatives import derivative_errors
from tracking_cases import (
    INTEGRATORS,
    Case,
    crossing_case,
    filled_case,
    weights_of,
    with_gradients,
)

from difftract_bids.core import StreamlinePropagator, TrackingConfig, random_seeds, track
from difftract_bids.errors import DerivativeError

SHORT = {"min_length_mm": 1.0, "max_length_mm": 8.0}
EXACT = {"peak_tolerance": 1e-12, "backend": "cpu"}


def kernels(**settings) -> TrackingConfig:
    return TrackingConfig(**({"backend": "cpu"} | SHORT | settings))


@pytest.mark.parametrize("integrator", INTEGRATORS)
def test_derivatives_of_whole_streamlines_are_finite_differences(integrator, record_property):
    case = crossing_case(110, noise=0.02, random_seed=3)
    config = TrackingConfig(integrator=integrator, min_length_mm=5.0, max_length_mm=40.0, **EXACT)
    errors = derivative_errors(case, config, n_directions=3)
    record_property("pairs", len(errors))
    record_property("errors", errors.summary())
    record_property("outliers", errors.explained())
    assert len(errors) >= 200
    assert errors.median() <= 1e-7
    assert errors.percentile(95) <= 1e-6
    assert not errors.unexplained()


@pytest.mark.external
@pytest.mark.skipif(shutil.which("dwi2fod") is None, reason="MRtrix3 is not installed")
@pytest.mark.parametrize("integrator", INTEGRATORS)
def test_derivatives_in_a_human_brain_are_finite_differences(human, integrator, record_property):
    config = TrackingConfig(integrator=integrator, **EXACT)
    errors = derivative_errors(human, config, n_directions=2)
    record_property("errors", errors.summary())
    record_property("outliers", errors.explained())
    assert len(errors) >= 200
    assert errors.median() <= 1e-7
    assert errors.percentile(95) <= 1e-6
    assert not errors.unexplained()


@pytest.fixture(scope="module")
def human(tmp_path_factory) -> Case:
    """The real subject at 3 mm and seeds anywhere in its brain, as the default settings want."""
    scene = human_scene("ds-human-3mm", tmp_path_factory.mktemp("human"))
    seeds, starts = random_seeds(scene.mask, scene.vox2ras, 250, random_seed=8)
    return Case(scene.fodf.double(), scene.vox2ras, seeds, starts)


@pytest.mark.parametrize("integrator", INTEGRATORS)
def test_gradcheck_through_the_kernels(integrator):
    # Every voxel is occupied: a change must not make an empty one a part of the image.
    case = filled_case(24, lmax=4)
    config = kernels(integrator=integrator, peak_tolerance=1e-12, step_size_mm=0.7)
    assert len(case.track(config)) >= 6

    def points(fodf: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
        return track(fodf, seeds, case.starts, case.vox2ras, config).points

    leaves = (case.fodf.requires_grad_(), case.seeds.requires_grad_())
    assert torch.autograd.gradcheck(points, leaves, fast_mode=True)


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_two_threads_give_what_one_gives(dtype):
    case = crossing_case(600).to(dtype)
    double = with_gradients(case, kernels())
    torch.set_num_threads(1)
    single = with_gradients(case, kernels())
    for name in ("points", "offsets", "seed_vertex", "stop_reason", "seed_status"):
        assert torch.equal(getattr(double[0], name), getattr(single[0], name)), name
    rounding = 1e-5 if dtype == torch.float32 else 1e-13
    for two, one in zip(double[1:], single[1:], strict=True):
        assert (two - one).abs().max() <= rounding * one.abs().max()


@pytest.mark.usefixtures("two_threads")
def test_the_same_twice_is_the_same_bit_by_bit():
    case = crossing_case(600).to(torch.float32)
    one, other = (with_gradients(case, kernels()) for _ in range(2))
    assert torch.equal(one[0].points, other[0].points)
    assert torch.equal(one[1], other[1])
    assert torch.equal(one[2], other[2])


def test_nothing_is_kept_for_a_backward_pass_that_cannot_come():
    case = crossing_case(20)
    case.fodf.requires_grad_()
    kept: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        with torch.no_grad():
            assert not case.track(kernels()).points.requires_grad
        assert not kept
        result = case.track(kernels())
    assert result.points.requires_grad
    # What is kept: vertices, the fODFs in the tensor form, one row for each seed; no steps.
    largest = max(tensor.numel() for tensor in kept)
    assert largest <= max(1.2 * case.fodf.numel(), result.points.numel())
    assert len(kept) < 12


def test_autocast_changes_nothing():
    case = crossing_case(40).to(torch.float32)
    plain, by_fodf, by_seeds = with_gradients(case, kernels())
    fodf, seeds = case.fodf.requires_grad_(), case.seeds.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = case.track(kernels())
    (cast.points * weights_of(cast)).sum().backward()
    assert torch.equal(plain.points, cast.points)
    assert torch.equal(by_fodf, fodf.grad)
    assert torch.equal(by_seeds, seeds.grad)


class _Scaled(torch.nn.Module):
    """fODFs scaled by a parameter, then tracked in: what a network around a propagator is."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(1.1))
        self.propagator = StreamlinePropagator(kernels())

    def forward(self, fodf, seeds, starts, affine):
        result = self.propagator(fodf * self.scale**2, seeds, starts, affine)
        return result.points.sin().sum() + self.scale


# The compiler itself looks at the gradients of what it breaks a graph at, and into caches.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
def test_a_compiled_module_gives_what_the_module_gives():
    case = crossing_case(20).to(torch.float32)
    inputs = (case.fodf, case.seeds, case.starts, case.vox2ras)
    module = _Scaled()
    found = torch.compile(module, backend="eager")(*inputs)
    found.backward()
    by_compiled = module.scale.grad.clone()
    module.scale.grad = None
    expected = module(*inputs)
    expected.backward()
    assert torch.equal(found, expected)
    assert torch.equal(by_compiled, module.scale.grad)


def test_modules_can_be_copied_and_pickled():
    case = crossing_case(10)
    module = StreamlinePropagator(kernels(integrator="rk4"))
    inputs = (case.fodf, case.seeds, case.starts, case.vox2ras)
    expected = module(*inputs).points
    saved = io.BytesIO()
    torch.save(module, saved)
    saved.seek(0)
    for twin in (
        copy.deepcopy(module),
        pickle.loads(pickle.dumps(module)),  # noqa: S301 - written a moment ago
        torch.load(saved, weights_only=False),
    ):
        assert twin.config == module.config
        assert torch.equal(twin(*inputs).points, expected)
    assert not module.state_dict()


def test_second_derivatives_are_refused_with_a_remedy():
    case = crossing_case(10)
    fodf = case.fodf.requires_grad_()
    points = case.track(kernels()).points
    (gradient,) = torch.autograd.grad(points.square().sum(), fodf, create_graph=True)
    with pytest.raises(DerivativeError, match="Second derivatives") as caught:
        gradient.square().sum().backward()
    assert "create_graph" in caught.value.remedy


def test_first_derivatives_do_not_change_with_create_graph():
    case = crossing_case(10)
    fodf = case.fodf.requires_grad_()
    points = case.track(kernels()).points
    plain, graph = (
        torch.autograd.grad(points.square().sum(), fodf, create_graph=create, retain_graph=True)[0]
        for create in (False, True)
    )
    assert torch.equal(plain, graph.detach())


def test_second_derivatives_of_a_linear_loss_are_zero_without_an_error():
    # The gradient does not depend on what it is asked for again.
    case = crossing_case(10)
    fodf = case.fodf.requires_grad_()
    points = case.track(kernels()).points
    (gradient,) = torch.autograd.grad(points.sum(), fodf, create_graph=True)
    assert not gradient.requires_grad


@pytest.mark.parametrize("n_seeds", [0, 30])
def test_results_without_a_streamline_pass_zeros_back(n_seeds):
    case = crossing_case(30)
    case = replace(case, seeds=case.seeds[:n_seeds], starts=case.starts[:n_seeds])
    result, by_fodf, by_seeds = with_gradients(case, kernels(cutoff=50.0))
    assert len(result) == 0
    assert by_fodf.shape == case.fodf.shape
    assert not by_fodf.any()
    assert by_seeds.shape == (n_seeds, 3)
    assert not by_seeds.any()


def test_single_vertices_pass_only_to_their_seed():
    case = crossing_case(60)
    settings = {"integrator": "rk4", "step_size_mm": 12.0, "max_length_mm": 90.0}
    config = kernels(**settings | {"min_length_mm": 0.0})
    fodf, seeds = case.fodf.requires_grad_(), case.seeds.requires_grad_()
    result = case.track(config)
    alone = torch.nonzero(result.n_vertices() == 1).ravel()
    assert len(alone) > 3
    result.points[result.offsets[alone]].sum().backward()
    expected = torch.zeros_like(seeds)
    expected[result.seed_index[alone]] = 1.0
    assert torch.equal(seeds.grad, expected)
    assert not fodf.grad.any()


def test_voxels_that_no_streamline_visits_have_exactly_no_gradient():
    case = crossing_case(8)
    result, by_fodf, by_seeds = with_gradients(case, kernels())
    assert 0 < len(result) < 8
    points = torch.cat([result.points.T, torch.ones(1, len(result.points))])
    voxel = (torch.linalg.inv(case.vox2ras) @ points)[:3].T
    touched = torch.nonzero((by_fodf != 0).any(-1)).double()
    # Corners of the cells that vertices are in, and no others.
    distance = (touched[:, None] - voxel[None]).abs().amax(-1).amin(1)
    assert (distance < 1).all()
    assert len(touched) < 0.5 * case.fodf[..., 0].numel()
    rejected = torch.ones(8, dtype=torch.bool)
    rejected[result.seed_index] = False
    assert not by_seeds[rejected].any()
    assert by_seeds[~rejected].all()


def test_the_report_tells_how_derivatives_grew():
    case = crossing_case(30)
    grown = replace(case, seeds=case.seeds.clone().requires_grad_())
    result = grown.track(kernels())
    report = result.gradient_report
    assert (report.passes, report.growth, report.bounded) == (0, None, 0)
    # Of the first vertex alone: its derivative by the seed is a 3 by 3 matrix.
    ends = result.ends()[:, 0]
    (by_seeds,) = torch.autograd.grad(ends[:, 0].sum(), grown.seeds, retain_graph=True)
    assert report.passes == 1
    assert report.growth.shape == (len(result),)
    torch.testing.assert_close(report.growth, by_seeds[result.seed_index].norm(dim=1))
    ends[:, 1].sum().backward()
    assert report.passes == 2


def test_streamlines_tracked_without_gradients_have_an_empty_report():
    assert crossing_case(5).track(kernels()).gradient_report.passes == 0


def test_a_gradient_by_one_input_alone_is_that_by_both():
    case = crossing_case(20)
    _, by_fodf, by_seeds = with_gradients(case, kernels())
    for name, expected in (("fodf", by_fodf), ("seeds", by_seeds)):
        alone = replace(case, **{name: getattr(case, name).detach().clone().requires_grad_()})
        result = alone.track(kernels())
        (result.points * weights_of(result)).sum().backward()
        torch.testing.assert_close(getattr(alone, name).grad, expected, rtol=1e-12, atol=0)


def test_parity_gradients_differ_from_converged_ones_by_some_per_cent():
    # The default tolerance stops the search as early as MRtrix: documented, not hidden.
    case = crossing_case(40)
    _, early, _ = with_gradients(case, kernels())
    result, exact, _ = with_gradients(case, kernels(peak_tolerance=1e-12))
    assert len(result) > 10
    difference = float((early - exact).norm() / exact.norm())
    assert 1e-6 < difference < 0.2
