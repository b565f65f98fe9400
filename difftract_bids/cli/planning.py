"""From the command line to a plan: of what is wanted, or of the reports of what was done."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from difftract_bids.cli.parser import flag_of, settings_from
from difftract_bids.config.toml import names_file, setting_values
from difftract_bids.errors import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from difftract_bids.bids.as_run import AsRun
    from difftract_bids.bids.plan import Plan
    from difftract_bids.config import Config


def plan_of(arguments: argparse.Namespace) -> Plan:
    """Plan what the command line asks for.

    Raises
    ------
    DifftractError
        The first thing that is wrong: what, where, and the remedy.
    """
    return _plan(arguments, settings_from(arguments), arguments.participant_label)


def plans_as_run(arguments: argparse.Namespace) -> list[tuple[Plan, list[str]]]:
    """Plan the reports of what was done, with the settings that each run was done with.

    Runs that were never finished get the latest settings of those that were. Participants who were
    never begun are left out, unless they are named.

    Returns
    -------
    list of tuple
        A plan for each set of settings, and what to say of it, a line each.

    Raises
    ------
    DifftractError
        If the command line has other settings than those of the runs, and as :func:`plan_of`.
    """
    from difftract_bids.bids.as_run import settings_as_run
    from difftract_bids.bids.layout import choose_participants

    labels = choose_participants(arguments.bids_dir, arguments.participant_label)
    begun = [one for one in labels if (arguments.output_dir / f"sub-{one}").is_dir()]
    n_left_out = 0 if arguments.participant_label or not begun else len(labels) - len(begun)
    participants = begun if n_left_out else arguments.participant_label
    sessions = [one.removeprefix("ses-") for one in arguments.session_label or ()]

    def is_wanted(stem: str) -> bool:
        participant, session = _labels(stem)
        return participant in labels and (not sessions or session in sessions)

    found, unknown = settings_as_run(arguments.output_dir)
    done = [one for one in found if any(map(is_wanted, one.stems))]
    for one in done:
        _refuse_others(settings_from(arguments, one.config), one)
    # Where nothing that is wanted was ever finished, there is nothing to be contradicted.
    latest = next(iter(done or found), None)
    source = f"those of {latest.file}" if latest else "those of this command"
    said = [f"Settings of the runs: {source}."]
    if n_left_out:
        said.append(f"NOTE: {n_left_out} participant(s) have nothing in OUTPUT_DIR yet.")
    lost = sorted(filter(is_wanted, unknown))
    if lost:
        said.append(
            f"WARNING: the settings of {len(lost)} finished run(s) cannot be read, and their "
            f"reports are made with {source}. First {lost[0]}: {unknown[lost[0]]}"
        )
    config = settings_from(arguments, latest.config if latest else None)
    plan = _plan(arguments, config, participants)
    elsewhere = {stem for one in done[1:] for stem in one.stems}
    own = {_labels(stem)[0] for stem in elsewhere}
    # Whoever was done with other settings need not be able to be done with these.
    unusable = {label: why for label, why in plan.unusable.items() if label not in own}
    left = [run for run in plan.runs if run.stem not in elsewhere]
    plans = [(replace(plan.restricted(left), unusable=unusable), said)]
    for one in done[1:]:
        theirs = sorted({_labels(stem)[0] for stem in one.stems if is_wanted(stem)})
        plan = _plan(arguments, settings_from(arguments, one.config), theirs)
        plan = plan.restricted(run for run in plan.runs if run.stem in one.stems)
        plans.append((plan, [f"Settings of the runs: those of {one.file}."]))
    return [(plan, lines) for plan, lines in plans if plan.runs or plan.unusable]


def _labels(stem: str) -> tuple[str, str | None]:
    """Read participant and session off what all names of a run begin with."""
    from difftract_bids.bids.templates import entities_of

    entities = entities_of(Path(f"{stem}_dwi"))
    return entities.get("sub", ""), entities.get("ses")


def _refuse_others(asked: Config, done: AsRun) -> None:
    """Refuse settings that would let a report say what was not done."""
    differing = list(_differences(asked, done.config))
    if differing:
        raise UsageError(
            f"Reports tell of what was done, and that was done with other settings: "
            f"{', '.join(differing)}.",
            where=f"--reports-only, and {done.file} of {min(done.stems)}",
            remedy="Leave them out: the settings of the runs are known. To have results of other "
            "settings, run without --reports-only.",
        )


def _differences(asked: Config, done: Config) -> Iterator[str]:
    """Name the settings that differ, as options; where files lie is none."""
    from difftract_bids.bids.records import without_places

    asked, done = without_places(asked), without_places(done)
    for name in ("atlases", "derivatives"):
        ours, theirs = getattr(asked, name), getattr(done, name)
        if ours != theirs:
            yield f"{flag_of(name)} {' '.join(ours) or 'none'} (was {' '.join(theirs) or 'none'})"
    pairs = zip(setting_values(asked), setting_values(done), strict=True)
    for (item, ours), (_, theirs) in pairs:
        if names_file(item) and bool(ours) == bool(theirs):
            continue
        if ours != theirs:
            yield f"{flag_of(item.name)} {_shown(ours)} (was {_shown(theirs)})"


def _shown(value: object) -> str:
    if value is None or value == ():
        return "not given"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _plan(arguments: argparse.Namespace, config: Config, participants: list[str] | None) -> Plan:
    from difftract_bids.bids.plan import make_plan
    from difftract_bids.cli.learned import network_check

    plan = make_plan(
        arguments.bids_dir,
        arguments.output_dir,
        arguments.work_dir or Path("work"),
        config,
        participants=participants,
        sessions=arguments.session_label,
        check_network=network_check(config.fodf),
        bids_filters=arguments.bids_filter_file,
        database_dir=arguments.bids_database_dir,
        offline=arguments.offline,
    )
    return replace(plan, report_level=arguments.report_output_level)
