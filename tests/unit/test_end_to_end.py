"""The whole chain, from the signal to the soft connectome, and its derivative."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from chain import Chain

from difftract_bids.config import TrackingConfig
from difftract_bids.core.end_to_end import DWIToConnectome, FODFToConnectome
from difftract_bids.core.propagate import track_field
from difftract_bids.core.sh import sh_basis
from difftract_bids.errors import ConfigError, InputError

N_SEEDS = 1500
CONVERGED = {"peak_tolerance": 1e-12}


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    whole = Chain.simulated(
        tmp_path_factory.mktemp("chain") / "raw",
        voxel_size_mm=5.0,
        t1w_voxel_size_mm=4.0,
        n_directions=48,
    )
    return whole.cropped()


@dataclass(frozen=True)
class State:
    """A connectome, and all decisions that led to it."""

    matrix: torch.Tensor
    decisions: tuple[torch.Tensor, ...]

    @classmethod
    def of(cls, model: DWIToConnectome, chain: Chain, dwi: torch.Tensor, seeds) -> State:
        with torch.no_grad():
            fodf = model.fodf(dwi, chain.mask)
            tracking = model.tracking
            field = tracking.field_of(fodf)
            found = track_field(field, *seeds, tracking.config, tracking.regions_with(chain.mask))
            matrix = tracking.sum_up(field, found)
            reached = tracking.connectome.assign(found.ends()).nodes
        sphere = model.deconvolution.model.directions
        solver_sees = fodf.flatten(0, 2) @ seen_by_solver(sphere) < 0
        cells = field.grid.to_voxel(found.points.T).floor()
        return cls(matrix, (found.offsets, found.seed_index, solver_sees, cells, reached))

    def differs_from(self, other: State) -> list[str]:
        """Name what was decided otherwise."""
        names = ("vertices", "seeds", "active set", "cells", "nodes in reach")
        pairs = zip(names, self.decisions, other.decisions, strict=True)
        return [name for name, a, b in pairs if a.shape != b.shape or not torch.equal(a, b)]


def seen_by_solver(sphere):
    return sh_basis(sphere.double(), 8).T


def slopes_of(model, chain, seeds, edges):
    """Differentiate edges by the signal."""
    dwi = chain.dwi.clone().requires_grad_()
    matrix = model(dwi, *seeds, chain.mask)
    picked = [matrix[edge] for edge in edges]
    return [torch.autograd.grad(value, dwi, retain_graph=True)[0] for value in picked]


def compare(chain, *, n_ways, n_edges, change):
    """Compare derivatives with central differences along random changes of the whole signal.

    Returns
    -------
    errors, switched
        Relative error of each edge along each way that switched nothing; what each way switched.
    """
    model, seeds = chain.model(sigma_mm=2.0, softness=0.02, **CONVERGED), chain.seeds(N_SEEDS)
    here = State.of(model, chain, chain.dwi, seeds)
    edges = [tuple(edge) for edge in torch.nonzero(here.matrix.triu() > 0.3).tolist()]
    edges = edges[:: max(1, len(edges) // n_edges)][:n_edges]
    slopes = slopes_of(model, chain, seeds, edges)
    rng = torch.Generator().manual_seed(0)
    errors, switched = [], []
    for _ in range(n_ways):
        way = chain.dwi * torch.randn(chain.dwi.shape, generator=rng, dtype=torch.float64)
        ahead, behind = (
            State.of(model, chain, chain.dwi + sign * change * way, seeds) for sign in (1, -1)
        )
        switched.append(ahead.differs_from(behind))
        if switched[-1]:
            continue
        difference = (ahead.matrix - behind.matrix) / (2 * change)
        for edge, slope in zip(edges, slopes, strict=True):
            along = float((slope * way).sum())
            if abs(along) > 1e-2:  # below it, a difference of rounded matrices says nothing
                errors.append(abs(float(difference[edge]) - along) / abs(along))
    return errors, switched


def test_the_derivative_of_edges_by_the_signal_is_that_of_finite_differences(chain):
    errors, switched = compare(chain, n_ways=3, n_edges=6, change=1e-8)
    assert sum(not names for names in switched) >= 2
    assert len(errors) >= 8
    assert max(errors) < 1e-5


@pytest.mark.slow
def test_derivatives_hold_until_something_switches_which_is_counted(chain, record_property):
    errors, switched = compare(chain, n_ways=20, n_edges=24, change=1e-8)
    quoted = [float(q) for q in np.percentile(errors, (50, 95, 100))]
    record_property("relative_errors_50_95_100", quoted)
    print(f"{len(errors)} pairs, 50, 95 and 100%:", *(f"{q:.1e}" for q in quoted))  # noqa: T201
    assert quoted[-1] < 1e-5
    for change in (1e-8, 1e-7, 1e-6, 1e-4, 1e-2):
        _, switched = compare(chain, n_ways=8, n_edges=1, change=change)
        names = sorted({name for found in switched for name in found})
        share = sum(bool(found) for found in switched) / len(switched)
        print(f"a change of {change:g} of the signal switches something in {share:.0%}: {names}")  # noqa: T201


def test_the_matrix_and_its_gradient_do_not_depend_on_the_chunks_of_seeds(chain):
    seeds = chain.seeds(600)
    found = []
    for size in (10_000, 97):
        model = chain.model(softness=0.02)
        model.tracking.seeds_per_chunk = size
        dwi = chain.dwi.clone().requires_grad_()
        matrix = model(dwi, *seeds, chain.mask)
        (slope,) = torch.autograd.grad(matrix.square().sum(), dwi)
        found.append((matrix.detach(), slope))
    assert torch.allclose(found[0][0], found[1][0], rtol=1e-12)
    assert torch.allclose(found[0][1], found[1][1], rtol=1e-9, atol=1e-12)


def test_the_matrix_is_differentiable_in_the_response(chain):
    model, seeds = chain.model(sigma_mm=2.0, softness=0.02, **CONVERGED), chain.seeds(N_SEEDS)
    own = model.deconvolution.model.response
    own.requires_grad_()
    matrix = model(chain.dwi, *seeds, chain.mask)
    edge = tuple(torch.nonzero(matrix.detach().triu() > 1)[0].tolist())
    (slope,) = torch.autograd.grad(matrix[edge], own)
    change, values = 1e-8, []
    for sign in (1, -1):
        with torch.no_grad():
            moved = own.detach().clone()
            moved[1] *= 1 + sign * change
            model.deconvolution.model.response = torch.nn.Parameter(moved, requires_grad=False)
            values.append(model(chain.dwi, *seeds, chain.mask)[edge])
    difference = float(values[0] - values[1]) / (2 * change * float(own.detach()[1]))
    assert difference == pytest.approx(float(slope[1]), rel=1e-4)


def test_without_survival_the_sum_of_all_edges_does_not_depend_on_the_signal(chain):
    # Each end belongs to some node wholly: what is lost to one is another's.
    dwi = chain.dwi.clone().requires_grad_()
    matrix = chain.model()(dwi, *chain.seeds(300), chain.mask)
    (slope,) = torch.autograd.grad(matrix.triu().sum(), dwi)
    assert float(slope.abs().max()) < 1e-10


@pytest.mark.parametrize("given", [{"survival_softness": 0.0}, {"seeds_per_chunk": 0}])
def test_settings_that_cannot_be_used_are_refused(chain, given):
    model = chain.model()
    with pytest.raises(ConfigError, match=next(iter(given))):
        FODFToConnectome(model.tracking.connectome, chain.vox2ras, TrackingConfig(), **given)


def test_weights_must_be_one_for_each_seed(chain):
    seeds = chain.seeds(10)
    with pytest.raises(InputError, match="10 seeds"):
        chain.model()(chain.dwi, *seeds, chain.mask, torch.ones(9))
