"""The whole chain, from the signal to the soft connectome, and its derivative."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from chain import Chain

from difftract_bids.core.end_to_end import DWIToConnectome
from difftract_bids.core.propagate import track_field

N_SEEDS = 3000
CONVERGED = {"peak_tolerance": 1e-12}


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    return Chain.simulated(
        tmp_path_factory.mktemp("chain") / "raw",
        voxel_size_mm=5.0,
        t1w_voxel_size_mm=4.0,
        n_directions=48,
    )


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
            matrix = tracking.connectome(found.ends())
            reached = tracking.connectome.assign(found.ends()).nodes
        sphere = model.deconvolution.model.directions
        solver_sees = fodf.flatten(0, 2) @ basis(sphere).T < 0
        cells = field.grid.to_voxel(found.points.T).floor()
        return cls(matrix, (found.offsets, found.seed_index, solver_sees, cells, reached))

    def differs_from(self, other: State) -> list[str]:
        """Name what was decided otherwise."""
        names = ("vertices", "seeds", "active set", "cells", "nodes in reach")
        pairs = zip(names, self.decisions, other.decisions, strict=True)
        return [name for name, a, b in pairs if a.shape != b.shape or not torch.equal(a, b)]


def basis(sphere):
    from difftract_bids.core.sh import sh_basis

    return sh_basis(sphere.double(), 8)


def test_the_derivative_of_edges_by_the_signal_is_that_of_finite_differences(chain):
    model = chain.model(sigma_mm=2.0, **CONVERGED)
    seeds = chain.seeds(N_SEEDS)
    here = State.of(model, chain, chain.dwi, seeds)
    rng = torch.Generator().manual_seed(0)
    edges = [tuple(edge) for edge in torch.nonzero(here.matrix.triu() > 0.5).tolist()]
    change, errors, switched = 1e-8, [], []
    slopes = {edge: gradient_of(model, chain, seeds, edge) for edge in edges[::6]}
    for _ in range(3):
        way = chain.dwi * torch.randn(chain.dwi.shape, generator=rng, dtype=torch.float64)
        ahead, behind = (
            State.of(model, chain, chain.dwi + sign * change * way, seeds) for sign in (1, -1)
        )
        switched.append(ahead.differs_from(behind))
        difference = (ahead.matrix - behind.matrix) / (2 * change)
        for edge, slope in slopes.items():
            along = float((slope * way).sum())
            scale = float((slope * way).norm())
            if scale > 1e-3:
                errors.append(abs(float(difference[edge]) - along) / scale)
    print(len(errors), np.percentile(errors, (50, 90, 100)), switched)
    assert len(errors) >= 20
    assert np.median(errors) < 1e-6


def gradient_of(model, chain, seeds, edge):
    dwi = chain.dwi.clone().requires_grad_()
    matrix = model(dwi, *seeds, chain.mask)
    return torch.autograd.grad(matrix[edge], dwi)[0]
