"""Diffusion runs that QSIPrep has preprocessed.

Names are those of its releases 0.13 to 1.x, which differ: ``space-T1w`` became ``space-ACPC``,
``_confounds`` ``_desc-confounds_timeseries``, ``_dwiref`` ``_desc-preproc_dwiref``
(https://qsiprep.readthedocs.io, outputs).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from difftract_bids.bids.anatomy import Anatomy, choose_t1w
from difftract_bids.bids.derivative_files import anatomy_of, files_named, of_same_source
from difftract_bids.bids.derivative_inputs import Derivative
from difftract_bids.bids.inherited import read_sidecars
from difftract_bids.bids.runs import DWIRun, PreprocessedDWI, named_entities, refuse_twins
from difftract_bids.bids.templates import entities_of
from difftract_bids.errors import InputError

#: Spaces that its images may be in, the newer name first; others are those of templates.
_SPACES = ("ACPC", "T1w")


def find_preprocessed_runs(
    derivative: Derivative, participant: str, sessions: list[str] | None = None
) -> list[DWIRun]:
    """Find the diffusion runs of a participant that QSIPrep has preprocessed.

    Each is kept apart by the entities that QSIPrep left in its name, ``space-`` aside.

    Parameters
    ----------
    derivative
        QSIPrep's folder.
    participant
        Label, without the ``sub-``.
    sessions
        Labels of sessions; all when ``None``.

    Raises
    ------
    InputError
        If there is none, or one lacks its gradient table.
    """
    folder = derivative.folder_of(participant)
    wanted = {label.removeprefix("ses-") for label in sessions or []}
    images = [
        image
        for image in files_named(folder, "dwi", "dwi")
        if entities_of(image).get("desc") == "preproc"
        and entities_of(image).get("space") in _SPACES
        and (not wanted or entities_of(image).get("ses") in wanted)
    ]
    if not images:
        within = f" in session {', '.join(sorted(wanted))}" if wanted else ""
        raise InputError(
            f"QSIPrep has no preprocessed diffusion image of participant {participant}{within}.",
            where=folder,
            remedy="Expected [ses-*/]dwi/*_space-ACPC_desc-preproc_dwi.nii.gz (or space-T1w, "
            "of older releases); name another participant or session.",
        )
    chosen = _of_one_space(images)
    _refuse_resolutions(chosen, images)
    runs = [_run(derivative, folder, image) for image in chosen]
    refuse_twins(runs)
    return runs


def _of_one_space(images: list[Path]) -> list[Path]:
    """Keep one image of each run, in the newer of the spaces."""
    by_run: dict[tuple[str, ...], Path] = {}
    for image in sorted(images, key=lambda path: _SPACES.index(_space(path))):
        run = tuple(sorted(named_entities(entities_of(image)).items()))
        by_run.setdefault(tuple(f"{key}-{value}" for key, value in run), image)
    return sorted(by_run.values())


def _refuse_resolutions(chosen: list[Path], images: list[Path]) -> None:
    """Refuse a run that is there at several resolutions: which is meant nobody has said."""
    for image in chosen:
        own = named_entities(entities_of(image))
        others = [
            path
            for path in images
            if path != image
            and named_entities(entities_of(path)) == own
            and _space(path) == _space(image)
        ]
        if others:
            raise InputError(
                "QSIPrep's series is there at several resolutions: "
                f"{', '.join(path.name for path in (image, *others))}.",
                where=image.parent,
                remedy="Keep one of them in the folder that is given (links will do).",
            )


def _space(image: Path) -> str:
    return entities_of(image)["space"]


def _run(derivative: Derivative, folder: Path, image: Path) -> DWIRun:
    bval, bvec = _table(image)
    space = _space(image)
    masks = files_named(folder, "dwi", "mask")
    preprocessed = PreprocessedDWI(
        dwi=image,
        bval=bval,
        bvec=bvec,
        mask=of_same_source(
            image, masks, space=space, desc="brain", res=entities_of(image).get("res")
        ),
        origin=derivative.origin,
    )
    run = DWIRun(
        entities=named_entities(entities_of(image)),
        dwi=image,
        bval=bval,
        bvec=bvec,
        metadata=read_sidecars(derivative.path, image),
        preprocessed=preprocessed,
    )
    return _with_origins(run, derivative)


def _table(image: Path) -> tuple[Path, Path]:
    """Find the gradient table, which lies beside the image.

    Raises
    ------
    InputError
        If one of the files is missing; the remedy knows of tables in other formats.
    """
    stem = image.name.partition(".")[0]
    bval, bvec = (image.with_name(f"{stem}.{extension}") for extension in ("bval", "bvec"))
    missing = [path.name for path in (bval, bvec) if not path.exists()]
    if missing:
        grad = image.with_name(f"{stem}.b")
        remedy = "Copy QSIPrep's results completely, or run it again."
        if grad.is_file():
            remedy = (
                "Make them of MRtrix's table, which is there: "
                f"mrinfo {image.name} -grad {grad.name} -export_grad_fsl {bvec.name} {bval.name}"
            )
        raise InputError(
            f"QSIPrep's image has no gradient table: {' and '.join(missing)} missing.",
            where=image,
            remedy=remedy,
        )
    return bval, bvec


def find_anatomy(derivative: Derivative, run: DWIRun) -> tuple[Anatomy, list[str]]:
    """Find the T1w in the space of a run's images: its session's, or that of all sessions.

    Parameters
    ----------
    derivative
        QSIPrep's folder.
    run
        One of its runs.

    Returns
    -------
    tuple
        The anatomy, without a T1w if there is none, and what the user should know of it.
    """
    folder, space = derivative.folder_of(run.participant), _space(run.dwi)
    images = [
        image
        for image in files_named(folder, "anat", "T1w")
        if entities_of(image).get("desc") == "preproc"
    ]
    # Older releases aligned the T1w to AC and PC as well, but left that out of its name.
    for entity in ("ACPC", None) if space == "ACPC" else (None,):
        fitting = [image for image in images if entities_of(image).get("space") == entity]
        own = [image for image in fitting if entities_of(image).get("ses") == run.session]
        shared = [image for image in fitting if "ses" not in entities_of(image)]
        t1w, notes = choose_t1w(run.session if own else None, own or shared)
        if t1w is not None:
            found = anatomy_of(
                t1w, folder, space=entity, targets=("ACPC", "T1w"), origin=derivative.origin
            )
            return replace(found, in_dwi_space=True), notes
    return Anatomy(), [f"{derivative.title} has no T1w of this participant and session."]


def _with_origins(run: DWIRun, derivative: Derivative) -> DWIRun:
    """Say whose work is used."""
    given = run.preprocessed
    if given is None:
        return run
    preprocessed = (
        f"Diffusion images were preprocessed by {derivative.title}; none of its steps (denoising, "
        "unringing, head motion, distortion, bias, resampling) was repeated here."
    )
    origins = [preprocessed]
    notes = []
    if given.mask is not None:
        origins.append(f"The brain mask of the diffusion images is that of {derivative.title}.")
    else:
        notes.append(f"{derivative.title} left no brain mask: it was made here.")
    return replace(run, origins=tuple(origins), notes=(*run.notes, *notes))
