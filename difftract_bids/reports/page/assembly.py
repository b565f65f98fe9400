"""One HTML page per participant, made by NiReports from the pictures of a run."""

from __future__ import annotations

import json
import logging
import re
import shutil
import tempfile
from collections.abc import Collection
from importlib.resources import as_file, files
from pathlib import Path

from nireports.assembler.report import Report

from difftract_bids.errors import InputError
from difftract_bids.io.atomic import write_text_atomic
from difftract_bids.reports.page.overview import overview_html
from difftract_bids.reports.page.picture_sizes import with_picture_sizes
from difftract_bids.reports.page.scripts import page_scripts
from difftract_bids.reports.placeholder import reason_of
from difftract_bids.reports.templates import PAGE, SPEC, render

_LOG = logging.getLogger("nipype.interface")

#: Where in the page the overview goes.
_OVERVIEW = "<!-- overview -->"


def assemble_report(
    out_dir: Path,
    participant: str,
    *,
    run_uuid: str,
    session: str | None = None,
    figures: Collection[str] | None = None,
) -> Path:
    """Put the figures of a participant (or of one session) together into one page.

    The page links its pictures by relative path and nothing else: a copy of the page and of the
    participant's ``figures`` folders opens anywhere, without a network.

    Parameters
    ----------
    out_dir
        Derivatives folder; pictures are looked for in ``sub-XX/[ses-YY/]figures``.
    participant
        Label, with or without ``sub-``.
    run_uuid
        Identifier of the run.
    session
        Label, with or without ``ses-``: a page for this session alone.
    figures
        File names to show; others, left by an earlier run with other atlases, are not shown.
        Default: all that are there.

    Returns
    -------
    Path
        ``out_dir/sub-XX[_ses-YY].html``.

    Raises
    ------
    InputError
        If there are no pictures of this participant.
    """
    out_dir = Path(out_dir).resolve()
    subject = f"sub-{participant.removeprefix('sub-')}"
    filters = {"subject": subject}
    stem = subject
    if session is not None:
        filters["session"] = session.removeprefix("ses-")
        stem = f"{subject}_ses-{filters['session']}"
    folders = sorted(
        folder.relative_to(out_dir)
        for pattern in ("figures", "ses-*/figures")
        for folder in (out_dir / subject).glob(pattern)
    )
    if not folders:
        raise InputError(
            f"There are no figures of {subject}.",
            where=out_dir / subject,
            remedy="Run the participant level first; --reports-only needs its figures folder.",
        )
    page, title = out_dir / f"{stem}.html", stem.replace("_", ", ")
    try:
        html = _page(out_dir, folders, figures, run_uuid, filters, title)
    except Exception as error:  # noqa: BLE001 - results are worth more than the page about them
        _LOG.warning("The report %s could not be put together.", page.name, exc_info=True)
        own = [
            one for one in folders if session is None or f"ses-{filters['session']}" in one.parts
        ]
        html = _plain_page(out_dir, own, figures, title, error)
    write_text_atomic(page, html)
    return page


def _page(
    out_dir: Path,
    folders: list[Path],
    figures: Collection[str] | None,
    run_uuid: str,
    filters: dict[str, str],
    title: str,
) -> str:
    """Let NiReports put the page together, and add what it does not know."""
    with tempfile.TemporaryDirectory(prefix="report") as name:
        stage = _stage(Path(name), out_dir, folders, figures)
        assembled = stage / "page.html"
        _assemble(stage, assembled, run_uuid, filters, title=title)
        html = with_picture_sizes(assembled.read_text(encoding="utf-8"), stage)
    overview = overview_html(out_dir, filters["subject"], filters.get("session"), shown=figures)
    html = html.replace(_OVERVIEW, overview)
    # At the end: the page is there to be read while the viewer's script is taken in.
    return html.replace("</body>", f"{page_scripts(html)}</body>")


def _plain_page(
    out_dir: Path,
    folders: list[Path],
    figures: Collection[str] | None,
    title: str,
    error: Exception,
) -> str:
    """Say that the page could not be made, why, and where the figures are."""
    names = [
        str(folder / figure.name)
        for folder in folders
        for figure in sorted((out_dir / folder).iterdir())
        if figures is None or figure.name in figures
    ]
    return render("plain_page.html.jinja", title=title, reason=reason_of(error), figures=names)


def _stage(
    stage: Path, out_dir: Path, folders: list[Path], figures: Collection[str] | None
) -> Path:
    """Show NiReports nothing but the figures, at a path that says nothing.

    Its index reads entities from the absolute path, so that below a folder called ``dwi`` or
    ``sub-study`` it would find no figure at all; and it would walk over every derivative.
    """
    for folder in folders:
        (stage / folder).mkdir(parents=True, exist_ok=True)
        for figure in (out_dir / folder).iterdir():
            if figures is None or figure.name in figures:
                _copy(figure, stage / folder / figure.name)
    return stage


def _copy(figure: Path, target: Path) -> None:
    """Copy a figure; a part that goes into the page gets the name by which links find it."""
    if figure.suffix != ".html":
        shutil.copyfile(figure, target)
        return
    content = figure.read_text(encoding="utf-8")
    # Sessions that share a T1w have the same flicker: each its own buttons.
    content = re.sub(r'(?<=")flicker-(?=[0-9a-f]{12}["-])', f"{figure.stem}-flicker-", content)
    target.write_text(f'<div id="{figure.stem}">\n{content}\n</div>\n', encoding="utf-8")


def _assemble(
    stage: Path, page: Path, run_uuid: str, filters: dict[str, str], *, title: str
) -> None:
    data = files("difftract_bids.data")
    with as_file(data / PAGE) as template, as_file(data / SPEC) as spec:
        Report(
            stage,
            run_uuid,
            bootstrap_file=spec,
            out_filename=str(page),
            # JSON strings are YAML strings, whatever characters the path has.
            metadata={
                "report_title": json.dumps(f"difftract_bids: {title}"),
                "page_template": json.dumps(str(template)),
            },
            **filters,
        ).generate_report()
