"""Everything that can be found wrong in seconds is found here, before anything long starts."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from difftract_bids.bids.image_checks import (
    check_anatomy,
    check_image_file,
    check_preprocessed,
)
from difftract_bids.bids.runs import DWIRun
from difftract_bids.config import Config, TrackingConfig
from difftract_bids.errors import UsageError
from difftract_bids.io.gradients import (
    GradientTable,
    deconvolution_shell,
    join_gradients,
    read_gradients,
)


def check_run(run: DWIRun, *, b0_threshold_s_mm2: float) -> GradientTable:
    """Check the files of a diffusion run: whole, four-dimensional, with a fitting gradient table.

    Returns
    -------
    GradientTable
        That table.

    Raises
    ------
    InputError
        What is wrong, where, and the remedy.
    """
    parts = []
    for part in run.parts:
        image = check_image_file(part.dwi, ndim=4)
        table = read_gradients(
            part.bval,
            part.bvec,
            image.affine,
            n_volumes=image.shape[3],
            b0_threshold_s_mm2=b0_threshold_s_mm2,
            whole=len(run.parts) == 1,
        )
        parts.append((table, np.asarray(image.affine)))
    gradients = parts[0][0] if len(parts) == 1 else join_gradients(parts, run.dwi)
    deconvolution_shell(gradients)
    if run.preprocessed is not None:
        check_preprocessed(run.preprocessed)
    check_anatomy(run.anatomy)
    return gradients


def check_device(tracking: TrackingConfig) -> None:
    """Check that a GPU that is asked for is there.

    Raises
    ------
    ConfigError
        If it is not, or cannot be used.
    """
    if "cuda" in (tracking.device, tracking.backend):
        # Only now: everyone else need not wait for torch.
        from difftract_bids.core.generate import choose_device

        choose_device(tracking)


def check_sensitivity(config: Config) -> None:
    """Check that what is to be differentiated can be.

    Raises
    ------
    UsageError
        If streamlines follow tensors, or standard errors are asked for of fODFs that are given.
    """
    if config.sensitivity.is_wanted and config.tracking.algorithm != "sd_stream":
        raise UsageError(
            "Sensitivity and standard errors are those of streamlines along fODFs.",
            where=f"--tracking-algorithm {config.tracking.algorithm}",
            remedy="Use sd_stream, or leave --sensitivity and --edge-standard-errors out.",
        )
    if not config.sensitivity.edge_standard_errors:
        return
    why = {
        "--input-fodf": (config.fodf.input_fodf, "that are given"),
        "--fodf-model-file": (config.fodf.fodf_model_file, "that a network predicts"),
        "--refine-fodf": (config.refinement.refine_fodf, "that are adjusted to a target"),
    }
    for option, (value, which) in why.items():
        if value is not None:
            raise UsageError(
                f"How noise in the images moves fODFs is not known of fODFs {which}.",
                where=option,
                remedy="Let fODFs be fitted and leave them so, or leave --edge-standard-errors "
                "out.",
            )


def check_refinement(config: Config) -> None:
    """Check that fODFs that are to be adjusted are tracked.

    Raises
    ------
    UsageError
        If streamlines follow tensors.
    """
    if config.refinement.is_wanted and config.tracking.algorithm != "sd_stream":
        raise UsageError(
            "fODFs are adjusted to a target through streamlines along them.",
            where=f"--tracking-algorithm {config.tracking.algorithm}",
            remedy="Use sd_stream, or leave --refine-fodf out.",
        )


def check_folders(
    bids_dir: Path, output_dir: Path, work_dir: Path, derivatives: Sequence[Path] = ()
) -> None:
    """Check that results can be written, and that no raw data lie in their way.

    Parameters
    ----------
    bids_dir
        The dataset, which is only read.
    output_dir, work_dir
        Where results and intermediate files go.
    derivatives
        Folders of others' results, which are only read, too.

    Raises
    ------
    UsageError
        If a folder cannot be written to, or lies where the raw data are.
    """
    raw = bids_dir.resolve()
    for folder, option in ((output_dir, "OUTPUT_DIR"), (work_dir, "--work-dir")):
        target = folder.resolve()
        if target.is_relative_to(raw) and target.relative_to(raw).parts[:1] != ("derivatives",):
            raise UsageError(
                f"{option} lies among the raw data, which are never written to.",
                where=folder,
                remedy=f"Choose another folder, such as {raw}/derivatives/difftract_bids.",
            )
        for other in derivatives:
            if target.is_relative_to(other.resolve()):
                raise UsageError(
                    f"{option} lies among derivatives that are used, which are only read.",
                    where=folder,
                    remedy="Choose a folder of its own, such as derivatives/difftract_bids.",
                )
        _check_writable(folder, option)
    for kept in (raw, output_dir.resolve(), *(other.resolve() for other in derivatives)):
        if kept.is_relative_to(work_dir.resolve()):
            raise UsageError(
                "The working folder holds the raw data or the results; it is for what may go.",
                where=work_dir,
                remedy="Choose a folder of its own with --work-dir.",
            )
    for folder in (output_dir / "logs", *output_dir.glob("sub-*")):
        if folder.is_dir() or (folder.exists() and not folder.suffix):
            _check_writable(folder, "Part of OUTPUT_DIR")
    _check_owner(output_dir / "dataset_description.json")


def _check_owner(description: Path) -> None:
    """Refuse a folder that another pipeline has described as its own."""
    try:
        makers = json.loads(description.read_text(encoding="utf-8"))["GeneratedBy"]
        names = [str(maker["Name"]) for maker in makers]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if names and "difftract_bids" not in names:
        raise UsageError(
            f"OUTPUT_DIR holds the derivatives of another program: {', '.join(names)}.",
            where=description,
            remedy="Choose a folder of its own, such as derivatives/difftract_bids.",
        )


def _check_writable(folder: Path, option: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Permission bits do not tell on network and read-only file systems: try it.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(
            f"{option} cannot be written to: {error.strerror or error}.",
            where=folder,
            remedy="Choose another folder, or ask for write permission.",
        ) from error
