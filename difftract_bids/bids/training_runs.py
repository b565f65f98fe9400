"""What there is to learn from: diffusion runs of a derivatives folder with their fODF images.

A folder that this program wrote, or one with the same names:
``sub-*/[ses-*/]dwi/*_desc-preproc_dwi.nii[.gz]`` with its ``.bval`` and ``.bvec``,
``*_desc-brain_mask.nii[.gz]``, ``*_model-*_param-fod[_label-WM]_dwimap.{nii,nii.gz,mif,mif.gz}``,
and, for connectomes, ``*_{atlas,seg}-*_dseg.nii[.gz]`` with its ``.tsv``. These are the names of
BEP016's draft and of QSIPrep and QSIRecon, whose two folders must be put into one (links will do).
All other entities of a name, such as ``space-``, must be those of the diffusion image.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from difftract_bids.bids.layout import choose_among, participant_labels
from difftract_bids.bids.templates import entities_of
from difftract_bids.config import PairsConfig
from difftract_bids.errors import InputError

#: Endings; what is named first is taken where both are there.
_NIFTI, _FODF = (".nii.gz", ".nii"), (".nii.gz", ".nii", ".mif.gz", ".mif")
#: Entities that are of the derivative alone, not of the run.
_OF_FODF, _OF_PARCELLATION = {"model", "param", "label"}, {"atlas", "seg"}
#: What the settings that choose are about.
_NOUNS = {"target_model": "the fODF models", "atlas": "the atlases"}
_REMEDY = (
    "Run difftract-bids DATASET OUT participant first and give OUT, or give the raw dataset to "
    "difftract-train."
)


@dataclass(frozen=True)
class TrainingRun:
    """A diffusion run and the fODF image that is to be learnt from it.

    Attributes
    ----------
    participant, session
        Labels, without ``sub-`` and ``ses-``.
    label
        First part of its names, such as ``sub-01_ses-A_run-1``.
    dwi, bval, bvec, mask
        The preprocessed images, their gradient table, and the brain.
    fodf
        The target: SH coefficients of the white matter's fODF.
    model
        The model that it was fitted by, as its name says.
    parcellation, table, atlas
        Label image, the table that names its labels, and the atlas; ``None`` without one.
    """

    participant: str
    session: str | None
    label: str
    dwi: Path
    bval: Path
    bvec: Path
    mask: Path
    fodf: Path
    model: str
    parcellation: Path | None = None
    table: Path | None = None
    atlas: str | None = None


class _Found(NamedTuple):
    """A run's files, as far as they are there: its own, and those of all models and atlases."""

    participant: str
    session: str | None
    label: str
    files: dict[str, Path]
    fodfs: dict[str, Path]
    parcellations: dict[str, Path]


def find_training_runs(
    derivatives: Path,
    pairs: PairsConfig,
    participants: Iterable[str] | None = None,
    *,
    needs_parcellation: bool = False,
) -> list[TrainingRun]:
    """Find the runs that have an fODF image, sorted by their labels.

    Runs that lack what is needed are left out, with a warning that names them.

    Parameters
    ----------
    derivatives
        Folder with ``sub-*`` in it, see the top of this module.
    pairs
        Says which model and which atlas, where there are several.
    participants
        Labels of those to take, with or without ``sub-``; all by default.
    needs_parcellation
        Whether a loss needs a parcellation.

    Raises
    ------
    InputError
        If there is no run with all that is needed, one of several participants that were named has
        none, or there are several models or atlases and none is chosen.
    UsageError
        If a participant who was named is not there.
    """
    labels = _choose(derivatives, participants)
    found = [one for label in labels for one in _find(derivatives, label)]
    model = _the_one(derivatives, "target_model", pairs.target_model, [one.fodfs for one in found])
    everywhere = [one.parcellations for one in found]
    if needs_parcellation or len({atlas for one in everywhere for atlas in one}) == 1:
        atlas = _the_one(derivatives, "atlas", pairs.atlas, everywhere)
    else:
        atlas = pairs.atlas  # nobody asks for one of several
    runs: list[TrainingRun] = []
    lacking: dict[str, list[str]] = {}
    for one in found:
        if lacks := _lacks(one, model, atlas, needs_parcellation=needs_parcellation):
            lacking[one.label] = lacks
        else:
            runs.append(_complete(one, model, atlas))
    _tell(derivatives, labels, runs, lacking, all_are_wanted=participants is not None)
    return sorted(runs, key=lambda run: run.label)


def _choose(derivatives: Path, participants: Iterable[str] | None) -> list[str]:
    present = participant_labels(derivatives) if derivatives.is_dir() else []
    if not present:
        what = "has no sub-* folder" if derivatives.is_dir() else "does not exist"
        raise InputError(f"The folder of derivatives {what}.", where=derivatives, remedy=_REMEDY)
    if participants is None:
        return present
    return choose_among(present, participants, derivatives, "derivatives")


def _find(derivatives: Path, participant: str) -> list[_Found]:
    root = derivatives / f"sub-{participant}"
    folders = [root / "dwi", *sorted(root.glob("ses-*/dwi"))]
    images: dict[str, Path] = {}
    for folder in folders:
        for ending in _NIFTI:
            for image in folder.glob(f"*_desc-preproc_dwi{ending}"):
                images.setdefault(image.name.removesuffix(ending), image)
    if images:
        return [_look_around(participant, image) for image in images.values()]
    return [_Found(participant, None, f"sub-{participant}", {}, {}, {})]


