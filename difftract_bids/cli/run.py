"""``difftract-bids``: plan, run, check what was promised, and say how it went by the exit code."""

from __future__ import annotations

import multiprocessing
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from difftract_bids.cli import notices
from difftract_bids.cli.group import run_group
from difftract_bids.cli.outcomes import Outcome, count, is_all_well, table
from difftract_bids.cli.parser import build_parser, settings_from
from difftract_bids.cli.planning import plan_of, plans_as_run
from difftract_bids.cli.stopping import Stopped, stopping
from difftract_bids.errors import DifftractError, UsageError

if TYPE_CHECKING:
    import argparse

    from difftract_bids.bids.plan import Plan
    from difftract_bids.cli.plugins.plugin_file import PluginChoice
    from difftract_bids.cli.run_log import RunLog

#: Exit codes: everything done; a participant failed or an output is missing; unusable input.
DONE, FAILED, UNUSABLE = 0, 1, 2
#: CPUs of a step that is a job and can use several, if nobody says.
_CPUS_A_JOB = 4


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
        are unusable (found before anything long starts), 128 and the number of the signal that
        ended it.
    """
    # Forked workers hang once the parent has run a torch operation.
    multiprocessing.set_start_method("forkserver", force=True)
    multiprocessing.set_forkserver_preload(["difftract_bids.cli.tethered"])
    try:
        with stopping() as state:
            return _main(build_parser().parse_args(argv), state)
    except DifftractError as error:
        print(f"difftract-bids: error: {error}", file=sys.stderr)
        return UNUSABLE
    except Stopped as stopped:
        print(
            f"difftract-bids: stopped by {stopped}; the same command continues.", file=sys.stderr
        )
        return stopped.exit_code


def _main(arguments: argparse.Namespace, state: Any) -> int:  # noqa: ANN401
    if arguments.analysis_level == "group":
        if arguments.dry_run:
            raise UsageError(
                "There is no dry run of the group level: all of it takes a minute.",
                where="--dry-run",
                remedy="Leave it out; to keep what is there, copy OUTPUT_DIR/group first.",
            )
        for line in run_group(
            arguments.output_dir,
            settings_from(arguments).group,
            arguments.participant_label,
            arguments.session_label,
            work_dir=arguments.work_dir or Path("work"),
        ):
            _say(line)
        return DONE
    plugin = _plugin(arguments)
    plans = plans_as_run(arguments) if arguments.reports_only else [(plan_of(arguments), [])]
    codes = []
    for plan, said in plans:
        for line in (*said, *notices.of_models(plan)):
            _say(line)
        do = _dry_run if arguments.dry_run else _participants
        codes.append(do(plan, arguments, plugin, state))
    return max(codes)


def _dry_run(
    plan: Plan,
    arguments: argparse.Namespace,
    plugin: PluginChoice | None,
    _state: Any,  # noqa: ANN401
) -> int:
    """Say what would be done."""
    from difftract_bids.cli.dry_run import dry_run

    resources = _resources(arguments, plan, plugin)
    verbose = arguments.verbose > 0
    for line in dry_run(plan, resources, force=arguments.force, verbose=verbose):
        _say(line)
    return DONE


def _participants(
    plan: Plan,
    arguments: argparse.Namespace,
    plugin: PluginChoice | None,
    state: Any,  # noqa: ANN401
) -> int:
    """Do what is left of a plan, and say on the terminal what became of each participant."""
    from difftract_bids.cli.execution import Execution, prepare
    from difftract_bids.cli.run_log import RunLog
    from difftract_bids.cli.work import LOCK_FILE, clean_up, find_work, without_queued
    from difftract_bids.io.locks import NameLocks

    started = time.monotonic()
    resources = _resources(arguments, plan, plugin)
    if arguments.boilerplate_only:
        return _boilerplate(plan, resources, state)
    with NameLocks(plan.output_dir / LOCK_FILE) as locks:
        work = find_work(plan, force=arguments.force, locks=locks)
        log = RunLog(plan, resources)
        execution = Execution(
            resources,
            log.folder,
            state,
            plugin=plugin,
            verbose=arguments.verbose,
            write_graph=arguments.write_graph,
            stop_on_first_crash=arguments.stop_on_first_crash,
            force=arguments.force,
            is_alone=locks.are_real,
        )
        if not locks.are_real:
            _say(
                "WARNING: the file system of OUTPUT_DIR has no locks: see that no two runs are at "
                "work on one participant."
            )
        _say(notices.of_work(plan, work, execution))
        for line in notices.of_memory(plan, work, execution):
            _say(line)
        prepare(execution, plan.scratch_dir, monitor=arguments.resource_monitor)
        work = without_queued(plan, work, cancels=not arguments.reports_only)
        outcomes = work.outcomes
        if arguments.reports_only:
            execution.redraw(work.owned(plan))
        else:
            outcomes = outcomes | execution.run(plan.restricted(work.todo), plan)
        outcomes = _check(plan, outcomes, log, rebuild=arguments.reports_only)
        log.end(outcomes)
        is_left = any(outcome.status == "submitted" for outcome in outcomes.values())
        may_go = arguments.clean_workdir and not arguments.reports_only and not is_left
        if may_go and is_all_well(outcomes):
            clean_up(plan)
    done = [label for label, outcome in outcomes.items() if outcome.status == "done"]
    said = [*table(outcomes, plan.output_dir), *notices.of_figures(plan, done)]
    for line in (*said, *notices.of_earlier_files(plan)):
        _say(line)
    _say(f"{count(outcomes)} in {(time.monotonic() - started) / 60:.1f} min. Log: {log.folder}")
    return DONE if is_all_well(outcomes) else FAILED


def _plugin(arguments: argparse.Namespace) -> PluginChoice | None:
    if arguments.plugin_file is None:
        return None
    from difftract_bids.cli.plugins.plugin_file import check_for_batch, read_plugin

    plugin = read_plugin(arguments.plugin_file)
    check_for_batch(arguments.work_dir or Path("work"), plugin)
    return plugin


def _resources(arguments: argparse.Namespace, plan: Plan, plugin: PluginChoice | None) -> Any:  # noqa: ANN401
    from difftract_bids.cli.resources import share

    own_procs, own_gb = (None, None) if plugin is None else (plugin.n_procs, plugin.memory_gb)
    per_step = arguments.omp_nthreads
    if plugin is not None and not plugin.is_local:  # steps run on other machines
        per_step = per_step or plugin.cpus_a_step or _CPUS_A_JOB
        own_procs = per_step
    return share(
        len(plan.runs),
        arguments.nprocs or own_procs,
        per_step,
        arguments.mem_mb * 1024**2 / 1e9 if arguments.mem_mb else own_gb,
        low_mem=arguments.low_mem or (plugin is not None and plugin.name == "Linear"),
    )


def _boilerplate(plan: Plan, resources: Any, state: Any) -> int:  # noqa: ANN401
    """Write the methods text of a plan, and print it."""
    from difftract_bids.bids.describe import LOCK_FILE
    from difftract_bids.cli.execution import Execution, prepare
    from difftract_bids.cli.run_log import RunLog
    from difftract_bids.io.atomic import write_text_atomic
    from difftract_bids.io.locks import taking_turns
    from difftract_bids.reports.page.methods import methods_markdown

    execution = Execution(resources, RunLog(plan, resources).folder, state)
    prepare(execution, plan.scratch_dir)
    text = methods_markdown(execution.methods(plan))
    with taking_turns(plan.output_dir / LOCK_FILE):
        write_text_atomic(plan.output_dir / "CITATION.md", text)
    _say(text)
    return DONE


def _check(
    plan: Plan, outcomes: dict[str, Outcome], log: RunLog, *, rebuild: bool
) -> dict[str, Outcome]:
    """Say of each participant whether all that was promised is there; report what failed."""
    from difftract_bids.cli.checking import check_participant

    checked = dict(outcomes)
    for participant in plan.participants:
        known = outcomes.get(participant)
        try:
            checked[participant] = check_participant(
                plan, participant, known, run_uuid=log.folder.name, rebuild=rebuild
            )
        except Exception as error:  # noqa: BLE001 - the others are to be told of all the same
            checked[participant] = Outcome("failed", f"The report could not be made: {error!r}.")
    return checked


def _say(message: str) -> None:
    print(message, flush=True)
