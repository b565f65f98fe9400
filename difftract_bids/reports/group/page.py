"""The page of a group: quality of all runs, connectomes, participants, and what was done."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from difftract_bids.reports.group.connectomes import atlas_items
from difftract_bids.reports.group.files import (
    GroupAtlas,
    QualityTable,
    read_atlases,
    read_quality,
    read_similarities,
)
from difftract_bids.reports.group.items import Item, filled, item
from difftract_bids.reports.group.runs import is_assessed, quality_items
from difftract_bids.reports.group.similarity import similarity_items
from difftract_bids.reports.page.summary import Notice
from difftract_bids.reports.templates import render, save_text

_FILES = (
    ("quality.tsv", "Quality measures, a row a run, with what stands apart"),
    ("quality.json", "What each of them is, its median and its limits"),
    ("edges.parquet", "All edges of all runs, a row each"),
    ("*_similarity.tsv", "Correlation of the connectome of each run with that of each other"),
    ("*_stat-mean_relmat.dense.tsv", "Mean over participants"),
    ("*_stat-sd_relmat.dense.tsv", "Standard deviation between participants"),
    ("*_stat-cv_relmat.dense.tsv", "Coefficient of variation"),
    ("*_stat-consistency_relmat.dense.tsv", "Share of participants with the edge"),
    ("*_desc-consistent_relmat.dense.tsv", "The same, edges that few participants have at 0"),
    ("*_response.txt", "Average response functions"),
)


@dataclass(frozen=True)
class GroupAbout:
    """What was run and with what.

    Attributes
    ----------
    version, command_line, started
        Program, as it was called, and when (ISO 8601).
    settings
        Settings of the group level, TOML.
    selection
        Participants and sessions that were asked for, in words; hidden if it is not given.
    software
        Name and version of each library that matters.
    notes
        What a user should know.
    """

    version: str
    command_line: str = ""
    started: str = ""
    settings: str = ""
    selection: str = ""
    software: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


def write_group_page(
    page: Path,
    *,
    matrices: Sequence[Path],
    quality: tuple[Path, Path],
    derivatives_dir: Path,
    about: GroupAbout,
    similarities: Sequence[Path] = (),
) -> Path:
    """Write the page and its figures.

    The page shows figures by relative path and nothing else: a copy of it and of
    ``group/figures`` beside it opens anywhere, without a network.

    Parameters
    ----------
    page
        HTML file to write; figures go to ``group/figures`` beside it.
    matrices
        Statistics of the connectomes, with their sidecars.
    quality
        Table of quality measures, and its dictionary.
    derivatives_dir
        Where the reports of participants are looked for, to be linked.
    about
        What was run.
    similarities
        How much runs are like each other, a table an atlas, with their sidecars.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    InputError
        If a file cannot be read.
    """
    table, atlases = read_quality(*quality), read_atlases(matrices)
    compared = read_similarities(similarities)
    figures = page.parent / "group" / "figures"
    pages = {path.name for path in derivatives_dir.glob("sub-*.html")}
    links = [_report_of(row, pages) for row in table.rows]
    sections = [
        _section("summary", "In short", [item("facts", _facts(table, atlases, about))]),
        _section("quality", "Quality of the runs", quality_items(table, links, figures)),
        _section(
            "connectomes",
            "Connectomes",
            [
                part
                for atlas, own in atlases.items()
                for part in (
                    *atlas_items(atlas, own, figures),
                    *similarity_items(atlas, compared.get(atlas), table, links, figures),
                )
            ],
            nested=True,
        ),
        _section("participants", "Participants", [item("list", _participants(table, links))]),
        _section("about", "What was done", [item("run", _about(about))]),
    ]
    html = render(
        "page.html.jinja",
        title="difftract_bids: group",
        sections=[section for section in sections if section["reportlets"]],
        header=[Markup(render("group_style.html.jinja"))],  # noqa: S704 - a template of ours
        navbar=[],
        footer=[],
    )
    return save_text(html, page)


def _section(name: str, title: str, items: list[Item], *, nested: bool = False) -> dict[str, Any]:
    return {"name": name, "title": title, "reportlets": items, "isnested": nested}


def _report_of(row: Mapping[str, str], pages: Collection[str]) -> str:
    """Find the report of a run: of its session, if there is one, or of its participant."""
    participant, session = row["participant_id"], row["session_id"]
    wanted = (f"{participant}_{session}.html", f"{participant}.html")
    return next((name for name in wanted if name in pages), "")


def _facts(table: QualityTable, atlases: Mapping[str, GroupAtlas], about: GroupAbout) -> Markup:
    participants = {row["participant_id"] for row in table.rows}
    sessions = sorted({row["session_id"] for row in table.rows} - {"n/a"})
    flagged = [row for row in table.rows if row["outliers"] not in ("none", "n/a")]
    return filled(
        "group_summary.html.jinja",
        notices=[Notice(note) for note in about.notes],
        participants=len(participants),
        runs=len(table.rows),
        sessions=[
            (name, len({r["participant_id"] for r in table.rows if r["session_id"] == name}))
            for name in sessions
        ],
        atlases={atlas: ", ".join(own.overall) for atlas, own in atlases.items()},
        flagged=len(flagged),
        assessed=is_assessed(table),
    )


def _participants(table: QualityTable, links: list[str]) -> Markup:
    found: dict[str, dict[str, Any]] = {}
    for row, link in zip(table.rows, links, strict=True):
        new = {"link": link, "runs": 0, "flags": 0, "bad": 0, "look": 0}
        entry = found.setdefault(row["participant_id"], new)
        entry["runs"] += 1
        for light in ("bad", "look"):
            number = row.get(f"checks_{light}", "n/a")
            entry[light] += 0 if number == "n/a" else round(float(number))
        entry["flags"] += row["outliers"] not in ("none", "n/a")
    several = any(entry["runs"] > 1 for entry in found.values())
    return filled("group_participants.html.jinja", participants=found, several=several)


def _about(about: GroupAbout) -> Markup:
    return filled("group_about.html.jinja", about=about, files=_FILES)
