"""How a network does on scans that it does not learn from."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from difftract_bids.config import TrainingConfig
from difftract_bids.errors import FodfError
from difftract_bids.learn.batches import Purpose, generator
from difftract_bids.learn.losses import LossParts, Objective
from difftract_bids.learn.materials import Material
from difftract_bids.learn.step import Predictor, finite, not_finite, weighted
from difftract_bids.learn.targets import Drawn


class Validator:
    """Find the losses of whole scans, always with the same seeds.

    Parameters
    ----------
    predictor
        Whose network is checked.
    materials
        What with.
    config
        Losses and propagation.
    """

    def __init__(
        self, predictor: Predictor, materials: Sequence[Material], config: TrainingConfig
    ) -> None:
        self._predictor, self._materials, self._config = predictor, materials, config
        self._objective = Objective(config.losses)
        self._drawn: list[Drawn | None] = [None] * len(materials)

    @torch.no_grad()
    def losses(self, step: int) -> dict[str, float]:
        """Give the mean over the scans of each loss, and as ``total`` their weighted sum.

        Parameters
        ----------
        step
            Steps taken, for the error.

        Raises
        ------
        TrainingError
            If a loss is not finite.
        """
        self._predictor.network.eval()
        found = [
            finite(self._of(number, step), step - 1) for number in range(len(self._materials))
        ]
        means = {name: sum(one[name] for one in found) / len(found) for name in found[0]}
        return {"total": weighted(means, self._objective), **means}

    def _of(self, number: int, step: int) -> LossParts:
        material = self._materials[number]
        predicted = self._predictor(material.encoded)
        parts = self._objective.fodf(
            predicted,
            material.target,
            material.counted,
            channel_dim=0,
            mean_square=material.mean_square,
        )
        drawn = self._seeds(number)
        if drawn is None or material.propagation is None:
            return parts
        fodf = self._predictor.network.decode(predicted, material.vox2ras, material.mask)
        try:
            propagated = material.propagation.found(fodf, drawn)
        except FodfError as error:
            raise not_finite(f"the predicted fODF ({error.what})", step - 1) from error
        return parts.with_parts(self._objective(propagated, drawn.target))

    def _seeds(self, number: int) -> Drawn | None:
        """Draw a scan's seeds and track its target, once."""
        target = self._materials[number].propagation
        if target is not None and self._drawn[number] is None:
            draw = generator(self._config.optimisation.random_seed, Purpose.VALIDATION, number)
            self._drawn[number] = target.draw(
                self._config.propagation.n_seeds, random_seed=int(draw.integers(2**63))
            )
        return self._drawn[number]
