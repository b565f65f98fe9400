"""What a run would do: on which files, to which outputs, in how much memory and disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from difftract_bids.bids.footprint import footprint_gb, largest_step_gb
from difftract_bids.bids.pages import page_path, report_sessions
from difftract_bids.bids.uris import input_uri
from difftract_bids.cli.outcomes import table
from difftract_bids.cli.work import find_work

if TYPE_CHECKING:
    from difftract_bids.bids.plan import Plan
    from difftract_bids.bids.runs import DWIRun
    from difftract_bids.cli.resources import Resources

#: Runs up to this number are all shown with every file.
_ALL_SHOWN = 2


def dry_run(
    plan: Plan, resources: Resources, *, force: bool = False, verbose: bool = False
) -> Iterator[str]:
    """Say what would be done, a line each. Nothing is written.

    Parameters
    ----------
    plan
        What is wanted.
    resources
        What all steps together may take.
    force
        Count finished runs as well.
    verbose
        List every file of every run, however many there are.
    """
    work = find_work(plan, force=force)
    verbose = verbose or len(work.todo) <= _ALL_SHOWN
    yield from table(work.outcomes, plan.output_dir)
    participants = sorted({run.participant for run in work.todo})
    for participant in participants:
        own = [run for run in work.todo if run.participant == participant]
        pages = [page_path(participant, session) for session in report_sessions(plan, participant)]
        yield f"sub-{participant}: {len(own)} run(s) to do, then {', '.join(pages)}"
        for run in own:
            yield from _of_run(plan, run, verbose=verbose or run is work.todo[0])
    yield (
        f"{len(work.todo)} of {len(plan.runs)} run(s) of {len(participants)} participant(s) would "
        f"be done; {len(plan.unusable)} participant(s) cannot be used. Nothing was started."
    )
    if work.todo:
        yield from _needs(plan, work.todo, resources)


def _of_run(plan: Plan, run: DWIRun, *, verbose: bool) -> Iterator[str]:
    outputs = sorted(set(plan.promised(run)))
    yield (
        f"  {run.stem}: fODF model {run.fodf_model.name}, distortion: {run.distortion.method}, "
        f"tissue {'' if run.is_constrained else 'not '}obeyed; {len(run.files)} file(s) in, "
        f"{len(outputs)} out"
    )
    if verbose:
        yield from (f"    in   {input_uri(path, plan.datasets)}" for path in run.files)
        yield from (f"    out  {path}" for path in outputs)


def _needs(plan: Plan, runs: tuple[DWIRun, ...], resources: Resources) -> Iterator[str]:
    """Say what memory and disk are expected to be needed, and what there is."""
    largest = max(runs, key=lambda run: run.size_gb)
    name, step_gb = largest_step_gb(plan, largest)
    yield (
        f"Memory: the largest step ({name} of {largest.stem}) is expected to take "
        f"{step_gb:.1f} GB of {resources.mem_gb:.1f} GB for all steps together, on "
        f"{resources.n_procs} CPU(s), {resources.omp_nthreads} a step."
    )
    if step_gb > resources.mem_gb:
        yield "WARNING: that is more than there is; the step runs alone, and may be killed."
    needs = [footprint_gb(run, plan.config) for run in runs]
    for what, folder, need in (
        ("outputs", plan.output_dir, sum(output for output, _ in needs)),
        ("intermediate files", plan.scratch_dir, sum(work for _, work in needs)),
    ):
        free = _free_gb(folder)
        yield f"Disk: about {need:.1f} GB of {what} in {folder}, where {free:.1f} GB are free."
        if need > free:
            yield "WARNING: that is more than is free."


def _free_gb(folder: Path) -> float:
    there = next(one for one in (folder, *folder.parents) if one.is_dir())
    return shutil.disk_usage(there).free / 1e9
