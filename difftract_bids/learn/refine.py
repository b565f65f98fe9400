"""Adjusting one subject's fODFs to a target through the propagator, held back by the signal.

What is minimised over the coefficients c of the voxels, by Adam, is

    loss of what is tracked in c, against the target + weight * increase of the signal's misfit

A scan with few directions leaves many coefficients open, which the deconvolution has filled in
by its constraint; that is where a target can speak without contradicting the data.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from difftract_bids.config import TrackingConfig
from difftract_bids.config.training import LossConfig
from difftract_bids.core.sh import lmax_of, sh_degrees_and_orders
from difftract_bids.errors import ConfigError, FodfError, InputError
from difftract_bids.learn.losses.objective import Objective
from difftract_bids.learn.losses.propagated import Propagated
from difftract_bids.learn.refine_targets import Subject, Target, Wanted
from difftract_bids.learn.signal_fidelity import Misfit, Signal
from difftract_bids.learn.targets import Drawn

#: Share of the streamlines compared at the start that a better result must have too.
_KEPT = 0.9
#: Share of the average connectome that the next step keeps.
_MEMORY = 0.9
#: A judgement is made with so many times the seeds of a step.
JUDGES = 4


@dataclass(frozen=True)
class RefineOptions:
    """How fODFs are adjusted.

    Attributes
    ----------
    n_steps
        Most steps.
    signal_weight
        How much a doubled misfit of the signal counts beside the target's losses; 0 not at all.
    learning_rate
        Largest change of a coefficient in a step, about, in units of the root mean square that
        those of its degree have over all voxels.
    n_seeds
        Seeds, or target streamlines, of a step.
    resample
        Draw others in each step, so that the fODFs are not adjusted to these alone.
    judge_every
        Steps from one look at the whole to the next, with seeds that no step uses. What was best
        then is the result.
    patience
        Looks without a better one after which it ends.
    losses
        How results are compared with the target; the target's own choice if left out.
    random_seed
        Of all seeds; the same one gives the same fODFs.
    """

    n_steps: int = 50
    signal_weight: float = 1.0
    learning_rate: float = 0.01
    n_seeds: int = 5000
    resample: bool = True
    judge_every: int = 5
    patience: int = 4
    losses: LossConfig | None = None
    random_seed: int = 0

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises
        ------
        ConfigError
            If a number is out of range.
        """
        for name in ("n_steps", "learning_rate", "n_seeds", "judge_every", "patience"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} is {value}.", where=name, remedy="Give more than 0.")
        if not (math.isfinite(self.signal_weight) and self.signal_weight >= 0):
            raise ConfigError(
                f"signal_weight is {self.signal_weight}.",
                where="signal_weight",
                remedy="Give 0 or more, and finite.",
            )
        if not 0 <= self.random_seed < 2**63:
            raise ConfigError(
                f"The random seed is {self.random_seed}.",
                where="random_seed",
                remedy="Give a number from 0 to 2**63 - 1.",
            )


@dataclass(frozen=True)
class RefineStep:
    """How things stood at one step.

    Attributes
    ----------
    step
        From 0, with the fODFs as they were before it.
    target
        Weighted losses against the target, from the seeds of the step.
    increase
        By how much the signal fits worse, see `Misfit.increase`; ``None`` without a signal.
    misfit
        Squared misfit over squared signal; ``None`` without a signal.
    judged
        Weighted losses against the target from the seeds that judge, where they were asked.
    """

    step: int
    target: float
    increase: float | None
    misfit: float | None
    judged: float | None


@dataclass(frozen=True, eq=False)
class Refined:
    """fODFs adjusted to a target.

    Attributes
    ----------
    fodf
        The best that was found; what was given, if nothing was better.
    history
        Step by step; the last entry, after the last step, is by the seeds that judge.
    best_step
        Which entry ``fodf`` is of.
    target_before, target_after
        Weighted losses from the seeds that judge.
    misfit_before, misfit_after
        Squared misfit of the signal over the squared signal; ``None`` without a signal.
    wanted, before, after
        The target as it was compared, and what fODFs gave from the seeds that judge.
    """

    fodf: Float[Tensor, "x y z coeff"]
    history: tuple[RefineStep, ...]
    best_step: int
    target_before: float
    target_after: float
    misfit_before: float | None
    misfit_after: float | None
    wanted: Propagated
    before: Propagated
    after: Propagated


