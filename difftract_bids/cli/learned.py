"""Trying a trained model on each run before anything starts.

Plans are made below the layer that has the networks, so this is handed to them.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from difftract_bids.errors import DifftractError

if TYPE_CHECKING:
    from collections.abc import Callable

    from difftract_bids.bids.runs import DWIRun
    from difftract_bids.config import FodfConfig
    from difftract_bids.io.gradients import GradientTable


def network_check(config: FodfConfig) -> Callable[[DWIRun, GradientTable], DWIRun]:
    """Make what checks each run: that its model can be loaded, and is for such data.

    Parameters
    ----------
    config
        Settings of the fODFs.

    Returns
    -------
    callable
        Gives a run back, with what the user should know of its model; raises a `DifftractError`
        if the model file cannot be used, or not for this run.
    """

    def check(run: DWIRun, gradients: GradientTable) -> DWIRun:
        if config.fodf_model_file is None:
            return run
        # Only now: everyone else need not wait for torch.
        import nibabel as nib
        import numpy as np

        from difftract_bids.bids.given_fodf import fodf_of
        from difftract_bids.learn.acquisition import Acquisition

        path = str(fodf_of(config, run).fodf_model_file)
        try:
            settings = _load(path, config.fodf_model_class).network.settings
        except DifftractError as error:
            raise type(error)(
                f"{error.what} (--fodf-model-file)", where=error.where, remedy=error.remedy
            ) from error
        met = Acquisition.of(gradients, np.asarray(nib.load(run.dwi).affine))
        try:
            notes = settings.acquisition.check(met, signal_lmax=settings.signal_lmax)
        except DifftractError as error:
            raise type(error)(
                f"{error.what} (--fodf-model-file)", where=run.dwi, remedy=error.remedy
            ) from error
        if run.fodf_model.network is not None:
            notes += run.fodf_model.network.notes_for(run.participant)
        return replace(run, fodf_model=replace(run.fodf_model, notes=tuple(notes)))

    return check


@lru_cache(maxsize=4)  # most often all runs share a file
def _load(path: str, model_class: str | None) -> Any:  # noqa: ANN401 - its layer is not imported
    from difftract_bids.learn.model_file import load_model

    return load_model(path, model_class)
