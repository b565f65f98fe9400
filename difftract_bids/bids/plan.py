"""The plan of a run: everything that is decided, and checked, before the first step starts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from difftract_bids import __version__
from difftract_bids.bids.atlases import Atlas, check_atlas, nodes_of, resolve_atlas
from difftract_bids.bids.decisions import with_decisions
from difftract_bids.bids.derivative_inputs import Derivative, resolve_derivatives
from difftract_bids.bids.edge_targets import EdgeTarget, check_targets, targets_of
from difftract_bids.bids.filters import Filters, read_filters
from difftract_bids.bids.fodf_model import choose_model
from difftract_bids.bids.fodf_model_file import read_trained_model
from difftract_bids.bids.fsl import check_path
from difftract_bids.bids.given_files import check_given_files, own_path
from difftract_bids.bids.given_fodf import check_given_fodf, fodf_of
from difftract_bids.bids.layout import choose_participants, mislabelled, open_raw
from difftract_bids.bids.preflight import (
    check_device,
    check_folders,
    check_refinement,
    check_run,
    check_sensitivity,
)
from difftract_bids.bids.promises import promised_outputs
from difftract_bids.bids.refinement_target import RefinementTarget, find_refinement_target
from difftract_bids.bids.runs import DWIRun
from difftract_bids.bids.sources import Sources
from difftract_bids.bids.stages import corrects_motion, templates
from difftract_bids.config import Config
from difftract_bids.errors import AtlasError, DifftractError
from difftract_bids.io.gradients import GradientTable

#: Gives a run back, with what there is to know of its network, or raises.
NetworkCheck = Callable[[DWIRun, GradientTable], DWIRun]


@dataclass(frozen=True)
class Plan:
    """What will be done, on which files.

    Attributes
    ----------
    bids_dir, output_dir, work_dir
        Folders, absolute.
    runs
        Diffusion runs of all participants.
    atlases
        Parcellations, checked.
    config
        Settings.
    unusable
        Participants left out of a whole dataset, and why.
    derivatives
        Others' results that are used.
    report_level
        What there is a report for each of.
    """

    bids_dir: Path
    output_dir: Path
    work_dir: Path
    runs: tuple[DWIRun, ...]
    atlases: tuple[Atlas, ...]
    config: Config
    unusable: dict[str, DifftractError] = field(default_factory=dict)
    derivatives: tuple[Derivative, ...] = ()
    report_level: Literal["subject", "session"] = "subject"

    @property
    def datasets(self) -> dict[str, Path]:
        """Folders of the inputs, by the names that BIDS URIs have for them."""
        return {"raw": self.bids_dir} | {one.name: one.path for one in self.derivatives}

    @property
    def scratch_dir(self) -> Path:
        """Folder for intermediate files: one for each dataset, output and version.

        Two datasets both have a sub-01; in one folder they would take each other's files. And a
        step that another version has done is not done.
        """
        pair = f"{self.bids_dir}\n{self.output_dir}\n{__version__}".encode()
        return self.work_dir / f"difftract-{hashlib.sha256(pair).hexdigest()[:12]}"

    @property
    def participants(self) -> list[str]:
        """Labels of the participants, sorted."""
        return sorted({run.participant for run in self.runs})

    def templates_of(self, run: DWIRun) -> dict[str, Path]:
        """List the templates that a run has to be joined with: their T1w by name."""
        return templates(run, self.config, self.atlases)

    def promised(self, run: DWIRun) -> Iterator[str]:
        """List every file that a run must leave behind but the report, relative to OUTPUT_DIR."""
        names = [atlas.name for atlas in self.atlases]
        return promised_outputs(run, names, self.config, list(self.templates_of(run)))

    def of(self, participant: str) -> list[DWIRun]:
        """Diffusion runs of one participant."""
        return [run for run in self.runs if run.participant == participant]

    def restricted(self, runs: Iterable[DWIRun]) -> Plan:
        """Give the plan of some of its runs."""
        return replace(self, runs=tuple(runs))


def make_plan(
    bids_dir: Path,
    output_dir: Path,
    work_dir: Path,
    config: Config,
    *,
    participants: list[str] | None = None,
    sessions: list[str] | None = None,
    check_network: NetworkCheck | None = None,
    bids_filters: Path | None = None,
    database_dir: Path | None = None,
    offline: bool = False,
) -> Plan:
    """Find the inputs and check everything that can be checked in seconds.

    Parameters
    ----------
    bids_dir
        Raw dataset; it is only read.
    output_dir, work_dir
        Where results and intermediate files go.
    config
        Settings.
    participants, sessions
        Labels, with or without prefix; all when ``None``.
    check_network
        What tells whether a trained network can be used for a run; this layer knows none.
    bids_filters
        File that says which images count as inputs.
    database_dir
        Folder of an index of the dataset, used if it is there and made if not.
    offline
        Never use the network.

    Raises
    ------
    DifftractError
        The first thing that is wrong: what, where, and the remedy.
    """
    check_device(config.tracking)
    check_sensitivity(config)
    check_refinement(config)
    filters = read_filters(bids_filters) if bids_filters else Filters()
    labels = choose_participants(bids_dir, participants)
    derivatives = resolve_derivatives(config.derivatives, bids_dir)
    check_folders(bids_dir, output_dir, work_dir, [one.path for one in derivatives])
    atlases = tuple(resolve_atlas(spec, offline=offline) for spec in config.atlases)
    _refuse_twins(atlases)
    is_raw = all(one.path.resolve() != bids_dir.resolve() for one in derivatives)
    raw = open_raw(bids_dir, labels, filters, database_dir=database_dir) if is_raw else None
    sources = Sources(raw, derivatives, filters)
    runs: list[DWIRun] = []
    unusable: dict[str, DifftractError] = {}
    for label in labels:
        try:
            runs += _checked_runs(
                sources, label, sessions, atlases, config, check_network or _unchecked
            )
        except DifftractError as error:
            # Who names one participant wants to know at once; others go on without it.
            if participants and len(labels) == 1:
                raise
            unusable[label] = error
    if not runs:
        raise next(iter(unusable.values()))
    if not participants:
        unusable |= mislabelled(bids_dir)
    if any(_uses_fsl(run, config) for run in runs):
        check_path(work_dir.resolve())
    folders = (bids_dir.resolve(), output_dir.resolve(), work_dir.resolve())
    return Plan(*folders, tuple(runs), atlases, config, unusable, derivatives)


def _checked_runs(
    sources: Sources,
    participant: str,
    sessions: list[str] | None,
    atlases: tuple[Atlas, ...],
    config: Config,
    check_network: NetworkCheck,
) -> list[DWIRun]:
    runs = []
    for found in sources.runs_of(participant, sessions, config.preprocessing):
        threshold = config.preprocessing.b0_threshold_s_mm2
        gradients = check_run(found, b0_threshold_s_mm2=threshold)
        run = with_decisions(found, config, sources.root, sources.filters)
        run = replace(run, fodf_model=choose_model(gradients, config.fodf))
        check_given_files(config, run)
        check_given_fodf(config.fodf, run, gradients)
        run = check_network(_with_network(run, config), gradients)
        for atlas in atlases:
            check_atlas(atlas, run)
        target = _refinement_target(atlases, run, config)
        edges = _edge_targets(atlases, run, config)
        runs.append(replace(run, refinement=target, edge_targets=edges))
    return runs


def _uses_fsl(run: DWIRun, config: Config) -> bool:
    by_eddy = corrects_motion(run, config) and config.preprocessing.motion_correction == "eddy"
    return by_eddy or run.distortion.method == "topup"


def _with_network(run: DWIRun, config: Config) -> DWIRun:
    """Take note of the network that predicts the fODFs of a run, if one does."""
    path = fodf_of(config.fodf, run).fodf_model_file
    if path is None:
        return run
    network = read_trained_model(path)
    reason = f"the trained model {network.file} was given"
    return replace(run, fodf_model=replace(run.fodf_model, reason=reason, network=network))


def _unchecked(run: DWIRun, _: GradientTable) -> DWIRun:
    return run


def _refinement_target(
    atlases: tuple[Atlas, ...], run: DWIRun, config: Config
) -> RefinementTarget | None:
    """Find what the fODFs of a run are adjusted to, in the atlases as the run has them."""
    wanted = config.refinement
    if wanted.refine_fodf is None:
        return None
    nodes = {atlas.name: nodes_of(atlas, run) for atlas in atlases}
    path = Path(own_path(wanted.refine_fodf, "refine_fodf", run))
    return find_refinement_target(path, wanted.kind, nodes)


def _edge_targets(
    atlases: tuple[Atlas, ...], run: DWIRun, config: Config
) -> tuple[tuple[str, EdgeTarget], ...]:
    """Find the edges that are asked for by name, in the atlases as the run has them."""
    wanted = config.sensitivity.sensitivity
    if not wanted:
        return ()
    nodes = {atlas.name: nodes_of(atlas, run) for atlas in atlases}
    check_targets(wanted, list(nodes.values()))
    return tuple(
        (name, target) for name, table in nodes.items() for target in targets_of(wanted, table)
    )


def _refuse_twins(atlases: tuple[Atlas, ...]) -> None:
    names = [atlas.name for atlas in atlases]
    twins = sorted({name for name in names if names.count(name) > 1})
    if twins:
        raise AtlasError(
            f"Two atlases have the same name: {', '.join(twins)}.",
            where="--atlases",
            remedy="Their matrices would overwrite each other; name each once.",
        )
