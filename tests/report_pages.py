"""Pages made of the derivatives of one run, without running the app again."""

from __future__ import annotations

import shutil
from pathlib import Path

from difftract_bids.reports.page.assembly import assemble_report

#: Of a participant, whatever sessions it has.
_OF_ALL = ("methods", "about")


def copy_derivatives(out: Path, label: str, factor: float) -> None:
    """Give the group another participant like the first, who moved so much more."""
    for path in sorted(out.glob("sub-01*")) + sorted((out / "sub-01").rglob("*")):
        target = out / str(path.relative_to(out)).replace("sub-01", f"sub-{label}")
        if path.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    page = out / f"sub-{label}.html"
    page.write_text(page.read_text().replace("sub-01", f"sub-{label}"))
    move(out, label, factor)


def move(out: Path, label: str, factor: float) -> None:
    """Let a participant have moved so much more from volume to volume."""
    table = out / f"sub-{label}" / "dwi" / f"sub-{label}_desc-confounds_timeseries.tsv"
    header, first, *rows = (line.split("\t") for line in table.read_text().splitlines())
    column = header.index("framewise_displacement")
    for row in rows:
        row[column] = str(float(row[column]) * factor)
    table.write_text("".join("\t".join(row) + "\n" for row in (header, first, *rows)))


def copy_figures(out: Path, target: Path) -> Path:
    """Copy the figures of the participant; give the folder that they are in."""
    return shutil.copytree(out / "sub-01" / "figures", target / "sub-01" / "figures")


def page_of_two_sessions(out: Path, target: Path) -> Path:
    """Show the run twice, as if each were a session of one participant: the same figures."""
    checks = out / "sub-01" / "dwi" / "sub-01_desc-checks_quality.tsv"
    for figure in [*(out / "sub-01" / "figures").iterdir(), checks]:
        of_all = any(f"_desc-{desc}_" in figure.name for desc in _OF_ALL)
        for session in ("",) if of_all else ("ses-A", "ses-B"):
            entities = f"sub-01_{session}_" if session else "sub-01_"
            copy = target / "sub-01" / session / figure.parent.name
            copy.mkdir(parents=True, exist_ok=True)
            copy /= figure.name.replace("sub-01_", entities)
            if figure.suffix == ".html":
                copy.write_text(figure.read_text().replace("sub-01_", entities))
            else:
                shutil.copy(figure, copy)
    return assemble_report(target, "01", run_uuid="two sessions")
