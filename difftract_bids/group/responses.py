"""Average response functions, for all participants to be fitted with."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from difftract_bids.bids.labels import LABEL
from difftract_bids.bids.records import read_record
from difftract_bids.errors import InputError
from difftract_bids.group.files import Selection

if TYPE_CHECKING:
    from difftract_bids.modelling.zonal import Response

_NAME = re.compile(f"_model-(?P<model>{LABEL})_label-(?P<tissue>{LABEL})_response\\.txt")
_Found = dict[tuple[str, str], dict[str, list[Path]]]


def find_responses(derivatives_dir: Path, selection: Selection) -> _Found:
    """List the responses of each participant, by model and tissue; files by label.

    Runs that have been begun again, and files of earlier settings, are left out.

    Parameters
    ----------
    derivatives_dir
        Derivatives of the participant level.
    selection
        Participants and sessions.
    """
    found: _Found = {}
    for path in sorted(derivatives_dir.glob("sub-*/**/*_response.txt")):
        folders = path.relative_to(derivatives_dir).parts
        label = folders[0].removeprefix("sub-")
        session = folders[1].removeprefix("ses-") if folders[1].startswith("ses-") else None
        wanted = selection.participants is None or label in selection.participants
        name = _NAME.search(path.name)
        if name and wanted and selection.has(session):
            record = read_record(derivatives_dir, path.name[: name.start()])
            relative = path.relative_to(derivatives_dir).as_posix()
            if record and (not record.fingerprint or relative in record.earlier):
                continue
            by_participant = found.setdefault((name["model"], name["tissue"]), {})
            by_participant.setdefault(label, []).append(path)
    return found


def average_group_responses(
    derivatives_dir: Path, folder: Path, selection: Selection
) -> dict[Path, int]:
    """Average the responses of the participants in a derivatives folder, by model and tissue.

    Each participant counts once, however many runs there are.

    Parameters
    ----------
    derivatives_dir
        Derivatives of the participant level.
    folder
        Where ``model-<model>_label-<tissue>_response.txt`` and its sidecar are written.
    selection
        Participants and sessions.

    Returns
    -------
    dict
        Number of participants of each file. Empty if there is no response.

    Raises
    ------
    InputError
        If shells differ between participants.
    """
    found = find_responses(derivatives_dir, selection)
    averages = {key: _average(files, *key) for key, files in sorted(found.items())}
    return {
        _write(average, derivatives_dir, folder, *key, found[key]): len(found[key])
        for key, average in averages.items()
    }


def averages_and_note(
    derivatives_dir: Path, folder: Path, selection: Selection
) -> tuple[dict[Path, int], str]:
    """Average the responses where connectomes are what matters, which do not need them.

    Parameters
    ----------
    derivatives_dir, folder, selection
        As of :func:`average_group_responses`.

    Returns
    -------
    files, note
        What that function gives, and nothing; or no files, and why.
    """
    try:
        return average_group_responses(derivatives_dir, folder, selection), ""
    except InputError as error:
        return {}, f"no average responses. {error.what} {error.remedy}".replace("\n", " ")


def _average(files: dict[str, list[Path]], model: str, tissue: str) -> Response:
    from difftract_bids.modelling.response import average_responses, read_response

    try:
        return average_responses(
            [average_responses([read_response(path) for path in own]) for own in files.values()]
        )
    except InputError as error:
        first = next(iter(files.values()))[0]
        raise InputError(
            f"The responses of {tissue} ({model}) cannot be averaged. {error.what}",
            where=error.where or f"{len(files)} participants, first {first}",
            remedy=error.remedy or "Choose participants of one acquisition (--participant-label).",
        ) from error


def _write(
    response: Response,
    derivatives_dir: Path,
    folder: Path,
    model: str,
    tissue: str,
    files: dict[str, list[Path]],
) -> Path:
    from difftract_bids.bids.fodf_sidecars import response_metadata
    from difftract_bids.bids.uris import derivative_uri
    from difftract_bids.io.atomic import write_json
    from difftract_bids.modelling.response import write_response

    path = folder / f"model-{model}_label-{tissue}_response.txt"
    sources = [file for own in files.values() for file in own]
    sidecar = {
        **response_metadata(tissue),
        "Sources": [derivative_uri(file.relative_to(derivatives_dir)) for file in sources],
        "FODFModel": model,
        "Average": "Over participants, each scaled to the mean of the group",
    }
    write_response(response, path)
    write_json(path.with_suffix(".json"), sidecar)
    return path