def _look_around(participant: str, image: Path) -> _Found:
    """Find what goes with a diffusion image, of all models and atlases."""
    label, _, ending = image.name.partition("_desc-preproc_dwi")
    files = {"dwi": image}
    for name in ("bval", "bvec"):
        path = image.with_name(image.name.removesuffix(ending) + f".{name}")
        files |= {name: path} if path.is_file() else {}
    for mask in _with_it(image, "mask", _NIFTI, {"desc"}):
        if entities_of(mask).get("desc") == "brain":
            files.setdefault("mask", mask)
    fodfs: dict[str, Path] = {}
    for path in _with_it(image, "dwimap", _FODF, _OF_FODF):
        own = entities_of(path)
        if own.get("param") == "fod" and own.get("label", "WM") == "WM" and "model" in own:
            fodfs.setdefault(own["model"], path)
    parcellations: dict[str, Path] = {}
    for path in _with_it(image, "dseg", _NIFTI, _OF_PARCELLATION):
        own = entities_of(path)
        atlas = own.get("atlas", own.get("seg"))
        if atlas is not None and _table_of(path).is_file():
            parcellations.setdefault(atlas, path)
    session = entities_of(image).get("ses")
    return _Found(participant, session, label, files, fodfs, parcellations)


def _with_it(image: Path, suffix: str, endings: tuple[str, ...], own: set[str]) -> list[Path]:
    """List files beside an image, in the order of endings, whose names differ in ``own`` only."""
    run = {key: value for key, value in entities_of(image).items() if key != "desc"}
    candidates = [
        path for ending in endings for path in sorted(image.parent.glob(f"*_{suffix}{ending}"))
    ]
    return [
        path
        for path in candidates
        if {key: value for key, value in entities_of(path).items() if key not in own} == run
    ]


def _table_of(parcellation: Path) -> Path:
    return parcellation.with_name(parcellation.name.partition(".")[0] + ".tsv")


def _the_one(
    derivatives: Path, setting: str, wanted: str | None, found: list[dict[str, Path]]
) -> str | None:
    """Choose the model or atlas that was asked for, or the only one; ``None`` if there is none."""
    counts = Counter(name for one in found for name in one)
    listed = ", ".join(f"{name} ({n} of {len(found)} runs)" for name, n in sorted(counts.items()))
    if wanted is None and len(counts) > 1:
        raise InputError(
            f"There are several of {_NOUNS[setting]}: {listed}.",
            where=derivatives,
            remedy=f'Choose one: {setting} = "{min(counts)}" in [pairs].',
        )
    if wanted is not None and counts and wanted not in counts:
        raise InputError(
            f"Of {_NOUNS[setting]} there is no {wanted}; there is {listed}.",
            where=derivatives,
            remedy=f"Choose one of these ({setting} in [pairs]), or leave the setting out.",
        )
    return wanted if wanted is not None else next(iter(counts), None)


def _lacks(
    one: _Found, model: str | None, atlas: str | None, *, needs_parcellation: bool
) -> list[str]:
    """List what a run would need, by the names that files have."""
    if "dwi" not in one.files:
        return ["*_desc-preproc_dwi.nii.gz"]
    names = {"bval": ".bval", "bvec": ".bvec", "mask": "*_desc-brain_mask.nii.gz"}
    lacks = [text for name, text in names.items() if name not in one.files]
    if model not in one.fodfs:
        lacks.append(f"*_model-{model or '*'}_param-fod[_label-WM]_dwimap.nii.gz")
    if needs_parcellation and atlas not in one.parcellations:
        lacks.append(f"*_atlas-{atlas or '*'}_dseg.nii.gz with its .tsv")
    return lacks


def _complete(one: _Found, model: str | None, atlas: str | None) -> TrainingRun:
    """Put a run together, with its parcellation if there is one."""
    run = TrainingRun(
        participant=one.participant,
        session=one.session,
        label=one.label,
        dwi=one.files["dwi"],
        bval=one.files["bval"],
        bvec=one.files["bvec"],
        mask=one.files["mask"],
        fodf=one.fodfs[str(model)],
        model=str(model),
    )
    if atlas is None or atlas not in one.parcellations:
        return run
    parcellation = one.parcellations[atlas]
    return replace(run, parcellation=parcellation, table=_table_of(parcellation), atlas=atlas)


def _tell(
    derivatives: Path,
    labels: list[str],
    runs: list[TrainingRun],
    lacking: dict[str, list[str]],
    *,
    all_are_wanted: bool,
) -> None:
    """Name the runs that are left out; refuse to go on without any, or without one wanted.

    Raises
    ------
    InputError
        See `find_training_runs`.
    """
    listed = "; ".join(f"{label} lacks {', '.join(what)}" for label, what in lacking.items())
    there = {run.participant for run in runs}
    without = [label for label in labels if label not in there]
    if not runs or (all_are_wanted and without):
        what = (
            "There is nothing to learn from"
            if not runs
            else f"{len(without)} of {len(labels)} participants have nothing to learn from"
        )
        raise InputError(f"{what}: {listed}.", where=derivatives, remedy=_REMEDY)
    if lacking:
        warnings.warn(
            f"{len(lacking)} of {len(lacking) + len(runs)} runs are left out: {listed}.",
            stacklevel=3,
        )
