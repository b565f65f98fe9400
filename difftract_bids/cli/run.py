"""``difftract-bids``: plan, run, check what was promised, and say how it went by the exit code."""

from __future__ import annotations

import multiprocessing
import os
import re
import shlex
import shutil
import sys
import time
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from difftract_bids.cli.compiled import keep_compiled
from difftract_bids.cli.group import average_group
from difftract_bids.cli.parser import build_parser, settings_from
from difftract_bids.cli.progress import Bars, Progress
from difftract_bids.cli.provenance import write_failure, write_provenance
from difftract_bids.errors import DifftractError

if TYPE_CHECKING:
    import argparse

    from difftract_bids.bids.plan import Plan, Resources
    from difftract_bids.bids.runs import DWIRun

#: Exit codes: everything done; a participant failed or an output is missing; unusable input.
DONE, FAILED, UNUSABLE = 0, 1, 2
#: Parts of a participant's report that are no figures of a run.
_PAGES = ("about", "failure", "methods")
#: The line of a traceback that names the error.
_ERROR = re.compile(r"[\w.]*(?:Error|Exception|Interrupt)\b")


def main(argv: list[str] | None = None) -> int:
    """Run the BIDS App.

    Parameters
    ----------
    argv
        Arguments; those of the process when ``None``.

    Returns
    -------
    int
        0 all done, 1 a participant failed or an expected output is missing, 2 arguments or inputs
        are unusable (found before anything long starts).
    """
    # Forked workers hang once the parent has run a torch operation.
    multiprocessing.set_start_method("forkserver", force=True)
    try:
        arguments = build_parser().parse_args(argv)
        if arguments.analysis_level == "group":
            for line in average_group(arguments.output_dir, arguments.participant_label):
                _say(line)
            return DONE
        config = settings_from(arguments)
        plan, resources = _plan(arguments, config)
    except DifftractError as error:
        print(f"difftract-bids: error: {error}", file=sys.stderr)
        return UNUSABLE
    return execute(plan, resources, arguments)


def execute(plan: Plan, resources: Resources, arguments: argparse.Namespace) -> int:
    """Carry out a plan and say on the terminal what became of each participant."""
    started = time.monotonic()
    logs = _log_folder(plan)
    _say(
        f"{len(plan.participants)} participant(s), {len(plan.runs)} diffusion run(s), "
        f"atlases: {', '.join(atlas.name for atlas in plan.atlases)}; "
        f"{resources.n_procs} CPU(s), {resources.omp_nthreads} a step. Log: {logs}"
    )
    for line in _models(plan):
        _say(line)
    failures = {} if arguments.reports_only else _run_workflow(plan, resources, logs, arguments)
    failures |= {label: str(error) for label, error in plan.unusable.items()}
    failures = _finish(plan, logs) | failures
    minutes = (time.monotonic() - started) / 60
    participants = sorted({*plan.participants, *plan.unusable})
    for participant in participants:
        if participant in failures:
            _say(f"sub-{participant}: FAILED. {failures[participant]}")
        else:
            _say(f"sub-{participant}: done. Report: {plan.output_dir / f'sub-{participant}.html'}")
    n_done = len(participants) - len(failures)
    _say(f"{n_done} done, {len(failures)} failed in {minutes:.1f} min.")
    if failures:
        return FAILED
    if arguments.clean_workdir and not arguments.reports_only:
        # Nothing but what this program made: the folder may hold other people's work.
        shutil.rmtree(plan.scratch_dir, ignore_errors=True)
    return DONE


def _models(plan: Plan) -> list[str]:
    """Say which fODF models the runs get, a line each, why the first run does, and what of it."""
    by_model: dict[str, list[DWIRun]] = {}
    for run in plan.runs:
        by_model.setdefault(run.fodf_model.name, []).append(run)
    lines = [
        f"fODF model {name} for {len(runs)} run(s), first {runs[0].stem}: "
        f"{runs[0].fodf_model.reason}."
        for name, runs in by_model.items()
    ]
    by_note: dict[str, list[DWIRun]] = {}
    for run in plan.runs:
        for note in (*run.notes, *run.fodf_model.notes):
            by_note.setdefault(note, []).append(run)
    return lines + [
        f"WARNING: {note} ({len(runs)} run(s), first {runs[0].stem})"
        for note, runs in by_note.items()
    ]


def _plan(arguments: argparse.Namespace, config: Any) -> tuple[Plan, Resources]:  # noqa: ANN401
    from difftract_bids.bids.plan import Resources, make_plan, share_cpus
    from difftract_bids.cli.learned import network_check

    work_dir = arguments.work_dir or Path("work")
    plan = make_plan(
        arguments.bids_dir,
        arguments.output_dir,
        work_dir,
        config,
        participants=arguments.participant_label,
        sessions=arguments.session_label,
        check_network=network_check(config.fodf),
    )
    n_procs, omp_nthreads = share_cpus(len(plan.runs), arguments.nprocs, arguments.omp_nthreads)
    mem_gb = arguments.mem_mb / 1024 if arguments.mem_mb else None
    return plan, Resources(n_procs, omp_nthreads, mem_gb)


