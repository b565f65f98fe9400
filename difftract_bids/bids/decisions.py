"""What is done about a run's distortion, and whether its streamlines obey tissue."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from difftract_bids.bids.filters import Filters
from difftract_bids.bids.fsl import has_topup, require_eddy
from difftract_bids.bids.phase_encoding import (
    Decision,
    decide_correction,
    find_fieldmaps,
    read_phase_encoding,
    say_uncorrected,
)
from difftract_bids.bids.runs import DWIRun
from difftract_bids.config import Config
from difftract_bids.errors import UsageError


def with_decisions(
    run: DWIRun, config: Config, root: Path, filters: Filters | None = None
) -> DWIRun:
    """Decide what the settings leave to the data, and say why in the run's remarks.

    Parameters
    ----------
    run
        A run, as it was found.
    config
        Settings.
    root
        Folder of the raw dataset, as the run's own paths have it.
    filters
        Which images count as inputs; all when ``None``.

    Raises
    ------
    InputError
        If a sidecar's phase encoding is none.
    UsageError
        If what is asked for cannot be done with this run.
    """
    if config.sensitivity.edge_standard_errors and run.preprocessed is not None:
        raise UsageError(
            "Standard errors need the noise of the raw images, which a preprocessed series does "
            "not tell.",
            where=f"--edge-standard-errors, {run.dwi}",
            remedy="Leave --edge-standard-errors out, or preprocess the raw images here.",
        )
    return _with_constraints(_with_distortion(run, config, root, filters), config)


def _with_distortion(run: DWIRun, config: Config, root: Path, filters: Filters | None) -> DWIRun:
    if run.preprocessed is not None:
        # What was corrected there is its authors' to say.
        return replace(run, distortion=Decision("none", f"See {run.preprocessed.origin}."))
    encoding = read_phase_encoding(run.metadata, run.dwi)
    require_eddy(config.preprocessing, encoding, run.dwi)
    threshold = config.preprocessing.b0_threshold_s_mm2
    parts = [part.dwi for part in run.parts]
    fieldmaps = find_fieldmaps(
        root, run.dwi, run.metadata, threshold, parts=parts, filters=filters
    )
    decision = decide_correction(
        config.preprocessing,
        fieldmaps,
        encoding,
        has_t1w=run.t1w is not None,
        fsl_present=has_topup(),
        where=run.dwi,
    )
    uncorrected = say_uncorrected(decision, fieldmaps)
    corrected = () if uncorrected else (f"Susceptibility distortion: {decision.reason}",)
    return replace(
        run,
        phase_encoding=encoding,
        fieldmaps=fieldmaps,
        distortion=decision,
        notes=(*run.notes, *((uncorrected,) if uncorrected else ())),
        remarks=(*run.remarks, *corrected),
    )


def _with_constraints(run: DWIRun, config: Config) -> DWIRun:
    """Decide whether streamlines obey tissue."""
    constrained, why = _constraints(run, config)
    if config.seeding.seed_gmwmi and not constrained:
        raise UsageError(
            f"Seeds on the interface of grey and white matter need tissues. {why}",
            where=f"--seed-gmwmi, {run.dwi}",
            remedy="Give --act on or --act-5tt, or leave --seed-gmwmi out.",
        )
    remark = f"Streamlines {'obey' if constrained else 'do not obey'} tissue (--act): {why}"
    return replace(run, is_constrained=constrained, remarks=(*run.remarks, remark))


def _constraints(run: DWIRun, config: Config) -> tuple[bool, str]:
    asked = config.act.act
    if asked == "off":
        return False, "They were told not to."
    if config.act.act_5tt is not None:
        return True, "A tissue image was given."
    if run.t1w is None and asked == "on":
        raise UsageError(
            "Anatomical constraints were asked for, and there is no T1w to find tissues in.",
            where=run.dwi,
            remedy="Add the T1w, give --act-5tt, or leave --act on out.",
        )
    if run.t1w is None:
        return False, "There is no T1w to find tissues in."
    return (True, "It was asked for.") if asked == "on" else _by_distortion(run)


def _by_distortion(run: DWIRun) -> tuple[bool, str]:
    """Trust the tissues of the T1w only where the diffusion images have its shape."""
    if run.preprocessed is not None:
        return True, f"There is a T1w, and {run.preprocessed.origin} usually corrects distortion."
    if run.distortion.method != "none":
        return True, "There is a T1w, and distortion is corrected."
    return False, (
        "Susceptibility distortion is not corrected, and the tissues of the T1w would lie beside "
        "those of the diffusion images."
    )
