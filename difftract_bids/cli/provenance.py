"""What the report says of a run as a whole: program, command line, inputs, settings, methods."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from difftract_bids.cli.parser import PROGRAM

if TYPE_CHECKING:
    from difftract_bids.bids.plan import Plan

#: Libraries that computed something, by the names of their distributions.
_SOFTWARE = (
    "dipy", "nibabel", "nipype", "nireports", "niworkflows", "numba", "numpy", "pybids",
    "scipy", "SimpleITK", "torch", "trx-python",
)  # fmt: skip


def software_versions() -> dict[str, str]:
    """Tell the versions of the libraries that compute."""
    return {name: version(name) for name in _SOFTWARE}


def command_line() -> str:
    """Give the command as it can be given again, however it was started."""
    program = Path(sys.argv[0]).name
    return shlex.join([PROGRAM if program == "__main__.py" else program, *sys.argv[1:]])


def write_provenance(
    plan: Plan, participant: str, *, run_uuid: str, methods: str | None = None
) -> None:
    """Write the report's snippets on a participant's run, before it starts.

    Parameters
    ----------
    plan
        What is being done.
    participant
        Label, without the ``sub-``.
    run_uuid
        Identifier of the run, the name of its folder of logs.
    methods
        Paragraphs of the workflow; what an earlier run wrote is kept, if left out.
    """
    from difftract_bids import __version__
    from difftract_bids.bids.pages import report_sessions, snippet_path
    from difftract_bids.bids.uris import input_uri
    from difftract_bids.reports.page.about import About, write_about_html
    from difftract_bids.reports.page.methods import write_methods

    about = About(
        version=__version__,
        command_line=command_line(),
        run_uuid=run_uuid,
        config=plan.config,
        inputs=[],
        software=software_versions(),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    for session in report_sessions(plan, participant):
        runs = [run for run in plan.of(participant) if session in (None, run.session)]
        files = {path for run in runs for path in run.files}
        about = replace(about, inputs=sorted(input_uri(path, plan.datasets) for path in files))
        write_about_html(about, plan.output_dir / snippet_path("about", participant, session))
        if methods is not None:
            write_methods(methods, plan.output_dir / snippet_path("methods", participant, session))


def write_failure(plan: Plan, participant: str, reason: str | None) -> None:
    """Say at the top of a participant's report that the run failed, or take that back.

    Parameters
    ----------
    plan, participant
        What was done.
    reason
        Why it failed; ``None`` if it did not.
    """
    from difftract_bids.bids.pages import report_sessions, snippet_path
    from difftract_bids.reports.page.about import write_failure_html

    for session in report_sessions(plan, participant):
        path = plan.output_dir / snippet_path("failure", participant, session)
        if reason is None:
            path.unlink(missing_ok=True)
        else:
            write_failure_html(reason, path)