def _log_folder(plan: Plan) -> Path:
    """Make a folder of this run's own, so that parallel runs do not mix their logs."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    folder = plan.output_dir / "logs" / f"{stamp}_{uuid.uuid4().hex[:8]}"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(plan.config.to_toml(), encoding="utf-8")
    (folder / "command.txt").write_text(shlex.join(sys.argv) + "\n", encoding="utf-8")
    return folder


def _run_workflow(
    plan: Plan, resources: Resources, logs: Path, arguments: argparse.Namespace
) -> dict[str, str]:
    """Run the graph; say why each participant failed whose steps did not all end well."""
    _configure_nipype(logs, arguments)
    keep_compiled(plan.scratch_dir)
    from difftract_bids.bids.describe import describe_dataset
    from difftract_bids.cli.plugin import SafeMultiProcPlugin
    from difftract_bids.reports.methods import methods_markdown
    from difftract_bids.workflows.app import init_difftract_wf

    workflow = init_difftract_wf(plan, omp_nthreads=resources.omp_nthreads)
    methods = workflow.visit_desc()
    describe_dataset(
        plan.output_dir,
        raw_dir=plan.bids_dir,
        atlases=plan.atlases,
        citation=methods_markdown(methods),
        derivatives={one.name: one.path for one in plan.derivatives},
    )
    plugin_args: dict[str, Any] = {
        "n_procs": resources.n_procs,
        "mp_context": "forkserver",
        "status_callback": Progress(verbose=arguments.verbose > 0),
    }
    if resources.mem_gb is not None:
        plugin_args["memory_gb"] = resources.mem_gb
    failures: dict[str, str] = {}
    try:
        with Bars(plan.scratch_dir):
            workflow.run(plugin=SafeMultiProcPlugin(plugin_args=plugin_args))
    except Exception as error:  # noqa: BLE001
        # Nipype raises once every step that could run has run; the crash files say whose failed.
        # Without any, nothing is known to have gone well.
        failures = _crashes(plan, logs) or dict.fromkeys(plan.participants, f"Reason: {error}")
    for participant in plan.participants:
        write_provenance(plan, participant, run_uuid=logs.name, methods=methods)
        write_failure(plan, participant, failures.get(participant))
    return failures


def _configure_nipype(logs: Path, arguments: argparse.Namespace) -> None:
    """Set Nipype up through a file of this run's own, which worker processes read as well.

    It must happen before Nipype is imported, and keeps it from looking for one in HOME, which a
    container may not have.
    """
    level = {0: "WARNING", 1: "INFO"}.get(arguments.verbose, "DEBUG")
    crashes = str(logs).replace("%", "%%")  # configparser's own sign
    lines = [
        "[logging]",
        *(f"{name}_level = {level}" for name in ("workflow", "interface", "utils")),
        "[execution]",
        f"crashdump_dir = {crashes}",
        "crashfile_format = txt",
        f"stop_on_first_crash = {str(arguments.stop_on_first_crash).lower()}",
        # Nipype looks every 2 s by default, which is most of the time of a run of short steps.
        "poll_sleep_duration = 0.2",
        "check_version = false",
        "parameterize_dirs = false",
    ]
    (logs / "nipype.cfg").write_text("\n".join(lines) + "\n", encoding="utf-8")
    os.environ["NIPYPE_CONFIG_DIR"] = str(logs)


def _finish(plan: Plan, logs: Path) -> dict[str, str]:
    """Assemble the reports, and say of each participant what was promised and is missing."""
    from difftract_bids.bids.promises import missing_outputs
    from difftract_bids.reports.assembly import assemble_report

    failures = {}
    for participant in plan.participants:
        promised = {path for run in plan.of(participant) for path in plan.promised(run)}
        figures = {Path(path).name for path in promised if "/figures/" in path}
        figures |= {f"sub-{participant}_desc-{desc}_dwi.html" for desc in _PAGES}
        with suppress(DifftractError):  # without figures there is no page, which is missed below
            assemble_report(plan.output_dir, participant, run_uuid=logs.name, figures=figures)
        missing = missing_outputs(plan.output_dir, promised)
        if missing:
            failures[participant] = (
                f"{len(missing)} promised output(s) missing, first: {missing[0]}. See {logs}."
            )
    return failures


def _crashes(plan: Plan, logs: Path) -> dict[str, str]:
    """Say of each participant with a crash file why the first of their steps failed."""
    failures: dict[str, str] = {}
    for crash in sorted(logs.glob("crash-*.txt"), key=lambda path: path.stat().st_mtime):
        text = crash.read_text(encoding="utf-8", errors="replace")
        for participant in plan.participants:
            if f".sub_{participant}_wf." in text:
                failures.setdefault(participant, f"Reason: {_last_error(text)} (see {crash})")
    return failures


def _last_error(text: str) -> str:
    """Find the lines that name the error at the end of a traceback."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [i for i, line in enumerate(lines) if _ERROR.match(line)]
    said = " ".join(lines[errors[-1] :] if errors else lines[-1:])
    return said.removeprefix("difftract_bids.errors.")


def _say(message: str) -> None:
    print(message, flush=True)
