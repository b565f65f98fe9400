"""The group level: average response functions, for all participants to be fitted with."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from difftract_bids.errors import InputError

if TYPE_CHECKING:
    from difftract_bids.modelling.zonal import Response

_NAME = re.compile(r"_model-(?P<model>\w+)_label-(?P<tissue>\w+)_response\.txt$")


def average_group(output_dir: Path, participants: list[str] | None = None) -> list[str]:
    """Average the responses of the participants in a derivatives folder, by model and tissue.

    Writes ``group/model-<model>_label-<tissue>_response.txt`` there, with sidecars. Each
    participant counts once, however many runs there are.

    Parameters
    ----------
    output_dir
        Derivatives folder of participant runs.
    participants
        Labels, with or without prefix; all when ``None``.

    Returns
    -------
    list of str
        What was done, a line each.

    Raises
    ------
    InputError
        If there is no response, or shells differ between participants.
    """
    found = _responses(output_dir, participants)
    if not found:
        raise InputError(
            "There are no response functions to average: no sub-*/**/*_response.txt.",
            where=output_dir,
            remedy="Run the participant level first, without --response and --input-fodf.",
        )
    done = []
    for (model, tissue), files in sorted(found.items()):
        average = _average(files, model, tissue)
        path = _write(
            average, output_dir, model, tissue, [p for own in files.values() for p in own]
        )
        done.append(f"{model}, {tissue}: average of {len(files)} participant(s) in {path}")
    done.append(f"Use them: participant --response {output_dir / 'group'}")
    return done


def _responses(
    output_dir: Path, participants: list[str] | None
) -> dict[tuple[str, str], dict[str, list[Path]]]:
    """List the files of each participant, by model and tissue."""
    wanted = {label.removeprefix("sub-") for label in participants or []}
    found: dict[tuple[str, str], dict[str, list[Path]]] = {}
    for path in sorted(output_dir.glob("sub-*/**/*_response.txt")):
        label = path.relative_to(output_dir).parts[0].removeprefix("sub-")
        name = _NAME.search(path.name)
        if name and (not wanted or label in wanted):
            by_participant = found.setdefault((name["model"], name["tissue"]), {})
            by_participant.setdefault(label, []).append(path)
    return found


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
    response: Response, output_dir: Path, model: str, tissue: str, files: list[Path]
) -> Path:
    from difftract_bids.bids.describe import write_json
    from difftract_bids.bids.fodf_sidecars import response_metadata
    from difftract_bids.bids.uris import derivative_uri
    from difftract_bids.modelling.response import write_response

    folder = output_dir / "group"
    folder.mkdir(exist_ok=True)
    path = folder / f"model-{model}_label-{tissue}_response.txt"
    sidecar = {
        **response_metadata(tissue),
        "Sources": [derivative_uri(file.relative_to(output_dir)) for file in files],
        "FODFModel": model,
        "Average": "Over participants, each scaled to the mean of the group",
    }
    write_response(response, path)
    write_json(path.with_suffix(".json"), sidecar)
    return path
