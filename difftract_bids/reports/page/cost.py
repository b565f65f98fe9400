"""What each stage of a run took: time, memory, and what an earlier run had done already."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from difftract_bids.cost import Cost
from difftract_bids.io.step_costs import StepCost
from difftract_bids.reports.templates import render, save_text

#: Names of the first folder of a stage's steps, and its title, in the order of the work.
_STAGES = (
    ("preprocessing_wf", "Preprocessing"),
    ("(?:align|pseudo)_t1w_wf", "T1w in diffusion space"),
    ("(.+)_to_dwi_wf", "Registration of {}"),
    ("tissue_wf", "Tissues"),
    ("fodf_wf", "Tensors and fODFs"),
    ("refinement_wf", "Adjustment of fODFs"),
    ("tracking_wf", "Tracking"),
    ("weighting_wf", "Weights of streamlines"),
    ("atlas_(.+)_wf", "Connectome {}"),
    ("sensitivity_(.+)_wf", "Derivatives of {}"),
    ("hdf5.*", "Connectomes in one file"),
)
#: Figures and saving are stages of their own, wherever they are.
_FIGURES, _SAVING, _OTHER = "Figures", "Saving", "Others"
#: Lists are joined in milliseconds and files saved (``ds_``) in the app's own process. That its
#: memory and CPU time are not known says nothing about a stage's.
_LEAST_SECONDS, _SAVES = 0.1, "ds_"


@dataclass(frozen=True)
class Stage:
    """What the steps of a stage, or of all of a run, took.

    Attributes
    ----------
    title
        In words.
    steps
        What each took.
    reused
        Names of those whose results were there before.
    """

    title: str
    steps: tuple[StepCost, ...]
    reused: frozenset[str] = frozenset()

    @property
    def seconds(self) -> float:
        """Time of all steps, one after the other."""
        return sum(one.cost.seconds for one in self.steps)

    @property
    def reused_seconds(self) -> float:
        """Time that steps took whose results were there before."""
        return sum(one.cost.seconds for one in self.steps if one.step in self.reused)

    @property
    def cpu_seconds(self) -> float | None:
        """CPU time of the steps of which it is known; ``None`` if it is of none."""
        known = [one.cost.cpu_seconds for one in self.steps if one.cost.cpu_seconds is not None]
        return sum(known) if known else None

    @property
    def largest(self) -> StepCost | None:
        """The step with the largest memory of those of which it is known."""
        known = [one for one in self.steps if one.cost.peak_memory_gb is not None]
        return max(known, key=lambda one: one.cost.peak_memory_gb or 0.0, default=None)

    @property
    def held_share(self) -> float:
        """Share of the memory of the largest step that its process held before it."""
        cost = self.largest.cost if self.largest else None
        return (
            (cost.held_memory_gb or 0.0) / cost.peak_memory_gb
            if cost and cost.peak_memory_gb
            else 0.0
        )

    @property
    def is_the_apps(self) -> bool:
        """Whether the app's own process does all of it, of which nothing more can be told."""
        return all(_is_the_apps(one.step) for one in self.steps)

    @property
    def slowest(self) -> StepCost:
        """The step that took longest."""
        return max(self.steps, key=lambda one: one.cost.seconds)

    @property
    def knows_all_cpu(self) -> bool:
        """Whether there is no step worth speaking of whose CPU time is not known."""
        return all(one.cost.cpu_seconds is not None for one in self._worth)

    @property
    def knows_all_memory(self) -> bool:
        """Whether there is no step worth speaking of whose memory is not known."""
        return all(one.cost.peak_memory_gb is not None for one in self._worth)

    @property
    def _worth(self) -> list[StepCost]:
        slow = [one for one in self.steps if one.cost.seconds >= _LEAST_SECONDS]
        return [one for one in slow if not _is_the_apps(one.step)]


def started_at(run_uuid: str) -> datetime | None:
    """Tell when a run of the app began, by its identifier; ``None`` if that has no date."""
    try:
        return datetime.strptime(run_uuid.partition("_")[0], "%Y%m%dT%H%M%S%z")
    except ValueError:
        return None


