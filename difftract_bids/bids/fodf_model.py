"""Which fODF model a run gets, and why: decided by its shells before anything starts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from difftract_bids.bids.fodf_model_file import TrainedModel
from difftract_bids.config import TISSUES, FodfConfig
from difftract_bids.errors import GradientError
from difftract_bids.io.gradients import GradientTable

#: An fODF of lmax 2 has six unknowns; tissues without directions would do with fewer.
_MIN_DIRECTIONS = 6
#: One shell must tell crossing fibres apart: fifteen directions (lmax 4), enough weighting.
_ANGULAR_DIRECTIONS, _ANGULAR_BVAL_S_MM2 = 15, 700.0
#: b-values spread further than this are no shell, but a grid or a ramp.
_SPREAD_S_MM2, _RELATIVE_SPREAD = 200.0, 0.2


@dataclass(frozen=True)
class ModelChoice:
    """The fODF model of a run.

    Attributes
    ----------
    name
        A key of :data:`difftract_bids.config.TISSUES`; ``given`` for an image from elsewhere,
        ``learned`` for fODFs that a network predicts.
    reason
        Why it is this one, as a part of a sentence.
    notes
        What a user should know of the choice, such as data unlike those of the training.
    network
        What predicts the fODFs, if they are predicted.
    """

    name: str
    reason: str
    notes: tuple[str, ...] = ()
    network: TrainedModel | None = None

    @property
    def is_fitted(self) -> bool:
        """Whether fODFs are fitted to the run, rather than predicted or given."""
        return self.name in TISSUES

    @property
    def is_given(self) -> bool:
        """Whether fODFs come from elsewhere, rather than from the run."""
        return self.name == "given"

    @property
    def tissues(self) -> tuple[str, ...]:
        """Tissues, white matter first; white matter alone if fODFs are not fitted."""
        return TISSUES.get(self.name, ("WM",))

    @property
    def is_multi_tissue(self) -> bool:
        """Whether there is more than white matter."""
        return len(self.tissues) > 1


#: What a run has whose shells nobody has looked at.
ONE_TISSUE = ModelChoice("csd", "the shells were not looked at")


def choose_model(gradients: GradientTable, config: FodfConfig) -> ModelChoice:
    """Take the model asked for, or the one that the shells allow.

    ``auto`` is three tissues where there are b=0 volumes and two usable shells, one of which can
    tell crossing fibres apart; else a single tissue. Two tissues of one shell only if asked for.

    Parameters
    ----------
    gradients
        Table of the run.
    config
        Settings of this stage.

    Raises
    ------
    GradientError
        If the table has too few shells, or no b=0 volume, for the model asked for.
    ConfigError
        If the other settings do not go with the model.
    """
    if config.input_fodf is not None:
        return ModelChoice("given", "an fODF image was given")
    if config.fodf_model_file is not None:
        return ModelChoice("learned", "a trained model was given")
    shells = usable_shells(gradients)
    found = describe_shells(gradients)
    if config.model == "auto":
        choice = _by_shells(gradients, shells, found)
    else:
        _check_possible(config.model, gradients, len(shells), found)
        choice = ModelChoice(config.model, f"it was asked for ({found})")
    config.check_model(choice.name)
    return choice


def usable_shells(
    gradients: GradientTable,
) -> list[tuple[float, Bool[np.ndarray, " volume"]]]:
    """List (mean b-value in s/mm², which volumes) of the shells that a model can use, ascending.

    A shell has six directions, and its b-values lie within 20% of each other (200 s/mm² at least).
    """
    usable = []
    for mean, volumes in gradients.shell_volumes():
        bvals = gradients.bvals_s_mm2[volumes]
        narrow = float(np.ptp(bvals)) <= max(_SPREAD_S_MM2, _RELATIVE_SPREAD * mean)
        if mean > 0 and narrow and len(bvals) >= _MIN_DIRECTIONS:
            usable.append((mean, volumes))
    return usable


def describe_shells(gradients: GradientTable) -> str:
    """Say in words which shells a table has, b=0 included."""
    shells = [f"b={mean:.0f}: {n}" for mean, n in gradients.shells()]
    return f"volumes per shell: {', '.join(shells)}"


def _by_shells(
    gradients: GradientTable,
    shells: list[tuple[float, Bool[np.ndarray, " volume"]]],
    found: str,
) -> ModelChoice:
    if not gradients.b0_mask.any():
        return ModelChoice("csd", f"there is no b=0 volume ({found})")
    if len(shells) < 2:
        number = "one usable shell" if shells else "no usable shell"
        return ModelChoice("csd", f"there is {number} besides b=0 ({found})")
    angular = [
        mean
        for mean, volumes in shells
        if mean >= _ANGULAR_BVAL_S_MM2 and volumes.sum() >= _ANGULAR_DIRECTIONS
    ]
    if not angular:
        return ModelChoice(
            "csd",
            f"no shell has {_ANGULAR_DIRECTIONS} directions at b >= {_ANGULAR_BVAL_S_MM2:.0f}, "
            f"as three tissues would need ({found})",
        )
    return ModelChoice("msmtcsd", f"there are {len(shells)} usable shells besides b=0 ({found})")


def _check_possible(model: str, gradients: GradientTable, n_shells: int, found: str) -> None:
    several = len(TISSUES[model]) > 1
    if several and not gradients.b0_mask.any():
        raise GradientError(
            f"The model {model} needs b=0 volumes ({found}).",
            where="--fodf-model",
            remedy="Take the model csd, or raise --b0-threshold if a volume is meant as b=0.",
        )
    if model == "msmtcsd" and n_shells < 2:
        raise GradientError(
            "Three tissues (msmtcsd) cannot be told apart: two shells of at least "
            f"{_MIN_DIRECTIONS} directions besides b=0 are needed, and there "
            f"{'is one' if n_shells == 1 else 'is none'} ({found}).",
            where="--fodf-model",
            remedy="Take ss2t (white matter and CSF from one shell and b=0) or csd.",
        )
    if model == "ss2t" and n_shells < 1:
        raise GradientError(
            f"Two tissues (ss2t) need a shell of {_MIN_DIRECTIONS} directions ({found}).",
            where="--fodf-model",
            remedy="Leave this run out, or merge the parts of the acquisition.",
        )
