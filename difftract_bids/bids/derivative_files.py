"""Files of a participant in other programs' derivatives, by their names."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from difftract_bids.bids.anatomy import TISSUE_LABELS, Anatomy
from difftract_bids.bids.templates import entities_of

NIFTI = (".nii.gz", ".nii")
#: Entities that tell results of one acquisition apart, and are no part of whose they are.
_OWN = {"desc", "label", "from", "to", "mode", "space", "res", "cohort"}

#: What transforms lead from besides templates.
_NO_TEMPLATES = ("T1w", "T2w", "ACPC", "anat", "orig", "fsnative")


def files_named(
    folder: Path, datatype: str, suffix: str, extensions: tuple[str, ...] = NIFTI
) -> list[Path]:
    """List a participant's files with a suffix, of all sessions and of none.

    Parameters
    ----------
    folder
        The participant's.
    datatype
        ``anat`` or ``dwi``.
    suffix, extensions
        What the names end in.
    """
    return sorted(
        path
        for pattern in (f"{datatype}/*_{suffix}.*", f"ses-*/{datatype}/*_{suffix}.*")
        for path in folder.glob(pattern)
        if path.name.partition(".")[0].endswith(f"_{suffix}")
        and "." + path.name.partition(".")[2] in extensions
    )


def of_same_source(path: Path, candidates: Collection[Path], **wanted: str | None) -> Path | None:
    """Find the file of one source with the entities wanted.

    Parameters
    ----------
    path
        A file of that source.
    candidates
        Where to look; what lies in another folder is of another source.
    **wanted
        Entities and their values; ``None`` for those that must not be there.
    """
    own = _source(path).items()
    fitting = [
        candidate
        for candidate in candidates
        if candidate.parent == path.parent
        and _source(candidate).items() <= own
        and all(entities_of(candidate).get(key) == value for key, value in wanted.items())
    ]
    return max(fitting, key=lambda candidate: len(entities_of(candidate)), default=None)


def anatomy_of(
    t1w: Path, folder: Path, *, space: str | None, targets: tuple[str, ...], origin: str
) -> Anatomy:
    """Collect what a program of fMRIPrep's family has made of a T1w.

    Parameters
    ----------
    t1w
        The preprocessed T1w.
    folder
        Of the participant.
    space
        The ``space-`` in the names of what lies on it; ``None`` if they have none.
    targets
        What the names of transforms may call it.
    origin
        Program and version.
    """
    masks = files_named(folder, "anat", "mask")
    segmented = files_named(folder, "anat", "dseg")
    tissues = files_named(folder, "anat", "probseg")
    found = {
        label: of_same_source(t1w, tissues, label=label, space=space) for label in TISSUE_LABELS
    }
    probseg = {label: path for label, path in found.items() if path is not None}
    transforms = {
        name: path
        for path in files_named(folder, "anat", "xfm", (".h5",))
        if (name := entities_of(path).get("from")) and name not in _NO_TEMPLATES
        if any(of_same_source(t1w, [path], to=target) for target in targets)
    }
    labels = [
        of_same_source(t1w, segmented, desc=desc, space=space) for desc in ("aparcaseg", "aseg")
    ]
    return Anatomy(
        t1w=t1w,
        t1w_mask=of_same_source(t1w, masks, desc="brain", space=space),
        probseg=probseg if len(probseg) == len(TISSUE_LABELS) else {},
        aparcaseg=next((path for path in labels if path is not None), None),
        from_template=dict(sorted(transforms.items())),
        origin=origin,
    )


def _source(path: Path) -> dict[str, str]:
    return {key: value for key, value in entities_of(path).items() if key not in _OWN}