def refine_fodf(
    fodf: Float[Tensor, "x y z coeff"],
    vox2ras: Float[Tensor, "4 4"],
    mask: Bool[Tensor, "x y z"],
    target: Target,
    *,
    tracking: TrackingConfig | None = None,
    signal: Signal | None = None,
    options: RefineOptions | None = None,
) -> Refined:
    """Adjust fODFs so that tracking in them gives a connectome or a tractogram.

    Parameters
    ----------
    fodf
        SH coefficients, MRtrix's basis, scanner axes. Voxels of zeros stay so.
    vox2ras
        Affine, voxels to RAS+ millimetres.
    mask
        Where streamlines may go, and fODFs may change.
    target
        `ConnectomeTarget` or `TractogramTarget`.
    tracking
        How to track; MRtrix's defaults if left out.
    signal
        What the fODFs must go on explaining; without it nothing holds them back.
    options
        How to adjust.

    Returns
    -------
    Refined
        The result is no unbiased estimate of fODFs: it has seen the target.

    Warns
    -----
    UserWarning
        If a loss or a derivative was not finite; what was best before is the result.

    Raises
    ------
    FodfError
        If the fODFs cannot be tracked, or there is none in the mask.
    InputError
        If target, signal and fODFs do not fit.
    ConfigError
        If the losses need nothing that the target has.

    References
    ----------
    Kingma and Ba 2015, arXiv:1412.6980 (Adam).
    """
    options = options or RefineOptions()
    given = fodf.detach()
    if mask.shape != given.shape[:3] or mask.dtype != torch.bool:
        raise InputError(
            f"The mask is {mask.dtype} {tuple(mask.shape)}, the fODFs {tuple(given.shape)}.",
            where="mask",
            remedy="Give a torch.bool mask on the grid of the fODFs.",
        )
    inside = mask & (given != 0).any(dim=3)
    if not bool(inside.any()) or not bool(torch.isfinite(given[inside]).all()):
        raise FodfError(
            f"Of {int(mask.sum())} voxels in the mask {int(inside.sum())} have an fODF, and not "
            "all of these are finite, or there are none.",
            where="fodf",
            remedy="Check that the mask lies where the fODFs do; set bad voxels to zero.",
        )
    losses = options.losses or target.losses
    subject = Subject(given, vox2ras, mask, tracking or TrackingConfig())
    wanted = target.wanted_of(subject, JUDGES * options.n_seeds, options.random_seed, losses)
    misfit = None if signal is None else signal.misfit(given, inside)
    return _Refinement(given, inside, wanted, misfit, Objective(losses), options).run()


class _State(NamedTuple):
    """fODFs, and how they do."""

    found: Propagated
    target: Tensor
    increase: Tensor | None
    objective: Tensor
    n_compared: int


