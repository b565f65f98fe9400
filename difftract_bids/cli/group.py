"""The group level: what participants have in common, in one process and without a graph."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from difftract_bids.cli.provenance import command_line
from difftract_bids.errors import InputError

if TYPE_CHECKING:
    from difftract_bids.config import GroupConfig
    from difftract_bids.group.files import Selection

#: Libraries that computed something, by the names of their distributions.
_SOFTWARE = ("matplotlib", "nibabel", "numpy", "pyarrow", "scipy")


def run_group(
    output_dir: Path,
    config: GroupConfig,
    participants: list[str] | None,
    sessions: list[str] | None,
    *,
    work_dir: Path,
) -> list[str]:
    """Make statistics, tables, report and average responses of the participants in a folder.

    All is written to ``group/`` and ``group.html`` there, each file whole; runs at the same time
    take turns.

    Parameters
    ----------
    output_dir
        Derivatives folder of participant runs.
    config
        Settings.
    participants, sessions
        Labels, with or without prefix; all when ``None``.
    work_dir
        Where files are until they are whole; made if need be.

    Returns
    -------
    list of str
        What was done, a line each.

    Raises
    ------
    InputError
        If there is neither a connectome nor a response, or one cannot be used.
    UsageError
        If a participant or session is not there.
    """
    from difftract_bids.group.collect import begun_again
    from difftract_bids.group.files import Selection, survey
    from difftract_bids.group.publish import GROUP, publish
    from difftract_bids.group.responses import find_responses
    from difftract_bids.io.aside import explained

    started = datetime.now(UTC)
    selection = Selection.of(participants, sessions)
    there = survey(output_dir, selection)
    responses = find_responses(output_dir, selection)
    if not there.measures and not responses:
        begun = f" {begun_again(there)}" if there.unfinished else ""
        raise InputError(
            "There is nothing to sum up: no connectomes (sub-*/**/*_relmat.dense.tsv) and no "
            f"response functions (sub-*/**/*_response.txt).{begun}",
            where=output_dir,
            remedy="Run the participant level first, or check --participant-label and "
            "--session-label.",
        )
    with explained(work_dir):
        work_dir.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(prefix="group_", dir=work_dir)
    with scratch as name:
        folder = Path(name) / GROUP
        folder.mkdir()
        lines = []
        if there.measures:
            lines += _sum_up(output_dir, folder, selection, config, started)
        else:
            lines.append(
                "NOTE: There are no connectomes (sub-*/**/*_relmat.dense.tsv): no statistics, no "
                "tables and no report."
            )
        if responses:
            lines += _average(output_dir, folder, selection, alone=not there.measures)
        publish(Path(name), output_dir)
    return lines


def _average(output_dir: Path, folder: Path, selection: Selection, *, alone: bool) -> list[str]:
    from difftract_bids.group.responses import average_group_responses, averages_and_note

    final, note = output_dir / folder.name, ""
    if alone:
        done = average_group_responses(output_dir, folder, selection)
    else:
        done, note = averages_and_note(output_dir, folder, selection)
    if note:
        return [f"WARNING: {note}"]
    lines = []
    for path, n in done.items():
        model, tissue = (part.partition("-")[2] for part in path.stem.split("_")[:2])
        lines.append(f"{model}, {tissue}: average of {n} participant(s) in {final / path.name}")
    return [*lines, f"Use them: participant --response {final}"]


def _sum_up(
    output_dir: Path,
    folder: Path,
    selection: Selection,
    config: GroupConfig,
    started: datetime,
) -> list[str]:
    from difftract_bids import __version__
    from difftract_bids.config.toml import write_tables
    from difftract_bids.group.between_runs import compare_runs
    from difftract_bids.group.publish import PAGE
    from difftract_bids.group.quality_table import assess_quality
    from difftract_bids.group.statistics_files import threshold_by_consistency
    from difftract_bids.group.summarise import summarise
    from difftract_bids.io.aside import explained
    from difftract_bids.reports.group.page import GroupAbout, write_group_page

    summary = summarise(output_dir, folder, selection)
    quality = assess_quality(summary.runs, summary.edges, config.outlier_threshold, folder)
    summary.runs.unlink()
    similarities, left_out = compare_runs(summary.edges, folder)
    notes = [*summary.notes, *left_out]
    matrices = summary.matrices
    if config.consistency_threshold is not None:
        with explained(folder):
            matrices = matrices + threshold_by_consistency(
                matrices, config.consistency_threshold, folder
            )
    about = GroupAbout(
        version=__version__,
        command_line=command_line(),
        started=started.isoformat(timespec="seconds"),
        settings=write_tables(config),
        selection=selection.in_words(),
        software={name: version(name) for name in _SOFTWARE},
        notes=notes,
    )
    with explained(folder):
        write_group_page(
            folder.parent / PAGE,
            matrices=matrices,
            quality=quality,
            similarities=similarities,
            derivatives_dir=output_dir,
            about=about,
        )
    final = output_dir / folder.name
    whose = f"{summary.n_participants} participant(s), {summary.n_runs} run(s)"
    return [
        *(f"WARNING: {note}" for note in notes),
        f"{len(matrices)} matrices of {whose} in {final}",
        f"All edges: {final / summary.edges.name}. Quality: {final / quality[0].name}",
        f"Report: {output_dir / PAGE}",
    ]