def stages_of(steps: Sequence[StepCost], started: datetime | None = None) -> list[Stage]:
    """Group steps by stage, in the order of the work; joining lists is none.

    Parameters
    ----------
    steps
        What each took, in the order of their beginnings.
    started
        When the run of the app began: what had ended before was reused.
    """
    groups: dict[tuple[int, str], list[StepCost]] = {}
    for one in steps:
        groups.setdefault(_stage_of(one.step), []).append(one)
    stages = [
        Stage(title, tuple(own), _reused(own, started))
        for (_, title), own in sorted(groups.items(), key=lambda item: item[0][0])
    ]
    return [one for one in stages if one.title != _OTHER or one.seconds >= _LEAST_SECONDS]


def write_cost_html(
    steps: Sequence[StepCost], path: str | os.PathLike[str], *, started: datetime | None = None
) -> Path:
    """Write what each stage took as an HTML snippet: a table with bars.

    Parameters
    ----------
    steps
        What each step took, in the order of their beginnings; where there is none, a sentence
        says so.
    path
        File to write.
    started
        When the run of the app began: what had ended before was reused. Nothing is said of that,
        if left out.

    Returns
    -------
    Path
        The absolute path written.
    """
    stages = stages_of(steps, started)
    total = Stage("All", tuple(steps), _reused(steps, started))
    new = [one.cost for one in steps if one.step not in total.reused]
    old = [one.cost for one in steps if one.step in total.reused]
    peaks = [one.largest.cost.peak_memory_gb or 0.0 for one in stages if one.largest]
    return save_text(
        render(
            "cost.html.jinja",
            stages=stages,
            total=total,
            longest=max((one.seconds for one in stages), default=0.0) or 1.0,
            most=max(peaks, default=0.0) or 1.0,
            elapsed=_elapsed(new),
            old_days=_days(old),
            most_cpus=max((one.cost.n_cpus or 0 for one in steps), default=0),
            duration=duration,
            short=short_name,
        ),
        path,
    )


def duration(seconds: float) -> str:
    """Give a time in words, to two figures that matter.

    Examples
    --------
    >>> [duration(seconds) for seconds in (0.012, 4.25, 200, 3900)]
    ['< 0.1 s', '4.2 s', '3 min 20 s', '1 h 05 min']
    """
    if seconds < 0.05:
        return "< 0.1 s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    if seconds < 3599.5:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min"


def short_name(step: str) -> str:
    """Name a step within its stage, in words.

    Examples
    --------
    >>> short_name("preprocessing_wf.part_1_wf.denoise")
    'part 1 denoise'
    >>> short_name("atlas_ICBM100_wf.report_wf.plot_edges")
    'ICBM100 edges'
    """
    *folders, name = step.split(".")
    # Of what a figure or a file is, its first folder says; of other stages, the title does.
    kept = folders if _stage_of(step)[1] in (_FIGURES, _SAVING) else folders[1:]
    words = [re.sub(r"^atlas_|_?(report|derivatives)?_wf$", "", folder) for folder in kept]
    words.append(re.sub(r"^(plot|ds)_", "", name))
    return " ".join(word for word in words if word).replace("_", " ")


def _stage_of(step: str) -> tuple[int, str]:
    """Tell the stage of a step: its place in the order of the work, and its title."""
    *folders, name = step.split(".")
    if any(part.endswith("report_wf") for part in folders) or name.startswith("plot_"):
        return len(_STAGES), _FIGURES
    if any(part.endswith("derivatives_wf") for part in folders) or name.startswith(_SAVES):
        return len(_STAGES) + 1, _SAVING
    first = folders[0] if folders else name
    for place, (pattern, title) in enumerate(_STAGES):
        match = re.fullmatch(pattern, first)
        if match:
            return place, title.format(*match.groups())
    if folders:  # a stage that has been added since
        return len(_STAGES) - 1, first.removesuffix("_wf").replace("_", " ").capitalize()
    return len(_STAGES) + 2, _OTHER


def _is_the_apps(step: str) -> bool:
    return step.rpartition(".")[2].startswith(_SAVES)


def _reused(steps: Sequence[StepCost], started: datetime | None) -> frozenset[str]:
    if started is None:
        return frozenset()
    return frozenset(one.step for one in steps if one.cost.ended < started)


def _elapsed(costs: Sequence[Cost]) -> float | None:
    """Tell the time from the first beginning to the last end, seconds."""
    if not costs:
        return None
    first, last = min(one.began for one in costs), max(one.ended for one in costs)
    return (last - first).total_seconds()


def _days(costs: Sequence[Cost]) -> str:
    """Tell the days of some steps, in UTC."""
    days = sorted({one.began.astimezone(UTC).date().isoformat() for one in costs})
    return " to ".join(days if len(days) < 2 else [days[0], days[-1]])
