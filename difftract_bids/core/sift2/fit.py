"""Weights that make streamline densities those of the fODFs.

The density of the streamlines in a fixel is the sum of their lengths times weights times ``mu``;
weights are e to the power of a coefficient each. They are fitted to the fixels' densities, squared
misfits summed, with two regularisations: coefficients are kept near 0 (Tikhonov) and each near the
mean of those around its streamline (total variation, asymmetric: by coefficient below the mean, by
weight above).

References
----------
Smith et al. 2015, doi:10.1016/j.neuroimage.2015.06.092 (SIFT2); the conventions are those of
MRtrix3 3.0.3's ``tcksift2``.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from difftract_bids.config.weights import SIFT2Config
from difftract_bids.core.kernels.weights import FitRules
from difftract_bids.core.sift2.backends import Backend, KernelBackend, TorchBackend
from difftract_bids.core.sift2.fixels import Fixels
from difftract_bids.core.sift2.line_search import FixelState
from difftract_bids.core.sift2.mapping import Visits
from difftract_bids.errors import InputError

#: Where Newton's method along a line ends, as in tcksift2.
_TOLERANCE, _MAX_NEWTON = 1e-3, 100


class Cost(NamedTuple):
    """What is minimised: misfit of the densities, and the two regularisations."""

    data: float
    tikhonov: float = 0.0
    total_variation: float = 0.0

    @property
    def total(self) -> float:
        """Their sum."""
        return self.data + self.tikhonov + self.total_variation


class StreamlineWeights(NamedTuple):
    """Result of a fit.

    Attributes
    ----------
    weights
        Weight of each streamline, in the order of the tractogram; 0 for those in no fixel.
    coefficients
        Their logarithms; -inf for those in no fixel.
    mu
        fODF density for a millimetre of streamline of weight 1.
    cost
        At the start and after each iteration.
    converged
        Whether the fit ended before the largest number of iterations.
    density_before, density_after
        ``mu`` times length of the streamlines in each fixel, with weights 1 and as fitted.
    takes_part
        Which fixels took part in the fit.
    """

    weights: Float[Tensor, " n"]
    coefficients: Float[Tensor, " n"]
    mu: float
    cost: tuple[Cost, ...]
    converged: bool
    density_before: Float[Tensor, " fixel"]
    density_after: Float[Tensor, " fixel"]
    takes_part: Bool[Tensor, " fixel"]

    @property
    def n_iterations(self) -> int:
        """Number of iterations."""
        return len(self.cost) - 1

    @property
    def n_outside(self) -> int:
        """Number of streamlines that run through no fixel."""
        return int((self.weights == 0).sum())


def fit_streamline_weights(
    visits: Visits,
    fixels: Fixels,
    config: SIFT2Config | None = None,
    *,
    reference: bool = False,
) -> StreamlineWeights:
    """Fit a weight to each streamline.

    Parameters
    ----------
    visits
        See `difftract_bids.core.sift2.map_streamlines`. Where it is, the fit is made: compiled on
        a processor, in PyTorch on CUDA.
    fixels
        See `difftract_bids.core.sift2.segment_fodf`.
    config
        Settings; default those of tcksift2.
    reference
        Use PyTorch on a processor, too.

    Raises
    ------
    InputError
        If there is no streamline, or none runs through any fixel.
    """
    config = config or SIFT2Config()
    _check(visits)
    device = visits.length_mm.device
    density, importance = fixels.density.to(device), fixels.importance.to(device)
    compiled = device.type == "cpu" and not reference
    backend: Backend = (KernelBackend if compiled else TorchBackend)(visits, importance)
    return _Fit(visits, density, importance, config, backend).run()


def _check(visits: Visits) -> None:
    n = visits.n_streamlines
    if not n:
        raise InputError(
            "The tractogram is empty: there are no streamlines to weigh.",
            where="streamline weights",
            remedy="Track with more seeds, or leave the weights out.",
        )
    if not len(visits.fixel):
        raise InputError(
            f"None of {n} streamlines runs through a voxel of the fODF image that has a lobe.",
            where="streamline weights",
            remedy="Check that tractogram and fODF image are in the same space.",
        )


class _Fit:
    """One fit: what stays the same during it, and its iterations."""

    def __init__(
        self,
        visits: Visits,
        density: Float[Tensor, " fixel"],
        importance: Float[Tensor, " fixel"],
        config: SIFT2Config,
        backend: Backend,
    ) -> None:
        self._config, self._backend = config, backend
        self._inside = visits.offsets.diff() > 0
        self._density, self._importance = density, importance
        start = density.new_zeros(visits.n_streamlines)
        sums = backend.sums(start, len(density))
        self._length_mm, self._start = sums.length_mm, start
        self.mu = float((importance * density).sum() / (importance * sums.length_mm).sum())
        scale = float((importance * density**2).sum()) / visits.n_streamlines
        self._rules = FitRules(
            mu=self.mu,
            tikhonov=scale * config.sift2_tikhonov,
            total_variation=scale * config.sift2_total_variation,
            max_step=config.sift2_max_step,
            max_coefficient=math.log(config.sift2_max_weight or math.inf),
            tolerance=_TOLERANCE,
            max_newton=_MAX_NEWTON,
        )
        enough = self.mu * sums.length_mm >= config.sift2_min_density_fraction * density
        many = sums.n_streamlines >= max(config.sift2_min_streamlines, 1)
        self._takes_part = enough & many

    def run(self) -> StreamlineWeights:
        """Iterate until the cost hardly falls."""
        config, coefficients = self._config, self._start
        state = self._state(self._length_mm, torch.zeros_like(self._density))
        costs = [Cost(self._misfit(self._length_mm))]
        least, converged = config.sift2_min_cost_decrease * costs[0].data, False
        while not converged and len(costs) <= config.sift2_max_iterations:
            coefficients = self._backend.search(state, self._rules, coefficients)
            sums = self._backend.sums(coefficients, len(self._density))
            alone = (sums.n_streamlines < 2) | (self._length_mm <= 0)
            mean = torch.where(alone, 0.0, sums.coefficient / self._length_mm)
            state = self._state(sums.length_mm, mean)
            costs.append(self._cost(state, coefficients))
            # Written so that a cost that is not finite ends it.
            falls = costs[-2].total - costs[-1].total > least
            converged = not falls and len(costs) > config.sift2_min_iterations
        return StreamlineWeights(
            weights=coefficients.exp() * self._inside,
            coefficients=coefficients.masked_fill(~self._inside, -math.inf),
            mu=self.mu,
            cost=tuple(costs),
            converged=converged,
            density_before=self.mu * self._length_mm,
            density_after=self.mu * state.length_now_mm,
            takes_part=self._takes_part,
        )

    def _state(
        self, length_now_mm: Float[Tensor, " fixel"], mean: Float[Tensor, " fixel"]
    ) -> FixelState:
        return FixelState(
            self._density,
            self._importance,
            self._length_mm,
            length_now_mm,
            mean,
            self._takes_part,
        )

    def _misfit(self, length_mm: Float[Tensor, " fixel"]) -> float:
        misfit = self.mu * length_mm - self._density
        return float((self._importance * misfit**2).sum())

    def _cost(self, state: FixelState, coefficients: Float[Tensor, " n"]) -> Cost:
        return Cost(
            self._misfit(state.length_now_mm),
            self._rules.tikhonov * float((coefficients**2).sum()),
            self._rules.total_variation * self._backend.variation(state, coefficients),
        )
