"""From derivatives of participants to the statistics of a group, files in and files out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from difftract_bids.bids.sidecars import relmat_metadata
from difftract_bids.config import ConnectomeConfig
from difftract_bids.group.collect import EDGES, Group, begun_again, collect
from difftract_bids.group.files import Selection, Survey
from difftract_bids.group.measures import rule_of
from difftract_bids.group.quality_table import write_runs
from difftract_bids.group.statistics_files import write_statistics
from difftract_bids.io.aside import explained
from difftract_bids.io.atomic import write_json

_NAMED, _NAMED_LABELS = 3, 12
_KEYS = {
    "participant_id": "Participant",
    "session_id": "Session; null where there are none",
    "run": "What the names of the run's files begin with",
    "atlas": "Atlas",
    "node_1": "Node; the earlier one in the matrix",
    "node_2": "Node; the same for an edge of a node with itself",
}


@dataclass(frozen=True)
class Summary:
    """What was made of a group.

    Attributes
    ----------
    matrices
        Statistics of the connectomes.
    edges
        Table of all edges of all runs, Parquet.
    edges_dictionary
        Its data dictionary, JSON.
    runs
        Measures of all runs, not yet compared.
    n_participants, n_runs
        Of whom there was a run.
    notes
        What a user should know.
    """

    matrices: list[Path]
    edges: Path
    edges_dictionary: Path
    runs: Path
    n_participants: int
    n_runs: int
    notes: list[str]


def summarise(derivatives_dir: Path, folder: Path, selection: Selection) -> Summary:
    """Go through all participants once: statistics of edges, the table of them, and quality.

    Parameters
    ----------
    derivatives_dir
        Derivatives of the participant level.
    folder
        Where files are written.
    selection
        Participants and sessions.

    Raises
    ------
    InputError
        If there is no matrix that can be used, or atlases under one name are not the same.
    UsageError
        If a participant or session asked for is not there.
    DifftractError
        If a file cannot be written.
    """
    group = collect(derivatives_dir, folder, selection)
    dictionary = folder / "edges.json"
    with explained(folder):
        write_json(dictionary, _edges_dictionary(group))
        matrices = write_statistics(group, folder)
        runs = write_runs(group.quality, list(group.atlases), folder / "runs.tsv")
    return Summary(
        matrices=matrices,
        edges=folder / EDGES,
        edges_dictionary=dictionary,
        runs=runs,
        n_participants=len({row["participant_id"] for row in group.quality}),
        n_runs=len(group.quality),
        notes=_notes(group),
    )


def _edges_dictionary(group: Group) -> dict[str, Any]:
    said: dict[str, Any] = {
        "Description": "Edges of all connectomes: a row for each pair of nodes of each run and "
        "atlas, a node with itself included",
        **{name: {"Description": text} for name, text in _KEYS.items()},
    }
    for measure in group.survey.all_measures:
        known = relmat_metadata(measure, ConnectomeConfig(), n_nodes=0)
        missing = "null where the run has no such matrix"
        if not rule_of(measure).zero_is_a_value:
            missing += ", and where the edge has no streamline"
        # What the first matrix says, which knows of weights; else what it is by its name.
        met = [
            own.settings[measure].first
            for own in group.atlases.values()
            if measure in own.settings
        ]
        known |= next(filter(None, met), {})
        said[measure] = {
            "Description": f"{known['MeasureDescription']}; {missing}",
            "Units": known["Units"],
        }
    return said


def _notes(group: Group) -> list[str]:
    notes = _who(group.survey)
    if group.unusable:
        notes.append(
            f"{len(group.unusable)} matrix file(s) cannot be used, and all of the same run and "
            f"atlas are left out: {_some(group.unusable)}"
        )
    for atlas, own in group.atlases.items():
        lacking = own.nodes.lacking()
        if lacking:
            first = next(iter(lacking))
            notes.append(
                f"{len(lacking)} participant(s) lack nodes of {atlas} that others have, first "
                f"sub-{first}: {_some(lacking[first])}. Edges of these nodes are averaged over "
                "the participants that have them; MissingNodes in the sidecars names all."
            )
        met: dict[str, list[str]] = {}
        for measure, settings in own.settings.items():
            for name, variants in settings.differences().items():
                firsts = " and ".join(list(variants.values())[:2])
                met.setdefault(f"{name} (first {firsts})", []).append(measure)
        for said, measures in met.items():
            notes.append(
                f"Matrices of {atlas} were made with different settings, {said}, for "
                f"{', '.join(measures)}: they are averaged as they are. DifferentSettings in the "
                "sidecars tells all; choose participants of one setting (--participant-label)."
            )
    if group.not_finite:
        notes.append(
            f"{len(group.not_finite)} matrices have entries that are no finite number, which are "
            f"left out: {_some(group.not_finite)}."
        )
    if group.unread:
        notes.append(
            f"{len(group.unread)} file(s) could not be read, and their quality measures are n/a: "
            f"{_some(group.unread)}."
        )
    if group.several_tractograms:
        notes.append(
            f"{len(group.several_tractograms)} run(s) have tractograms of several models, and "
            f"none knows which is that of the matrices: {_some(group.several_tractograms)}. Their "
            "quality measures of streamlines are n/a."
        )
    return notes


def _who(there: Survey) -> list[str]:
    """Say whom and what there is nothing of."""
    notes = [begun_again(there)] if there.unfinished else []
    for atlas, labels in there.without.items():
        of = f" of atlas {atlas}" if atlas else ""
        notes.append(
            f"{len(labels)} of {len(there.participants)} participants have no connectome{of}: "
            f"{_some(list(labels), _NAMED_LABELS)}."
        )
    if there.n_alone:
        notes.append(
            f"{there.n_alone} session(s) that only one participant has have no statistics of "
            "their own; they count in those of all sessions."
        )
    return notes


def _some(names: list[str], most: int = _NAMED) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
