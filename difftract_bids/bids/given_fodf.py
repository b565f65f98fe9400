"""Responses and fODF images that settings name, for each run: found and checked."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Float

from difftract_bids.bids.given_files import own_path
from difftract_bids.bids.runs import DWIRun
from difftract_bids.config import FodfConfig
from difftract_bids.errors import ConfigError, DifftractError, GradientError, InputError
from difftract_bids.io.directions import read_directions
from difftract_bids.io.gradients import GradientTable, deconvolution_shell, is_same_shell
from difftract_bids.io.grids import check_same_voxels
from difftract_bids.io.mif import read_mif_header


def fodf_of(config: FodfConfig, run: DWIRun) -> FodfConfig:
    """Fill in a run's own files: one response for each tissue of its model, and the fODF image.

    Parameters
    ----------
    config
        Settings of this stage; a folder of responses is replaced by its files.
    run
        With its model chosen.

    Raises
    ------
    InputError
        If a folder lacks a response, or has two, or a path asks for a session that is not there.
    ConfigError
        If there are fewer responses than tissues.
    """
    if config.fodf_model_file is not None:
        own = own_path(config.fodf_model_file, "fodf_model_file", run)
        return replace(config, fodf_model_file=own)
    changes: dict[str, object] = {"model": run.fodf_model.name}
    if config.input_fodf is not None:
        return replace(config, input_fodf=own_path(config.input_fodf, "input_fodf", run))
    if config.response:
        changes["response"] = _responses(config.response, run)
    if config.constraint_directions is not None:
        name = "constraint_directions"
        changes[name] = own_path(config.constraint_directions, name, run)
    return replace(config, **changes)  # type: ignore[arg-type]


def check_given_fodf(config: FodfConfig, run: DWIRun, gradients: GradientTable) -> None:
    """Check the responses, or the fODF image, that the settings name.

    Parameters
    ----------
    config
        Settings of this stage.
    run
        With its model chosen.
    gradients
        Its table: responses must be of its shells.

    Raises
    ------
    DifftractError
        What is wrong, with which file.
    """
    own = fodf_of(config, run)
    if own.response:
        used = [mean for mean, _ in gradients.shells()]
        if run.fodf_model.name != "msmtcsd":
            b0 = used[:1] if run.fodf_model.is_multi_tissue else []
            used = [*b0, deconvolution_shell(gradients)[0]]
        for path in own.response:
            _check_shells(path, _response_shells(path), used)
    if own.constraint_directions is not None:
        _check_directions(own.constraint_directions)
    if own.input_fodf is not None:
        _check_image(own.input_fodf, run)


def _responses(given: tuple[str, ...], run: DWIRun) -> tuple[str, ...]:
    model, tissues = run.fodf_model.name, run.fodf_model.tissues
    paths = tuple(own_path(path, "response", run) for path in given)
    if len(paths) == 1 and Path(paths[0]).is_dir():
        return tuple(_in_folder(Path(paths[0]), model, tissue) for tissue in tissues)
    if len(paths) != len(tissues):
        raise ConfigError(
            f"{len(paths)} response is given; the model {model} of {run.stem} has "
            f"{len(tissues)}: {' '.join(tissues)} ({run.fodf_model.reason}).",
            where="--response",
            remedy=f"Give {len(tissues)} in this order, one folder that has them, or the model "
            "csd (--fodf-model).",
        )
    return paths


def _in_folder(folder: Path, model: str, tissue: str) -> str:
    found = sorted(folder.glob(f"*model-{model}_label-{tissue}_response.txt"))
    if len(found) == 1:
        return str(found[0])
    present = ", ".join(path.name for path in sorted(folder.glob("*_response.txt"))[:8])
    raise InputError(
        f"The folder has {len(found)} responses of {tissue} for the model {model}; one is needed.",
        where=folder,
        remedy="Run the group level first, choose the model of the responses (--fodf-model), or "
        f"give the files themselves. Present: {present or 'none'}.",
    )


@lru_cache(maxsize=1024)  # most often all runs share a file
def _response_shells(path: str) -> tuple[float, ...]:
    """Check that a file holds a table of numbers; give the b-values that it tells, if any."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        told = [line.split(":")[1] for line in lines if line.lower().startswith("# shells:")]
        shells = tuple(float(bval) for bval in told[0].split(",")) if told else ()
        rows = [line.replace(",", " ").split() for line in lines if line[:1] not in ("#", "")]
        numbers = [float(value) for row in rows for value in row]
        positive = all(float(row[0]) > 0 for row in rows if row)
    except (OSError, ValueError) as error:  # text that is not UTF-8 is a ValueError too
        raise InputError(
            f"The response function cannot be read: {error} (--response).",
            where=path,
            remedy="Give a text file with a row of zonal coefficients per shell, as "
            "dwi2response writes it.",
        ) from error
    if not numbers or not all(map(math.isfinite, numbers)) or not positive:
        raise InputError(
            "The response function is empty, not finite, or not positive (--response).",
            where=path,
            remedy="Estimate it again: the first number of each row is the mean signal.",
        )
    return shells


def _check_shells(path: str, shells: tuple[float, ...], used: list[float]) -> None:
    """Check that a response has the shells of the data, as far as it tells its own."""
    for bval in used:
        if shells and not any(is_same_shell(shell, bval) for shell in shells):
            listed = ", ".join(f"{shell:.0f}" for shell in shells)
            raise GradientError(
                f"The response has the shells {listed}; the data have b={bval:.0f} s/mm² "
                "(--response).",
                where=path,
                remedy="Give a response of data with the same b-values.",
            )


@lru_cache(maxsize=64)
def _check_directions(path: str) -> None:
    try:
        read_directions(path)
    except InputError as error:
        raise InputError(
            f"{error.what} (--constraint-directions)", where=error.where, remedy=error.remedy
        ) from error


def _check_image(path: str, run: DWIRun) -> None:
    from difftract_bids.io.fodf_images import check_fodf_image

    if not Path(path).is_file():
        raise InputError(
            "There is no such file (--input-fodf).",
            where=path,
            remedy="Give the path of an fODF image; {subject} and {session} in it are replaced "
            "by a run's labels.",
        )
    try:
        check_fodf_image(path)
    except DifftractError as error:
        raise type(error)(
            f"{error.what} (--input-fodf)", where=error.where, remedy=error.remedy
        ) from error
    shape, vox2ras = _grid_of(path)
    dwi = nib.load(run.dwi)
    check_same_voxels(shape, vox2ras, dwi.shape[:3], np.asarray(dwi.affine), where=path)


def _grid_of(path: str) -> tuple[tuple[int, ...], Float[np.ndarray, "4 4"]]:
    if path.endswith((".mif", ".mif.gz", ".mih")):
        header = read_mif_header(path)
        return header.shape[:3], header.vox2ras
    image = nib.load(path)
    return image.shape[:3], np.asarray(image.affine)
