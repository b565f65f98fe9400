"""One step of training: what is predicted, compared and passed back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from difftract_bids.config import TrainingConfig
from difftract_bids.core.streamlines import Streamlines
from difftract_bids.errors import FodfError, TrainingError
from difftract_bids.learn.batches import Batches, Pass, Patch
from difftract_bids.learn.losses import LossParts, Objective
from difftract_bids.learn.materials import Material
from difftract_bids.learn.network import FODFNetwork
from difftract_bids.learn.rotations import GridRotation

_REMEDY = (
    "Train anew with a smaller learning_rate, or damp the derivatives along streamlines "
    "(gradient_window_mm, gradient_growth_limit in [tracking]); the last checkpoint is kept."
)


@dataclass(frozen=True)
class Predictor:
    """A network, and the precision that it works at.

    Attributes
    ----------
    network
        Called with images in frame axes.
    half
        Let it work in bfloat16 where it may. Rotations, decoding, propagation and losses do not:
        its rounding, 0.4%, would turn fODFs.
    """

    network: FODFNetwork
    half: bool = False

    def __call__(
        self, encoded: Float[Tensor, "channel i j k"], rotation: GridRotation | None = None
    ) -> Float[Tensor, "coeff i j k"]:
        """Predict, in float32; what is turned to be seen is turned back in the prediction."""
        (found,) = self.several([(encoded, rotation)])
        return found

    def several(
        self, given: Sequence[tuple[Float[Tensor, "channel i j k"], GridRotation | None]]
    ) -> list[Float[Tensor, "coeff i j k"]]:
        """Predict images, in one batch where they are of one size.

        PyTorch leaves a single small image to a convolution that takes ten times as long on a
        processor, and whose last bits differ from process to process.
        """
        settings = self.network.settings
        seen = [
            image if rotation is None else rotation.apply(image, settings.input_lmaxes)
            for image, rotation in given
        ]
        alike = len({image.shape for image in seen}) == 1
        batches = [torch.stack(seen)] if alike else [image[None] for image in seen]
        with torch.autocast(seen[0].device.type, dtype=torch.bfloat16, enabled=self.half):
            found = [image for batch in batches for image in self.network(batch)]
        return [
            image.float()
            if rotation is None
            else rotation.undo(image.float(), settings.output_lmaxes)
            for image, (_, rotation) in zip(found, given, strict=True)
        ]


class Stepper:
    """Take the steps of a training, each a function of the weights and of its number.

    Parameters
    ----------
    predictor
        Whose network learns.
    materials
        What from.
    optimiser
        Which changes the weights.
    config
        Losses, propagation and sizes.
    """

    def __init__(
        self,
        predictor: Predictor,
        materials: Sequence[Material],
        optimiser: torch.optim.Optimizer,
        config: TrainingConfig,
    ) -> None:
        self._predictor, self._materials, self._optimiser = predictor, materials, optimiser
        self._config, self._objective = config, Objective(config.losses)
        self._batches = Batches(
            [material.counted for material in materials],
            [len(material.rotations) for material in materials],
            config.optimisation,
        )

    def take(self, step: int, learning_rate: float) -> dict[str, float]:
        """Take a step.

        Parameters
        ----------
        step
            Its number, counted from 0.
        learning_rate
            How far.

        Returns
        -------
        dict
            What the history says of it, see `difftract_bids.learn.history.COLUMNS`.

        Raises
        ------
        TrainingError
            If a loss or the gradient is not finite; the weights are then what they were before.
        """
        self._predictor.network.train()
        self._optimiser.zero_grad(set_to_none=True)
        losses = self._config.losses
        numbers: dict[str, float] = {}
        if losses.fodf:
            numbers |= self._learn_patches(step)
        if is_propagated(step, self._config):
            numbers |= self._learn_streamlines(step)
        numbers["gradient_norm"] = self._clip(step)
        for group in self._optimiser.param_groups:
            group["lr"] = learning_rate
        self._optimiser.step()
        return numbers | {
            "total": weighted(numbers, self._objective),
            "learning_rate": learning_rate,
        }

    def _learn_patches(self, step: int) -> dict[str, float]:
        """Pass back the mean fODF loss of some patches."""
        patches = self._batches.patches(step)
        found = self._predictor.several(
            [
                (patch.of(self._materials[patch.scan].encoded), self._rotation_of(patch))
                for patch in patches
            ]
        )
        parts = [self._of_patch(*pair) for pair in zip(patches, found, strict=True)]
        values = [finite(part, step)["fodf"] for part in parts]
        torch.autograd.backward(torch.stack([part.total for part in parts]).mean())
        return {"fodf": sum(values) / len(values)}

    def _rotation_of(self, drawn: Patch | Pass) -> GridRotation:
        return self._materials[drawn.scan].rotations[drawn.rotation]

    def _of_patch(self, patch: Patch, found: Float[Tensor, "coeff i j k"]) -> LossParts:
        material = self._materials[patch.scan]
        return self._objective.fodf(
            found,
            patch.of(material.target),
            patch.of(material.counted),
            channel_dim=0,
            mean_square=material.mean_square,
        )

    def _learn_streamlines(self, step: int) -> dict[str, float]:
        """Pass back the losses of one scan's streamlines, and say what they met."""
        whole = self._batches.whole(step)
        material = self._materials[whole.scan]
        parts, streamlines = self._of_streamlines(material, whole, step)
        numbers = finite(parts, step)
        torch.autograd.backward(parts.total)
        return numbers | _described(streamlines, parts)

    def _of_streamlines(
        self, material: Material, whole: Pass, step: int
    ) -> tuple[LossParts, Streamlines]:
        if material.propagation is None:
            raise TypeError("A scan was prepared without what streamlines are compared with.")
        drawn = material.propagation.draw(
            self._config.propagation.n_seeds, random_seed=whole.random_seed
        )
        found = self._predictor(material.encoded, self._rotation_of(whole))
        fodf = self._predictor.network.decode(found, material.vox2ras, material.mask)
        try:
            propagated = material.propagation.found(fodf, drawn)
        except FodfError as error:
            raise not_finite(f"the predicted fODF ({error.what})", step) from error
        if propagated.streamlines is None:
            raise TypeError("A propagation gave no streamlines.")
        return self._objective(propagated, drawn.target), propagated.streamlines

    def _clip(self, step: int) -> float:
        """Scale the gradient down to the largest norm allowed; give its norm before that."""
        weights = list(self._predictor.network.parameters())
        limit = self._config.optimisation.gradient_clip
        norm = float(torch.nn.utils.clip_grad_norm_(weights, limit))
        if not math.isfinite(norm):
            raise not_finite("the gradient", step)
        return norm


