"""The losses that settings ask for, worked out together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from difftract_bids.config.training import LossConfig
from difftract_bids.errors import ConfigError
from difftract_bids.learn.losses.connectome import (
    correlation_loss,
    log_count_loss,
    relative_loss,
)
from difftract_bids.learn.losses.density import density_loss
from difftract_bids.learn.losses.fodf import fodf_loss
from difftract_bids.learn.losses.propagated import Propagated
from difftract_bids.learn.losses.streamlines import streamline_losses
from difftract_bids.learn.losses.survival import survival_loss

_OF_STREAMLINES = ("points", "directions", "ends")
_OF_CONNECTOMES = {
    "connectome_relative": relative_loss,
    "connectome_log": log_count_loss,
    "connectome_correlation": correlation_loss,
}


class LossParts(dict[str, Tensor]):
    """Losses by name, not yet weighted.

    Parameters
    ----------
    parts
        Each loss, a number with a graph.
    weights
        How much each counts in `total`.
    n_compared
        How many streamlines were compared with one of the same seed.
    """

    def __init__(
        self, parts: Mapping[str, Tensor], weights: Mapping[str, float], n_compared: int = 0
    ) -> None:
        super().__init__(parts)
        self.weights = {name: weights[name] for name in parts}
        self.n_compared = n_compared

    @property
    def total(self) -> Float[Tensor, ""]:
        """Weighted sum; 0 if there are none."""
        terms = [self.weights[name] * part.double() for name, part in self.items()]
        return torch.stack(terms).sum() if terms else torch.zeros((), dtype=torch.float64)

    def with_parts(self, others: LossParts) -> LossParts:
        """Put two sets of losses together."""
        return LossParts(
            {**self, **others},
            {**self.weights, **others.weights},
            self.n_compared + others.n_compared,
        )

    def numbers(self) -> dict[str, float]:
        """Give the losses as plain numbers, without their graphs."""
        return {name: float(part.detach()) for name, part in self.items()}


class Objective:
    """What is minimised: losses by their weights; those of weight 0 are not worked out.

    Parameters
    ----------
    losses
        Weights.
    """

    def __init__(self, losses: LossConfig) -> None:
        self.losses = losses
        self.weights: dict[str, float] = {
            name: weight for name, weight in asdict(losses).items() if weight > 0
        }

    @property
    def needs_density(self) -> bool:
        """Whether densities must be worked out."""
        return "density" in self.weights

    def __call__(self, found: Propagated, target: Propagated) -> LossParts:
        """Compare what one tracking gave with what was wanted from the same seeds.

        Raises
        ------
        ConfigError
            If a loss is wanted of what was not worked out, such as a connectome without a
            parcellation.
        InputError
            If the two are not of the same seeds, nodes or grid.
        """
        parts: dict[str, Tensor] = {}
        n_compared = 0
        if any(name in self.weights for name in _OF_STREAMLINES):
            lines = streamline_losses(*_both(found, target, "streamlines"))
            n_compared = lines.n_compared
            parts |= {
                name: getattr(lines, name) for name in _OF_STREAMLINES if name in self.weights
            }
        for name, loss in _OF_CONNECTOMES.items():
            if name in self.weights:
                parts[name] = loss(*_both(found, target, "connectome"))
        if "survival" in self.weights:
            parts["survival"] = survival_loss(_there(found.amplitudes, "amplitudes"))
        if self.needs_density:
            parts["density"] = density_loss(*_both(found, target, "density"))
        return LossParts(parts, self.weights, n_compared)

    def fodf(
        self,
        predicted: Float[Tensor, ...],
        target: Float[Tensor, ...],
        mask: Bool[Tensor, ...],
        *,
        channel_dim: int = -1,
        mean_square: float | None = None,
    ) -> LossParts:
        """Compare coefficients, see `fodf_loss`; no part at all if their weight is 0."""
        if "fodf" not in self.weights:
            return LossParts({}, {})
        loss = fodf_loss(predicted, target, mask, channel_dim=channel_dim, mean_square=mean_square)
        return LossParts({"fodf": loss}, self.weights)


def _both(found: Propagated, target: Propagated, name: str) -> tuple[Any, Any]:
    return _there(getattr(found, name), name), _there(getattr(target, name), name)


def _there(part: Any, name: str) -> Any:  # noqa: ANN401 - whatever a loss compares
    if part is None:
        raise ConfigError(
            f"There is no {name} for a loss to compare.",
            where="LossConfig",
            remedy="Give a parcellation (for connectomes), a target fODF (for survival), ask the "
            "target for densities, or set the weight of this loss to 0.",
        )
    return part
