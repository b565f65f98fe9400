"""The line search of every streamline at once, in PyTorch: the reference, and for CUDA."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from difftract_bids.core.kernels.weights import FitRules
from difftract_bids.core.sift2.mapping import Visits


class FixelState(NamedTuple):
    """What is known of the fixels during a fit.

    Attributes
    ----------
    density, importance
        See `difftract_bids.core.sift2.fixels.Fixels`.
    length_mm
        Length of streamlines in each, all weights 1.
    length_now_mm
        The same with the present weights.
    mean
        Mean coefficient of the streamlines, by their lengths; 0 where there is only one.
    takes_part
        Whether each takes part in the fit.
    """

    density: Float[Tensor, " fixel"]
    importance: Float[Tensor, " fixel"]
    length_mm: Float[Tensor, " fixel"]
    length_now_mm: Float[Tensor, " fixel"]
    mean: Float[Tensor, " fixel"]
    takes_part: Bool[Tensor, " fixel"]


class LineCost(NamedTuple):
    """Cost of each streamline's weight, and its derivatives by the change of its coefficient."""

    cost: Float[Tensor, " n"]
    first: Float[Tensor, " n"]
    second: Float[Tensor, " n"]


class Rows(NamedTuple):
    """Visits as PyTorch adds them up: eight bytes for each number.

    Attributes
    ----------
    fixel, streamline
        Numbers of both, for each visit.
    length_mm
        Length of each visit, millimetres.
    total_mm
        Length of each streamline, weighted by the importance of its fixels.
    """

    fixel: Int[Tensor, " visit"]
    streamline: Int[Tensor, " visit"]
    length_mm: Float[Tensor, " visit"]
    total_mm: Float[Tensor, " n"]


def rows_of(visits: Visits, importance: Float[Tensor, " fixel"]) -> Rows:
    """Write out the streamline of each visit, and add up their lengths."""
    n = visits.n_streamlines
    numbers = torch.arange(n, device=visits.offsets.device)
    fixel, streamline = visits.fixel.long(), numbers.repeat_interleave(visits.offsets.diff())
    length = visits.length_mm.double()
    total = importance.new_zeros(n).index_add(0, streamline, length * importance[fixel])
    return Rows(fixel, streamline, length, total)


def line_cost(
    rows: Rows,
    state: FixelState,
    rules: FitRules,
    coefficients: Float[Tensor, " n"],
    change: Float[Tensor, " n"],
) -> LineCost:
    """Give each streamline's cost when its coefficient changes, with both derivatives.

    All other streamlines are taken to change too, as many of them as fill each fixel: the length
    of their part grows at the rate that it would have if their weights were this one's. Of a
    fixel's squared misfit a streamline bears the share that it has in the fixel's length.

    References
    ----------
    Smith et al. 2015, doi:10.1016/j.neuroimage.2015.06.092, equations 5 to 8.
    """
    here, row, length, total = rows
    part = state.takes_part[here]
    importance = state.importance[here] * part
    before, now = coefficients.exp()[row], (coefficients + change)[row]
    factor, mean = now.exp(), state.mean[here]

    share = importance * length / state.length_mm[here]
    own = rules.mu * length * factor
    others = rules.mu * (state.length_mm[here] - length) * before
    rest = rules.mu * (state.length_now_mm[here] - length * before) + others * change[row]
    rate, misfit = own + others, rest + own - state.density[here]

    above = now > mean
    apart = torch.where(above, factor - mean.exp(), now - mean)
    slope = torch.where(above, factor, 1.0)
    bend = torch.where(above, factor * (2 * factor - mean.exp()), 1.0)
    smooth = rules.total_variation * importance * length / total[row]

    terms = (
        share * misfit**2 + smooth * apart**2,
        2 * (share * rate * misfit + smooth * slope * apart),
        2 * (share * (rate**2 + own * misfit) + smooth * bend),
    )
    cost, first, second = (torch.zeros_like(change).index_add(0, row, term) for term in terms)
    moved = coefficients + change
    ridge = rules.tikhonov
    return LineCost(cost + ridge * moved**2, first + 2 * ridge * moved, second + 2 * ridge)


def searched(
    rows: Rows, state: FixelState, rules: FitRules, coefficients: Float[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """Change all coefficients by Newton's method along their lines."""
    change = torch.zeros_like(coefficients)
    met = torch.zeros_like(coefficients, dtype=torch.int64)
    met.index_add_(0, rows.streamline, state.takes_part[rows.fixel].long())
    moving = met > 0
    for _ in range(rules.max_newton):
        at = line_cost(rows, state, rules, coefficients, change)
        step = torch.nan_to_num(-at.first / at.second.abs(), 0.0, 0.0, 0.0)
        step = step.clamp(-rules.max_step, rules.max_step) * moving
        out = (change.abs() >= rules.max_step) & (step * change > 0)
        change = torch.where(out, change.sign() * rules.max_step, change + step)
        moving = moving & ~out & (step.abs() > rules.tolerance)
        if not moving.any():
            break
    moved = coefficients + change.clamp(-rules.max_step, rules.max_step)
    return moved.clamp(max=rules.max_coefficient)