def is_propagated(step: int, config: TrainingConfig) -> bool:
    """Say whether a step, counted from 0, has losses that need streamlines."""
    settings = config.propagation
    begun = config.losses.needs_propagation and step >= settings.from_step
    return begun and (step - settings.from_step) % settings.every == 0


def weighted(numbers: Mapping[str, float], objective: Objective) -> float:
    """Sum up losses by their weights; what else is among the numbers is left out."""
    return sum(
        weight * numbers[name] for name, weight in objective.weights.items() if name in numbers
    )


def finite(parts: LossParts, step: int) -> dict[str, float]:
    """Give losses as numbers.

    Raises
    ------
    TrainingError
        If one of them is not finite.
    """
    numbers = parts.numbers()
    bad = [f"{name} ({value})" for name, value in numbers.items() if not math.isfinite(value)]
    if bad:
        raise not_finite(f"the loss {', '.join(bad)}", step)
    return numbers


def not_finite(what: str, step: int) -> TrainingError:
    """Say what of a step, counted from 0, is not finite."""
    return TrainingError(
        f"In step {step + 1}, {what} is not finite: training stops.",
        where=f"step {step + 1}",
        remedy=_REMEDY,
    )


def _described(streamlines: Streamlines, parts: LossParts) -> dict[str, float]:
    """Count streamlines, and say how the propagator's derivatives grew along them."""
    said: dict[str, float] = {
        "n_streamlines": len(streamlines),
        "n_compared": parts.n_compared,
    }
    report = streamlines.gradient_report
    if report is None or report.growth is None or not len(report.growth):
        return said
    growth = report.growth.double().sort().values
    places = {"growth_median": 0.5, "growth_p99": 0.99, "growth_worst": 1.0}
    said |= {name: float(growth[round(at * (len(growth) - 1))]) for name, at in places.items()}
    return said | {"n_bounded": report.bounded}
