"""Least squares with a penalty on negative amplitudes: single-shell deconvolution.

In each voxel the minimum of

    |M x - s|² + eps |x|² + w Σ (a x)²,   the sum over directions a with a x < threshold,

found by solving for given directions and choosing them anew, until they stay the same.

References
----------
Tournier et al. 2007, doi:10.1016/j.neuroimage.2007.02.016, equations 3 and 4.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from difftract_bids.core.kernels.penalised import penalised_arrays
from difftract_bids.core.kernels.solvers import PenalisedKernel


class PenalisedSolver:
    """See `difftract_bids.core.deconvolution.layer.Solver`.

    Parameters
    ----------
    matrix
        Forward model.
    normal
        Its normal matrix, the norm's penalty included.
    directions
        Basis functions in each direction of the penalty.
    weight
        Weight of the penalty.
    start
        Maps a signal to where the search starts.
    threshold
        Amplitudes below it are penalised.
    max_iterations
        Most solutions in a voxel.
    by_kernels
        Use compiled code for each voxel, not PyTorch for many.
    """

    def __init__(
        self,
        matrix: Float[Tensor, "volume coeff"],
        normal: Float[Tensor, "coeff coeff"],
        directions: Float[Tensor, "constraint coeff"],
        weight: float,
        *,
        start: Float[Tensor, "coeff volume"],
        threshold: float,
        max_iterations: int,
        by_kernels: bool,
    ) -> None:
        self.matrix, self.normal, self.directions = matrix, normal, directions
        self.start, self.max_iterations = start, max_iterations
        self.rows = weight**0.5 * directions
        self.threshold = weight**0.5 * threshold
        self.by_kernels = by_kernels

    def solve(
        self, signal: Float[Tensor, "voxel volume"]
    ) -> tuple[Float[Tensor, "voxel coeff"], Bool[Tensor, "voxel constraint"]]:
        """Solve, and tell which directions are penalised in the solution."""
        start, rhs = signal @ self.start.T, signal @ self.matrix
        if self.by_kernels:
            solution, negative = self._kernel.solve(start.numpy(), rhs.numpy())
            return torch.from_numpy(solution), torch.from_numpy(negative)
        return self._solve_batched(start, rhs)

    def pull_back(
        self, cotangent: Float[Tensor, "voxel coeff"], active: Bool[Tensor, "voxel constraint"]
    ) -> Float[Tensor, "voxel coeff"]:
        """Solve the linear system of each voxel's penalised directions for a cotangent."""
        if self.by_kernels:
            given = (np.ascontiguousarray(x.numpy()) for x in (cotangent, active))
            return torch.from_numpy(self._kernel.solve_with(*given))
        return self._solve_for(active, cotangent)

    @cached_property
    def _kernel(self) -> PenalisedKernel:
        # Not by NumPy: its threads go on spinning for a while, in the way of those of the kernels.
        full = self.normal + self.rows.T @ self.rows
        shared = penalised_arrays(
            self.normal.numpy(), full.numpy(), self.rows.numpy(), self.threshold
        )
        return PenalisedKernel(shared, self.max_iterations)

    def _solve_batched(self, solution: Tensor, rhs: Tensor) -> tuple[Tensor, Tensor]:
        negative = solution @ self.rows.T < self.threshold
        todo = torch.arange(len(rhs), device=rhs.device)
        for done in range(1, self.max_iterations + 1):
            solution[todo] = self._solve_for(negative[todo], rhs[todo])
            now = solution[todo] @ self.rows.T < self.threshold
            changed = (now != negative[todo]).any(dim=1)
            if done == self.max_iterations or not changed.any():
                break
            todo = todo[changed]
            negative[todo] = now[changed]
        return solution, negative

    def _solve_for(self, negative: Tensor, rhs: Tensor) -> Tensor:
        weighed = torch.where(negative, 1.0, 0.0).to(self.rows.dtype)
        products = (self.rows[:, :, None] * self.rows[:, None, :]).flatten(1)
        normal = self.normal + (weighed @ products).view(-1, *self.normal.shape)
        factor = torch.linalg.cholesky(normal)
        return torch.cholesky_solve(rhs[..., None], factor).squeeze(-1)
