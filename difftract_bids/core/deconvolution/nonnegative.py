"""Least squares with amplitudes that may not be negative: multi-tissue deconvolution.

In each voxel the x that minimises |H x - s|² under A x >= 0, a quadratic program with one
solution. With N = L L' the normal matrix and y = L'x, it is the projection of the unconstrained y
onto the cone of the constraints.

References
----------
Jeurissen et al. 2014, doi:10.1016/j.neuroimage.2014.07.061.
"""

from __future__ import annotations

from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from difftract_bids.core.deconvolution.active_set import (
    multipliers_of,
    nonnegative_multipliers,
)
from difftract_bids.core.kernels.solvers import NonnegativeKernel

#: Added to the products of the constraints' normals, as MRtrix does, so that constraints may
#: depend on each other.
_RIDGE = 1e-10


class NonnegativeSolver:
    """See `difftract_bids.core.deconvolution.layer.Solver`.

    Parameters
    ----------
    matrix
        Forward model.
    normal
        Its normal matrix, made positive by a small ridge.
    directions
        Constraints: rows whose product with a solution may not be negative.
    by_kernels
        Use compiled code for each voxel, not PyTorch for many.
    """

    def __init__(
        self,
        matrix: Float[Tensor, "volume coeff"],
        normal: Float[Tensor, "coeff coeff"],
        directions: Float[Tensor, "constraint coeff"],
        *,
        by_kernels: bool,
    ) -> None:
        self.matrix, self.directions, self.by_kernels = matrix, directions, by_kernels
        self.factor = torch.linalg.cholesky(normal)
        normals = self._whiten(directions)
        self.normals = normals / normals.norm(dim=1, keepdim=True)
        self._gram = self.normals @ self.normals.T

    def solve(
        self, signal: Float[Tensor, "voxel volume"]
    ) -> tuple[Float[Tensor, "voxel coeff"], Bool[Tensor, "voxel constraint"]]:
        """Solve, and tell which constraints are active in the solution."""
        free = self._whiten(signal @ self.matrix)
        values = free @ self.normals.T
        if self.by_kernels:
            multipliers = torch.from_numpy(self._kernel.solve(values.numpy()))
        else:
            n_unknowns = self.normals.shape[1]
            multipliers = nonnegative_multipliers(values, self._gram, _RIDGE, n_unknowns)
        return self._unwhiten(free + multipliers @ self.normals), multipliers > 0

    def pull_back(
        self, cotangent: Float[Tensor, "voxel coeff"], active: Bool[Tensor, "voxel constraint"]
    ) -> Float[Tensor, "voxel coeff"]:
        """Project a cotangent onto what the active constraints leave free."""
        free = self._whiten(cotangent)
        values = free @ self.normals.T
        if self.by_kernels:
            found = self._kernel.multipliers_for(values.numpy(), active.contiguous().numpy())
            multipliers = torch.from_numpy(found)
        else:
            multipliers = multipliers_of(active, values, self._gram, _RIDGE)
        return self._unwhiten(free + multipliers @ self.normals)

    @cached_property
    def _kernel(self) -> NonnegativeKernel:
        return NonnegativeKernel(self._gram.numpy(), _RIDGE, self.normals.shape[1])

    def _whiten(self, rows: Tensor) -> Tensor:
        """Turn rows of right-hand sides or of constraints into those for y = L'x."""
        return torch.linalg.solve_triangular(self.factor, rows.T, upper=False).T.contiguous()

    def _unwhiten(self, rows: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(self.factor.T, rows.T, upper=True).T
