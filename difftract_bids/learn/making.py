"""The network of a training: what it is made of, and for which scans."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from difftract_bids.config import TrainingConfig
from difftract_bids.core.sh import n_coefficients
from difftract_bids.errors import InputError
from difftract_bids.learn.acquisition import Acquisition
from difftract_bids.learn.architectures import architecture_of
from difftract_bids.learn.batches import Purpose, generator
from difftract_bids.learn.network import FODFNetwork, NetworkSettings
from difftract_bids.learn.scan import Scan
from difftract_bids.learn.starting_point import common_response


def settings_of(
    scans: Sequence[Scan],
    config: TrainingConfig,
    model_class: str | None,
    notes: list[str],
) -> NetworkSettings:
    """Say what the network is made of; it is for the first scan's acquisition.

    Parameters
    ----------
    scans
        What is learnt from.
    config
        Settings; the width and the number of blocks are given to an architecture that takes them.
    model_class
        ``package.module:Class`` of a user's architecture, from the user.
    notes
        Where it is said how scans differ from the first one.

    Raises
    ------
    InputError
        If scans have other shells, or there are too few directions for the signal's degree.
    UsageError
        If the user's class cannot be imported, or is no network.
    """
    acquisition = Acquisition.of(scans[0].gradients, scans[0].vox2ras)
    signal_lmax = config.network.signal_lmax
    if signal_lmax is None:
        signal_lmax = acquisition.signal_lmax
    _check_directions(acquisition, signal_lmax)
    for scan in scans[1:]:
        try:
            own = Acquisition.of(scan.gradients, scan.vox2ras)
            said = acquisition.check(own, signal_lmax=signal_lmax)
        except InputError as error:
            raise InputError(
                f"{scan.label} was not acquired as {scans[0].label} was: {error.what}",
                where=scan.sources.get("bval", scan.label),
                remedy="Choose participants of one acquisition (--participant-label), or shells "
                "and directions that all of them have ([pairs]).",
            ) from error
        notes += [f"{scan.label}, compared with {scans[0].label}: {note}" for note in said]
    wanted = config.network
    response = common_response(scans, wanted.lmax) if wanted.deconvolve else None
    return NetworkSettings(
        architecture=wanted.architecture,
        acquisition=acquisition,
        signal_lmax=signal_lmax,
        lmax=wanted.lmax,
        options=_options(config, model_class),
        response=response,
    )


def make_network(
    settings: NetworkSettings, config: TrainingConfig, model_class: str | None
) -> FODFNetwork:
    """Make the network, with weights drawn from the seed of training.

    Raises
    ------
    InputError, UsageError
        If its class is neither ours nor the user's, or cannot be made.
    """
    draw = generator(config.optimisation.random_seed, Purpose.WEIGHTS)
    return FODFNetwork(
        settings,
        architecture_class=architecture_of(
            settings.architecture, model_class, where="[network] architecture"
        ),
        random_seed=int(draw.integers(2**63)),
    )


def _options(config: TrainingConfig, model_class: str | None) -> dict[str, Any]:
    made_of = architecture_of(
        config.network.architecture, model_class, where="[network] architecture"
    )
    known = inspect.signature(made_of.__init__).parameters
    options = {"width": config.network.width, "n_blocks": config.network.n_blocks}
    return {name: value for name, value in options.items() if name in known}


def _check_directions(acquisition: Acquisition, signal_lmax: int) -> None:
    fewest = min(acquisition.n_directions, default=0)
    if n_coefficients(signal_lmax) > fewest:
        raise InputError(
            f"A signal of lmax {signal_lmax} needs {n_coefficients(signal_lmax)} directions of "
            f"each shell; there are {fewest}.",
            where="[network] signal_lmax",
            remedy=f"Set signal_lmax = {acquisition.signal_lmax}, leave it out, or take more "
            "directions ([pairs] n_directions).",
        )
