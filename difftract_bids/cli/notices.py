"""What the terminal says before and after the work, a line each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from difftract_bids.bids.plan import Plan
    from difftract_bids.cli.execution import Execution
    from difftract_bids.cli.work import Work

#: So many figures are named that could not be drawn.
_NAMED = 5


def of_models(plan: Plan) -> list[str]:
    """Say which fODF models the runs get, a line each, why the first run does, and what of it."""
    by_model: dict[str, list[Any]] = {}
    for run in plan.runs:
        by_model.setdefault(run.fodf_model.name, []).append(run)
    lines = [
        f"fODF model {name} for {len(runs)} run(s), first {runs[0].stem}: "
        f"{runs[0].fodf_model.reason}."
        for name, runs in by_model.items()
    ]
    by_note: dict[str, list[Any]] = {}
    for run in plan.runs:
        for note in (*run.notes, *run.fodf_model.notes):
            by_note.setdefault(note, []).append(run)
    return lines + [
        f"WARNING: {note} ({len(runs)} run(s), first {runs[0].stem})"
        for note, runs in by_note.items()
    ]


def of_work(plan: Plan, work: Work, execution: Execution) -> str:
    """Say what there is to do, and what it may take."""
    resources, plugin = execution.resources, execution.plugin
    machine = (
        f"{resources.n_procs} CPU(s), {resources.omp_nthreads} a step, {resources.mem_gb:.1f} GB"
        if plugin is None or plugin.is_local
        else f"steps are jobs ({plugin.name}) of up to {resources.omp_nthreads} CPU(s)"
    )
    return (
        f"{len({run.participant for run in work.todo})} of {len(plan.participants)} "
        f"participant(s), {len(work.todo)} of {len(plan.runs)} diffusion run(s) to do, "
        f"atlases: {', '.join(atlas.name for atlas in plan.atlases)}; {machine}. "
        f"Log: {execution.logs}"
    )


def of_memory(plan: Plan, work: Work, execution: Execution) -> list[str]:
    """Warn of a step that is expected to take more memory than there is."""
    from difftract_bids.bids.footprint import largest_step_gb

    plugin = execution.plugin
    if not work.todo or not (plugin is None or plugin.is_local):
        return []
    largest = max(work.todo, key=lambda run: run.size_gb)
    name, step_gb = largest_step_gb(plan, largest)
    if step_gb <= execution.resources.mem_gb:
        return []
    said = f"the largest step ({name} of {largest.stem}) is expected to take {step_gb:.1f} GB"
    return [f"WARNING: {said}, which is more than there is; it runs alone, and may be killed."]


def of_earlier_files(plan: Plan) -> list[str]:
    """Tell of files that are not of these settings, which nobody but the user may remove."""
    from difftract_bids.bids.records import earlier_outputs

    paths = earlier_outputs(plan)
    if not paths:
        return []
    more = " ..." if len(paths) > 1 else ""
    said = f"NOTE: {len(paths)} file(s) in OUTPUT_DIR are of earlier runs with other settings"
    return [f"{said}, and are not in the reports: {paths[0]}{more}"]


def of_figures(plan: Plan, participants: Iterable[str]) -> list[str]:
    """Warn of figures of some participants that could not be drawn."""
    from difftract_bids.bids.pages import shown_figures
    from difftract_bids.reports.placeholder import reason_not_drawn

    failed = {}
    for participant in participants:
        shown = set(shown_figures(plan, participant))
        folder = plan.output_dir / f"sub-{participant}"
        pages = plan.output_dir.glob(f"sub-{participant}[._]*html")
        for path in (*sorted(folder.glob("**/figures/*")), *pages):
            known = path.name in shown or path.parent == plan.output_dir
            reason = reason_not_drawn(path) if known else None
            if reason is not None:
                failed[path] = reason
    lines = [
        f"WARNING: {path.name} could not be drawn: {reason.removesuffix('.')}."
        for path, reason in list(failed.items())[:_NAMED]
    ]
    more = len(failed) - len(lines)
    return lines + ([f"WARNING: {more} more figure(s) could not be drawn."] if more > 0 else [])
