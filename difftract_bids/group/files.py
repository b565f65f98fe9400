"""Runs in a folder of our derivatives, and the matrices of each, by their names alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from difftract_bids.bids.labels import LABEL, labelled_folders
from difftract_bids.bids.records import read_record
from difftract_bids.bids.runs import KEYS
from difftract_bids.config.connectome import MEASURES
from difftract_bids.errors import InputError, UsageError

# Labels hold nothing but letters, digits and +: what is made of them is safe in names of files, in
# tables and on pages.
# Stems hold the entities of runs only: an image in another space is no run of its own.
_STEM = f"(?P<stem>sub-{LABEL}(?:_(?:{'|'.join(KEYS.values())})-{LABEL})*?)"
_MATRIX = re.compile(
    f"{_STEM}_atlas-(?P<atlas>{LABEL})_meas-(?P<measure>{LABEL})_relmat\\.dense\\.tsv"
)
_WHOSE = re.compile(f"sub-{LABEL}(?:_ses-{LABEL})?")
_MASK = re.compile(f"{_STEM}_desc-brain_mask\\.nii\\.gz")
_NAMED = 12


@dataclass(frozen=True)
class Run:
    """What there is of one diffusion run.

    Attributes
    ----------
    participant
        Label, without ``sub-``.
    session
        Label, without ``ses-``; ``None`` if its name has none.
    stem
        What the names of its files begin with: ``sub-01_ses-A_run-1``.
    folder
        Where they lie.
    names
        Names of the files there, without those that its record says are of earlier settings.
    matrices
        Connectomes by atlas and measure.
    is_finished
        Not where its record says that it has been begun again, so that its files may be of two
        settings.
    """

    participant: str
    session: str | None
    stem: str
    folder: Path
    names: Collection[str]
    matrices: Mapping[tuple[str, str], Path]
    is_finished: bool = True

    @property
    def atlases(self) -> list[str]:
        """Names of the atlases that there are matrices of, sorted."""
        return sorted({atlas for atlas, _ in self.matrices})

    def file(self, ending: str) -> Path | None:
        """Find a file of the run by what its name ends in; ``None`` if it is not there."""
        name = f"{self.stem}_{ending}"
        return self.folder / name if name in self.names else None

    def tractogram_sidecars(self) -> list[Path]:
        """Find the sidecars of the streamlines, whatever model they follow.

        Of several, nobody knows which is that of the matrices.
        """
        pattern = re.compile(f"{re.escape(self.stem)}_model-{LABEL}_tractogram\\.json")
        return [self.folder / name for name in sorted(filter(pattern.fullmatch, self.names))]


@dataclass(frozen=True)
class Selection:
    """Participants and sessions that are asked for.

    Attributes
    ----------
    participants, sessions
        Labels without prefix; ``None`` for all.
    """

    participants: frozenset[str] | None = None
    sessions: frozenset[str] | None = None

    @classmethod
    def of(cls, participants: list[str] | None = None, sessions: list[str] | None = None) -> Self:
        """Take labels with or without ``sub-`` and ``ses-``; no label at all means every one."""
        return cls(
            frozenset(label.removeprefix("sub-") for label in participants or []) or None,
            frozenset(label.removeprefix("ses-") for label in sessions or []) or None,
        )

    def has(self, session: str | None) -> bool:
        """Say whether a session is wanted; where some are named, runs of none are not."""
        return self.sessions is None or session in self.sessions

    def in_words(self) -> str:
        """Say it for a report."""
        said = []
        for name, labels in (("participants", self.participants), ("sessions", self.sessions)):
            said.append(f"all {name}" if labels is None else f"{name} {', '.join(sorted(labels))}")
        return "; ".join(said)


@dataclass(frozen=True)
class Survey:
    """What there is in a folder, by names.

    Attributes
    ----------
    n_runs
        Runs of the participants and sessions that are asked for.
    measures
        Measures of each atlas, both sorted; measures as the settings list them.
    participants
        Labels of the participants that are asked for.
    without
        Those of them without a matrix of an atlas, by atlas; without any, under an empty name.
    shared_sessions
        Sessions that at least two participants have a matrix of, by atlas.
    n_alone
        Sessions that only one participant has, of any atlas.
    unfinished
        Runs that have been begun again and are left out, by their stems.
    """

    n_runs: int
    measures: Mapping[str, tuple[str, ...]]
    participants: tuple[str, ...] = ()
    without: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    shared_sessions: Mapping[str, frozenset[str]] = field(default_factory=dict)
    n_alone: int = 0
    unfinished: tuple[str, ...] = ()

    @property
    def all_measures(self) -> tuple[str, ...]:
        """Measures of any atlas."""
        return _in_order({measure for those in self.measures.values() for measure in those})


def survey(derivatives_dir: Path, selection: Selection) -> Survey:
    """Go through the names of all files once.

    Raises
    ------
    InputError, UsageError
        As :func:`participants_of`, or if a session asked for is nowhere.
    """
    _check_sessions(derivatives_dir, selection)
    n_runs, found, unfinished = 0, dict[str, set[str]](), list[str]()
    atlases_of: dict[str, frozenset[str]] = {}
    n_participants: dict[str, Counter[str]] = {}
    for participant, those in _iter_all(derivatives_dir, selection):
        runs = [run for run in those if run.is_finished]
        unfinished += [run.stem for run in those if not run.is_finished]
        n_runs += len(runs)
        for run in runs:
            for atlas, measure in run.matrices:
                found.setdefault(atlas, set()).add(measure)
        pairs = {(atlas, run.session) for run in runs for atlas in run.atlases}
        atlases_of[participant] = frozenset(atlas for atlas, _ in pairs)
        for atlas, session in pairs:
            if session is not None:
                n_participants.setdefault(atlas, Counter())[session] += 1
    shared = {
        atlas: frozenset(session for session, n in own.items() if n > 1)
        for atlas, own in n_participants.items()
    }
    sessions = {session for own in n_participants.values() for session in own}
    return Survey(
        n_runs=n_runs,
        measures={atlas: _in_order(found[atlas]) for atlas in sorted(found)},
        participants=tuple(atlases_of),
        without=_without(atlases_of, sorted(found)),
        shared_sessions=shared,
        n_alone=len(sessions.difference(*shared.values())),
        unfinished=tuple(unfinished),
    )


def _without(
    atlases_of: Mapping[str, frozenset[str]], atlases: list[str]
) -> dict[str, tuple[str, ...]]:
    """List participants without an atlas: those without any are told once."""
    lacking = {"": tuple(label for label, own in atlases_of.items() if not own)}
    for atlas in atlases:
        lacking[atlas] = tuple(
            label for label, own in atlases_of.items() if own and atlas not in own
        )
    return {atlas: labels for atlas, labels in lacking.items() if labels}


def _check_sessions(derivatives_dir: Path, selection: Selection) -> None:
    missing = set(selection.sessions or ())
    for participant in participants_of(derivatives_dir, selection) if missing else ():
        missing -= set(labelled_folders(derivatives_dir / f"sub-{participant}", "ses")[0])
    if missing:
        raise UsageError(
            f"No participant has these sessions: {', '.join(sorted(missing))}.",
            where=derivatives_dir,
            remedy="Check --session-label; a label is what follows ses- in the names.",
        )


def participants_of(derivatives_dir: Path, selection: Selection) -> list[str]:
    """List the participants that are asked for, by their folders; labels without ``sub-``.

    Raises
    ------
    InputError
        If there is no such folder.
    UsageError
        If one that is asked for is not there.
    """
    if not derivatives_dir.is_dir():
        raise InputError(
            "There is no such folder of derivatives.",
            where=derivatives_dir,
            remedy="Give the output folder of the participant level.",
        )
    present, _ = labelled_folders(derivatives_dir, "sub")
    if selection.participants is None:
        return present
    missing = sorted(selection.participants - set(present))
    if missing:
        shown = ", ".join(present[:_NAMED]) + (", ..." if len(present) > _NAMED else "")
        raise UsageError(
            f"{len(missing)} of {len(selection.participants)} participants are not in the "
            f"derivatives: {', '.join(missing)}.",
            where=derivatives_dir,
            remedy=f"Present are: {shown or 'none'}.",
        )
    return sorted(selection.participants)


def iter_participants(
    derivatives_dir: Path, selection: Selection
) -> Iterator[tuple[str, tuple[Run, ...]]]:
    """Give participants one by one, each with its runs sorted by session and name.

    Runs that have been begun again and are not finished are left out.

    Folders are read when they are come to, so that nothing is kept of those that are done.

    Raises
    ------
    InputError, UsageError
        As :func:`participants_of`, or if a folder cannot be read, or a file lies in that of
        another participant or session.
    """
    for participant, runs in _iter_all(derivatives_dir, selection):
        yield participant, tuple(run for run in runs if run.is_finished)


def _iter_all(
    derivatives_dir: Path, selection: Selection
) -> Iterator[tuple[str, tuple[Run, ...]]]:
    for participant in participants_of(derivatives_dir, selection):
        folder = derivatives_dir / f"sub-{participant}"
        try:
            runs = _runs_of(folder, participant, selection)
        except OSError as error:
            raise InputError(
                f"The folder cannot be read: {error.strerror or error}.",
                where=error.filename or folder,
                remedy="Check its permissions, or leave the participant out.",
            ) from error
        yield participant, tuple(runs)


def _runs_of(folder: Path, participant: str, selection: Selection) -> list[Run]:
    sessions: list[str | None] = [None, *labelled_folders(folder, "ses")[0]]
    runs: list[Run] = []
    for session in filter(selection.has, sessions):
        own = folder if session is None else folder / f"ses-{session}"
        runs += _runs(own / "dwi", participant, session, folder.parent)
    return runs


def _runs(folder: Path, participant: str, session: str | None, derivatives: Path) -> list[Run]:
    matrices: dict[str, dict[tuple[str, str], Path]] = {}
    names = frozenset(entry.name for entry in folder.iterdir()) if folder.is_dir() else ()
    for name in sorted(names):
        if matrix := _MATRIX.fullmatch(name):
            own = matrices.setdefault(matrix["stem"], {})
            own[matrix["atlas"], matrix["measure"]] = folder / name
        elif mask := _MASK.fullmatch(name):
            matrices.setdefault(mask["stem"], {})
    begin = f"sub-{participant}" + (f"_ses-{session}" if session else "")
    for stem in matrices:
        whose = _WHOSE.match(stem)
        if whose is None or whose[0] != begin:
            raise InputError(
                "A file lies in the folder of another participant or session: whose it is cannot "
                "be told.",
                where=folder / f"{stem}_*",
                remedy=f"Names there begin with {begin}: move or remove the file.",
            )
    return [
        _as_recorded(Run(participant, session, stem, folder, names, matrices[stem]), derivatives)
        for stem in sorted(matrices)
    ]


def _as_recorded(run: Run, derivatives_dir: Path) -> Run:
    """Leave out what the record of a run says is of earlier settings; without one, nothing."""
    record = read_record(derivatives_dir, run.stem)
    if record is None:
        return run
    place = run.folder.relative_to(derivatives_dir)
    earlier = {Path(path).name for path in record.earlier if Path(path).parent == place}
    sidecars = {path.name for path in run.tractogram_sidecars()} - earlier
    current = {name for name in sidecars if (place / name).as_posix() in record.outputs}
    if len(sidecars) > 1 and current:
        earlier |= sidecars - current
    if earlier:
        matrices = {key: path for key, path in run.matrices.items() if path.name not in earlier}
        run = replace(run, names=frozenset(run.names) - earlier, matrices=matrices)
    return replace(run, is_finished=bool(record.fingerprint))


def _in_order(measures: set[str]) -> tuple[str, ...]:
    known = [measure for measure in MEASURES if measure in measures]
    return (*known, *sorted(measures - set(MEASURES)))
