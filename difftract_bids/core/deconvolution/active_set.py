"""The dual active-set method for many voxels at once, for devices that want such work.

Step by step what `difftract_bids.core.kernels.nonnegative` does for one voxel: each voxel solves
for the multipliers of its active constraints, drops one whose multiplier would be negative, or
takes up the one that is violated most.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

#: Violations smaller than this share of the largest value are rounding.
_ROUNDING = 1e-12
#: Systems solved in a voxel at most, for each unknown; a few hundred are common.
_STEPS = 40


def nonnegative_multipliers(
    free: Float[Tensor, "voxel constraint"],
    gram: Float[Tensor, "constraint constraint"],
    ridge: float,
    n_unknowns: int,
) -> Float[Tensor, "voxel constraint"]:
    """Find multipliers m >= 0 with ``free + gram @ m >= 0``, one of the two 0 for each constraint.

    Parameters
    ----------
    free
        Values of the constraints at the unconstrained solution.
    gram
        Products of the constraints' unit normals.
    ridge
        Added to its diagonal, so that constraints may depend on each other.
    n_unknowns
        Rank of ``gram`` at most.

    References
    ----------
    Lawson and Hanson 1974, Solving Least Squares Problems, chapter 23.
    """
    result = torch.zeros_like(free)
    todo = torch.arange(len(free), device=free.device)
    active = torch.zeros_like(free, dtype=torch.bool)
    multiplier = torch.zeros_like(free)
    for _ in range(_STEPS * n_unknowns):
        if not len(todo):
            break
        wanted = multipliers_of(active, free[todo], gram, ridge)
        blocked = active & (wanted <= 0)
        settled = ~blocked.any(dim=1)
        step = torch.where(blocked, multiplier / (multiplier - wanted), torch.inf)
        step = step.nan_to_num(nan=0.0, posinf=torch.inf)  # a new one that is blocked: 0 / 0
        length, first = step.min(dim=1)
        length = torch.where(settled, 1.0, length)[:, None]
        multiplier = multiplier + length * (wanted - multiplier)
        row = torch.arange(len(todo), device=free.device)
        active[row[~settled], first[~settled]] = False
        multiplier = torch.where(active, multiplier, 0.0)

        values = free[todo] + multiplier @ gram
        least, worst = values.min(dim=1)
        enough = least >= -_ROUNDING * free[todo].abs().amax(dim=1)
        # Nothing but rounding is wrong with what is active already.
        done = settled & (enough | active[row, worst])
        result[todo[done]] = multiplier[done]
        grow = settled & ~done
        active[row[grow], worst[grow]] = True
        todo, active, multiplier = todo[~done], active[~done], multiplier[~done]
    result[todo] = multiplier
    return result


def multipliers_of(
    active: Bool[Tensor, "voxel constraint"],
    free: Float[Tensor, "voxel constraint"],
    gram: Float[Tensor, "constraint constraint"],
    ridge: float,
) -> Float[Tensor, "voxel constraint"]:
    """Find the multipliers that bring given constraints to 0, whatever their sign."""
    size = int(active.sum(dim=1).max()) if len(active) else 0
    if not size:
        return torch.zeros_like(free)
    there, place = active.to(torch.int8).topk(size, dim=1)
    # Voxels with fewer active constraints are filled up with rows of the unit matrix.
    taken = there > 0
    both = taken[:, :, None] & taken[:, None, :]
    system = torch.where(both, gram[place[:, :, None], place[:, None, :]], 0.0)
    system.diagonal(dim1=1, dim2=2).add_(torch.where(taken, ridge, 1.0))
    rhs = torch.where(taken, -free.gather(1, place), 0.0)
    found = torch.cholesky_solve(rhs[..., None], torch.linalg.cholesky(system)).squeeze(-1)
    return torch.zeros_like(free).scatter(1, place, found) * active
