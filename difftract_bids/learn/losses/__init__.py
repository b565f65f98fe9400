"""Losses on fODFs, and on what the propagator makes of them."""

from difftract_bids.learn.losses.connectome import (
    correlation_loss,
    log_count_loss,
    relative_loss,
)
from difftract_bids.learn.losses.density import density_loss, tract_density
from difftract_bids.learn.losses.fodf import fodf_loss
from difftract_bids.learn.losses.objective import LossParts, Objective
from difftract_bids.learn.losses.propagated import Propagated
from difftract_bids.learn.losses.streamlines import StreamlineLosses, streamline_losses
from difftract_bids.learn.losses.survival import Amplitudes, survival_loss

__all__ = [
    "Amplitudes",
    "LossParts",
    "Objective",
    "Propagated",
    "StreamlineLosses",
    "correlation_loss",
    "density_loss",
    "fodf_loss",
    "log_count_loss",
    "relative_loss",
    "streamline_losses",
    "survival_loss",
    "tract_density",
]