@dataclass
class _Refinement:
    """One adjustment on its way."""

    fodf: Float[Tensor, "x y z coeff"]
    inside: Bool[Tensor, "x y z"]
    wanted: Wanted
    misfit: Misfit | None
    objective: Objective
    options: RefineOptions
    history: list[RefineStep] = field(default_factory=list)
    memory: Float[Tensor, "node node"] | None = None
    steps_in_memory: int = 0

    def __post_init__(self) -> None:
        """Choose the unit of each coefficient, and the seeds that judge."""
        self.place = torch.nonzero(self.inside, as_tuple=True)
        self.start = self.fodf[self.place]
        self.unit = _root_mean_squares(self.start)
        self.judges = self.wanted.draw(JUDGES * self.options.n_seeds, self.options.random_seed)

    def run(self) -> Refined:
        """Take steps, and keep what the judging seeds find best."""
        change = torch.zeros_like(self.start).requires_grad_()
        optimiser = torch.optim.Adam([change], lr=self.options.learning_rate)
        first = self._judged(change)
        self._require_streamlines(first)
        best, best_change, best_step, worse = first, change.detach().clone(), 0, 0
        for step in range(self.options.n_steps + 1):
            state = None
            if step % self.options.judge_every == 0 or step == self.options.n_steps:
                state = first if step == 0 else self._judged(change)
                if self._is_better(state, best, first):
                    best, best_change, best_step, worse = state, change.detach().clone(), step, 0
                elif step > 0:
                    worse += 1
            ended = worse >= self.options.patience or step == self.options.n_steps
            if not self._step(step, change, None if ended else optimiser, state):
                break
        return Refined(
            fodf=self._image(best_change),
            history=tuple(self.history),
            best_step=best_step,
            target_before=float(first.target),
            target_after=float(best.target),
            misfit_before=self._relative(torch.zeros_like(best_change)),
            misfit_after=self._relative(best_change),
            wanted=self.judges.target,
            before=first.found,
            after=best.found,
        )

    def _step(
        self, step: int, change: Tensor, optimiser: torch.optim.Adam | None, judged: _State | None
    ) -> bool:
        """Write down where things stand, and go on from there if there is an optimiser."""
        if optimiser is None and judged is not None:
            self._write(step, change, judged, judged)
            return False
        state = self._state(change, self._drawn(step), smooth=self.options.resample)
        self._write(step, change, state, judged)
        if optimiser is None:
            return False
        optimiser.zero_grad()
        state.objective.backward()  # type: ignore[no-untyped-call]
        slope = change.grad
        if slope is None or not bool(torch.isfinite(state.objective) & slope.isfinite().all()):
            warnings.warn(
                f"At step {step} the loss is {float(state.objective.detach()):g} and its "
                "derivative is not finite everywhere; the best fODFs before are taken.",
                UserWarning,
                stacklevel=4,
            )
            return False
        optimiser.step()
        return True

    def _state(self, change: Tensor, drawn: Drawn, *, smooth: bool = False) -> _State:
        """Track, and compare."""
        found = self.wanted.found(self._image(change), drawn)
        if smooth and found.connectome is not None:
            found = replace(found, connectome=self._remembered(found.connectome))
        parts = self.objective(found, drawn.target)
        total = parts.total
        if self.misfit is None:
            return _State(found, total, None, total, parts.n_compared)
        increase = self.misfit.increase(self._rows(change))
        objective = total + self.options.signal_weight * increase.double()
        return _State(found, total, increase, objective, parts.n_compared)

    def _remembered(self, found: Float[Tensor, "node node"]) -> Float[Tensor, "node node"]:
        """Give the value of the average over the last steps, and the derivative of this one.

        A matrix of some thousand streamlines is mostly noise. What the average lags behind the
        fODFs is less, as they change little in a step; and its error does not hang together with
        that of the derivative, so that the noise itself is not taken for something to mend.
        """
        now = found.detach()
        self.steps_in_memory += 1
        share = max(1 - _MEMORY, 1 / self.steps_in_memory)
        self.memory = now if self.memory is None else self.memory + share * (now - self.memory)
        return self.memory + (found - now)

    @torch.no_grad()
    def _judged(self, change: Tensor) -> _State:
        return self._state(change, self.judges)

    def _drawn(self, step: int) -> Drawn:
        """Give the seeds of a step, none of which judges."""
        number = 1 + (step if self.options.resample else 0)
        return self.wanted.draw(self.options.n_seeds, self.options.random_seed + number)

    def _rows(self, change: Tensor) -> Float[Tensor, "voxel coeff"]:
        return self.start + change * self.unit

    def _image(self, change: Tensor) -> Float[Tensor, "x y z coeff"]:
        return self.fodf.index_put(self.place, self._rows(change))

    @torch.no_grad()
    def _relative(self, change: Tensor) -> float | None:
        return None if self.misfit is None else float(self.misfit.relative(self._rows(change)))

    def _is_better(self, state: _State, best: _State, first: _State) -> bool:
        """Say so, unless it is by losing the streamlines that fit badly."""
        kept = state.n_compared >= _KEPT * first.n_compared
        return kept and bool(state.objective < best.objective)

    def _require_streamlines(self, first: _State) -> None:
        if first.n_compared or not {"points", "directions", "ends"} & {*self.objective.weights}:
            return
        raise InputError(
            "No streamline could be tracked from the middles of the target's streamlines.",
            where="target",
            remedy="Check that it lies in the white matter of the diffusion data.",
        )

    def _write(self, step: int, change: Tensor, state: _State, judged: _State | None) -> None:
        self.history.append(
            RefineStep(
                step=step,
                target=float(state.target.detach()),
                increase=None if state.increase is None else float(state.increase.detach()),
                misfit=self._relative(change),
                judged=None if judged is None else float(judged.target),
            )
        )


def _root_mean_squares(rows: Float[Tensor, "voxel coeff"]) -> Float[Tensor, " coeff"]:
    """Give that of its degree for each coefficient, so that no direction is preferred."""
    degrees = torch.tensor([degree for degree, _ in sh_degrees_and_orders(lmax_of(rows.shape[1]))])
    squares = rows.square().mean(dim=0)
    of_degree = [squares[degrees == degree].mean() for degree in degrees.tolist()]
    return torch.stack(of_degree).sqrt()
