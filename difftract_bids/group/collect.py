"""One pass over all participants: what is summed up, and what is written on the way."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from difftract_bids.errors import InputError
from difftract_bids.group.edge_table import EdgeTable
from difftract_bids.group.files import Run, Selection, Survey, iter_participants, survey
from difftract_bids.group.loading import LoadedRun, in_order, load_run
from difftract_bids.group.measures import rule_of
from difftract_bids.group.moments import EdgeMoments, Values, mean_of, values_of
from difftract_bids.group.nodes import Nodes
from difftract_bids.group.settings_met import SettingsMet
from difftract_bids.group.triangles import n_packed

EDGES = "edges.parquet"
#: Stands for all sessions together.
OVERALL = ""


@dataclass
class AtlasGroup:
    """What the matrices of one atlas have come to.

    Attributes
    ----------
    nodes
        All nodes.
    moments
        Statistics by measure, then by session; those of all sessions under :data:`OVERALL`.
    n_runs
        Matrices of each, by the same keys.
    settings
        What the sidecars say, by measure.
    """

    nodes: Nodes
    moments: dict[str, dict[str, EdgeMoments]] = field(default_factory=dict)
    n_runs: dict[str, dict[str, int]] = field(default_factory=dict)
    settings: dict[str, SettingsMet] = field(default_factory=dict)


@dataclass
class Group:
    """What a group has come to.

    Attributes
    ----------
    survey
        What there was, by names.
    atlases
        By name; those that a matrix could be used of.
    quality
        A row a run: participant, session and run, then measures as far as they are known.
    unread
        Files that are there and could not be read, as paths relative to the derivatives.
    not_finite
        Matrices with entries that are no finite number, by their names.
    unusable
        Matrices that are left out, with those of the same run and atlas: path relative to the
        derivatives, and why.
    several_tractograms
        Runs whose streamlines are those of one of several tractograms, nobody knows which.
    """

    survey: Survey
    atlases: dict[str, AtlasGroup]
    quality: list[dict[str, Any]] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    not_finite: list[str] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)
    several_tractograms: list[str] = field(default_factory=list)


def collect(derivatives_dir: Path, folder: Path, selection: Selection) -> Group:
    """Sum up a group, a participant at a time, and write the table of edges.

    Memory does not grow with the number of participants but by their labels and the numbers of
    the table of quality.

    Parameters
    ----------
    derivatives_dir
        Derivatives of the participant level.
    folder
        Where :data:`EDGES` is written.
    selection
        Participants and sessions.

    Raises
    ------
    InputError
        If there is no matrix that can be used, or atlases under one name are not the same.
    UsageError
        If a participant or session asked for is not there.
    """
    there = survey(derivatives_dir, selection)
    if not there.measures:
        begun = f" {begun_again(there)}" if there.unfinished else ""
        raise InputError(
            f"There are no connectomes: no sub-*/[ses-*/]dwi/*_relmat.dense.tsv.{begun}",
            where=derivatives_dir,
            remedy="Run the participant level first, or check --participant-label and "
            "--session-label.",
        )
    group = Group(there, {atlas: AtlasGroup(Nodes(atlas)) for atlas in there.measures})
    unusable: InputError | None = None
    participants = iter_participants(derivatives_dir, selection)
    runs = (run for _, those in participants for run in those)
    with EdgeTable(folder / EDGES, there.all_measures) as table:
        waiting: list[LoadedRun] = []
        for loaded in in_order(load_run, runs):
            if waiting and waiting[0].run.participant != loaded.run.participant:
                _add_participant(group, waiting, there)
                waiting = []
            waiting.append(loaded)
            _add_run(group, loaded, table, derivatives_dir)
            unusable = next(filter(None, [unusable, *loaded.unusable.values()]), None)
        if waiting:
            _add_participant(group, waiting, there)
        group.atlases = {atlas: own for atlas, own in group.atlases.items() if own.moments}
        if unusable and not group.atlases:
            raise unusable
    return group


def begun_again(there: Survey) -> str:
    """Say which runs are left out because they are not finished."""
    return (
        f"{len(there.unfinished)} run(s) have been begun again and are not finished: first "
        f"{there.unfinished[0]}. They are left out; run their participants again."
    )


def _add_run(group: Group, loaded: LoadedRun, table: EdgeTable, derivatives_dir: Path) -> None:
    run = loaded.run
    session = f"ses-{run.session}" if run.session else None
    said = {"participant_id": f"sub-{run.participant}", "session_id": session, "run": run.stem}
    group.quality.append({**said, **loaded.quality.measures})
    relative = run.folder.relative_to(derivatives_dir)
    group.unread += [(relative / name).as_posix() for name in loaded.quality.unread]
    for error in loaded.unusable.values():
        path = (relative / Path(error.where or "").name).as_posix()
        group.unusable.append(f"{path} ({error.what})")
    if len(run.tractogram_sidecars()) > 1:
        group.several_tractograms.append(run.stem)
    for atlas, connectome in loaded.connectomes.items():
        # Files that came while this runs have neither a column nor a place.
        if atlas not in group.atlases:
            continue
        table.append(run, atlas, connectome.names, connectome.triangles)
        group.not_finite += [
            run.matrices[atlas, measure].name
            for measure, triangle in connectome.triangles.items()
            if not np.isfinite(triangle).all()
        ]


def _add_participant(group: Group, runs: list[LoadedRun], there: Survey) -> None:
    """Average a participant's runs within sessions, then the sessions, and take both in."""
    for atlas, measures in there.measures.items():
        own = group.atlases[atlas]
        for measure in measures:
            placed = [
                (loaded.run, _place(own, loaded, atlas, measure))
                for loaded in runs
                if atlas in loaded.connectomes and measure in loaded.connectomes[atlas].triangles
            ]
            if placed:
                _take_in(own, measure, placed, there.shared_sessions.get(atlas, frozenset()))


def _place(own: AtlasGroup, loaded: LoadedRun, atlas: str, measure: str) -> Values:
    run, connectome = loaded.run, loaded.connectomes[atlas]
    where = run.matrices[atlas, measure]
    places = own.nodes.place(connectome.names, run.participant, run.session, where)
    settings = own.settings.setdefault(measure, SettingsMet())
    settings.add(connectome.sidecars[measure], run.stem)
    settings.compare(loaded.settings, run.stem)
    return values_of(
        connectome.triangles[measure], places, n_packed(len(own.nodes)), rule_of(measure)
    )


def _take_in(
    own: AtlasGroup,
    measure: str,
    placed: Iterable[tuple[Run, Values]],
    shared_sessions: Collection[str],
) -> None:
    n_edges = n_packed(len(own.nodes))
    by_session: dict[str | None, list[Values]] = {}
    participant = ""
    for run, values in placed:
        participant = run.participant
        by_session.setdefault(run.session, []).append(values)
    means: Mapping[str | None, Values] = {
        session: mean_of(parts, n_edges) for session, parts in by_session.items()
    }
    moments = own.moments.setdefault(measure, {})
    n_runs = own.n_runs.setdefault(measure, {})
    n_of = {OVERALL: sum(len(parts) for parts in by_session.values())}
    taken = {OVERALL: mean_of(list(means.values()), n_edges)}
    for session, mean in means.items():
        # Of sessions that nobody else has, memory would grow with the participants.
        if session is not None and session in shared_sessions:
            taken[session], n_of[session] = mean, len(by_session[session])
    for key, values in taken.items():
        moments.setdefault(key, EdgeMoments()).add(participant, values)
        n_runs[key] = n_runs.get(key, 0) + n_of[key]
