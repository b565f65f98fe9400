"""Running the graph: some participants at a time, by the plugin that was chosen."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from difftract_bids.cli.nipype_setup import configure_nipype, limit_threads
from difftract_bids.cli.outcomes import Outcome, crashes, last_error
from difftract_bids.cli.progress import Bars, Progress
from difftract_bids.cli.provenance import write_failure, write_provenance
from difftract_bids.cli.work import REDRAWING, make_way

if TYPE_CHECKING:
    from difftract_bids.bids.plan import Plan
    from difftract_bids.cli.plugins.plugin_file import PluginChoice
    from difftract_bids.cli.resources import Resources
    from difftract_bids.cli.stopping import Stopping

#: Participants in one graph for each CPU. Nipype looks at the whole graph five times a second,
#: which for a thousand participants would be all it does.
_PARTICIPANTS_A_CPU = 4
_LEAST_PARTICIPANTS = 16
#: The same where steps are jobs, whose number no CPU of this machine limits.
_SUBMITTED_PARTICIPANTS = 100


@dataclass(frozen=True)
class Execution:
    """How a plan is carried out.

    Attributes
    ----------
    resources
        What all steps together may take.
    logs
        Folder of logs of this run.
    stopping
        Tells whether a signal has asked for an end.
    plugin
        What the user's plugin file says; ``None`` for processes on this machine.
    verbose
        How much is told of steps.
    write_graph
        Draw the graph into the folder of logs.
    stop_on_first_crash
        Leave the other steps and participants undone.
    force
        Do finished steps anew.
    is_alone
        Whether the locks of the participants are real.
    """

    resources: Resources
    logs: Path
    stopping: Stopping
    plugin: PluginChoice | None = None
    verbose: int = 0
    write_graph: bool = False
    stop_on_first_crash: bool = False
    force: bool = False
    is_alone: bool = True

    def run(self, plan: Plan, whole: Plan) -> dict[str, Outcome]:
        """Do everything that a plan holds.

        Parameters
        ----------
        plan
            What is to be done.
        whole
            The same, with what is done already: reports tell of it too.

        Returns
        -------
        dict
            The participants of which a step failed, or of which jobs were submitted that nobody
            waits for, by their labels.
        """
        outcomes: dict[str, Outcome] = {}
        methods = ""
        for part in self._parts(plan):
            workflow, said = self._build(part)
            methods += said
            if self.write_graph and part.runs[0] is plan.runs[0]:
                _draw(workflow, self.logs)
            # Not before: whoever stops now has not touched what others are about to redo.
            make_way(part, force=self.force, is_alone=self.is_alone)
            _describe(plan, methods)
            outcomes |= self._run(part, whole, workflow)
            self.stopping.check()
            failed = any(outcome.status == "failed" for outcome in outcomes.values())
            if failed and self.stop_on_first_crash:
                left = set(plan.participants) - set(part.participants) - set(outcomes)
                outcomes |= dict.fromkeys(left, Outcome("failed", "Not begun: another failed."))
                break
        return outcomes

    def redraw(self, plan: Plan) -> None:
        """Draw the figures of a plan again, from its derivatives, on this machine.

        In a folder of its own: what an earlier version drew of the same files is not taken. What
        cannot be drawn for want of a file, or since the step before it failed, stays as it is.
        """
        for part in self._parts(plan):
            try:
                self._redraw_part(part)
            except Exception as error:  # noqa: BLE001 - the reports are put together all the same
                self.stopping.check()
                said = last_error(_told(error))
                print(f"WARNING: Not all figures could be drawn again: {said}", flush=True)

    def _redraw_part(self, plan: Plan) -> None:
        from difftract_bids.interfaces.outputs import KEPT
        from difftract_bids.workflows.redrawing import init_redrawing_wf

        plan.scratch_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=REDRAWING, dir=plan.scratch_dir, ignore_cleanup_errors=True
        ) as folder:
            workflow = init_redrawing_wf(plan, omp_nthreads=self.resources.omp_nthreads)
            workflow.base_dir = folder
            if not workflow.list_node_names():
                return
            try:
                self._execute(workflow, Path(folder))
            finally:
                for kept in sorted(Path(folder).rglob(KEPT)):
                    print(f"WARNING: {kept.read_text(encoding='utf-8')}", flush=True)

    def methods(self, plan: Plan) -> str:
        """Write the methods text of a plan, without running it."""
        return "".join(self._build(part)[1] for part in self._parts(plan))

    def _parts(self, plan: Plan) -> Iterator[Plan]:
        """Divide a plan by participants, so that graphs stay small whatever the dataset is."""
        labels = plan.participants
        size = max(_LEAST_PARTICIPANTS, _PARTICIPANTS_A_CPU * self.resources.n_procs)
        size = _SUBMITTED_PARTICIPANTS if self._is_batch else size
        for first in range(0, len(labels), size):
            own = set(labels[first : first + size])
            yield plan.restricted(run for run in plan.runs if run.participant in own)

    def _build(self, plan: Plan) -> tuple[Any, str]:
        from difftract_bids.workflows.app import init_difftract_wf

        workflow = init_difftract_wf(
            plan, omp_nthreads=self.resources.omp_nthreads, run_uuid=self.logs.name
        )
        return workflow, workflow.visit_desc()

    def _run(self, plan: Plan, whole: Plan, workflow: Any) -> dict[str, Outcome]:  # noqa: ANN401
        from difftract_bids.workflows.app import methods_of

        for participant in plan.participants:
            methods = methods_of(workflow, participant)
            write_provenance(whole, participant, run_uuid=self.logs.name, methods=methods)
            write_failure(plan, participant, None)
        known = set(self.logs.glob("crash-*.txt"))
        submitted: dict[str, Outcome] = {}
        try:
            with Bars(plan.scratch_dir):
                if self._is_batch:
                    submitted = self._submit(workflow)
                else:
                    self._execute(workflow, plan.scratch_dir)
        except Exception as error:  # noqa: BLE001
            self.stopping.check()
            # Nipype raises once every step that could run has run; the crash files say whose
            # failed. Without any, nothing is known to have gone well.
            if set(self.logs.glob("crash-*.txt")) == known:
                return dict.fromkeys(plan.participants, Outcome("failed", str(error)))
        return submitted | crashes(plan.participants, self.logs)

    @property
    def _is_batch(self) -> bool:
        return self.plugin is not None and not self.plugin.is_local

    def _execute(self, workflow: Any, scratch_dir: Path) -> None:  # noqa: ANN401
        """Run a graph in processes of this machine."""
        from difftract_bids.cli.plugins.multiproc import SafeMultiProcPlugin

        scratch_dir.mkdir(parents=True, exist_ok=True)
        # The file of settings has %% for %, which Nipype takes as it stands.
        workflow.config["execution"]["crashdump_dir"] = str(self.logs)
        progress = Progress(verbose=self.verbose > 0)
        plugin = SafeMultiProcPlugin(self._local_args(progress), self.stopping, scratch_dir)
        try:
            workflow.run(plugin=plugin)
        finally:
            plugin.end()

    def _submit(self, workflow: Any) -> dict[str, Outcome]:  # noqa: ANN401
        """Run a graph as jobs of a batch system; say whose nobody waits for."""
        from difftract_bids.cli.plugins.batch import make_plugin
        from difftract_bids.cli.plugins.batch_resources import ask_for_resources

        assert self.plugin is not None  # noqa: S101 - see _is_batch
        ask_for_resources(workflow, self.plugin)
        progress = Progress(verbose=self.verbose > 0)
        plugin = make_plugin(self.plugin, status_callback=progress, stopping=self.stopping)
        try:
            workflow.run(plugin=plugin)
        finally:
            plugin.end()
        submitted: dict[str, list[int]] = getattr(plugin, "submitted", {})
        return {
            label: Outcome(
                "submitted",
                f"{len(jobs)} jobs, {min(jobs)} to {max(jobs)}. The same command tells what "
                "became of them.",
            )
            for label, jobs in submitted.items()
            if jobs
        }

    def _local_args(self, progress: Progress) -> dict[str, Any]:
        # Figures are drawn again on this machine, whatever runs the steps otherwise.
        own = {} if self.plugin is None or self._is_batch else self.plugin.args
        return {
            # A step that is estimated to take more than there is runs alone.
            "raise_insufficient": False,
            # Steps on a GPU one at a time: each fills it by itself.
            "n_gpu_procs": 1,
            **own,
            "n_procs": self.resources.n_procs,
            # Every step takes all of a memory that small.
            "memory_gb": 0.1 if self.resources.one_at_a_time else self.resources.mem_gb,
            "mp_context": "forkserver",
            "status_callback": progress,
        }


def prepare(execution: Execution, scratch_dir: Path, *, monitor: bool = False) -> None:
    """Set up what must be known before Nipype and the libraries that compute are imported.

    Parameters
    ----------
    execution
        How a plan is going to be carried out.
    scratch_dir
        Folder for intermediate files.
    monitor
        Record memory and CPUs of each step.
    """
    from difftract_bids.cli.compiled import keep_compiled

    configure_nipype(
        execution.logs,
        verbose=execution.verbose,
        stop_on_first_crash=execution.stop_on_first_crash,
        monitor=monitor,
    )
    limit_threads(execution.resources.omp_nthreads)
    keep_compiled(scratch_dir)
    # Batch systems' plugins name jobs by it, and containers have none.
    os.environ.setdefault("LOGNAME", "difftract")


def _describe(plan: Plan, methods: str) -> None:
    """Write what describes the derivatives dataset, with the methods of what has begun so far."""
    from difftract_bids.bids.describe import describe_dataset
    from difftract_bids.reports.page.methods import methods_markdown

    describe_dataset(
        plan.output_dir,
        raw_dir=plan.bids_dir,
        atlases=plan.atlases,
        citation=methods_markdown(methods),
        derivatives={one.name: one.path for one in plan.derivatives},
    )


def _draw(workflow: Any, logs: Path) -> None:  # noqa: ANN401
    """Draw the graph; without Graphviz there is its text."""
    try:
        workflow.write_graph(
            dotfilename=str(logs / "graph.dot"), graph2use="colored", format="svg"
        )
    except OSError:
        print(f"Graphviz (dot) is not here to draw the graph: its text is {logs / 'graph.dot'}.")


def _told(error: Exception) -> str:
    """Give the text of an error; Nipype's plugins raise the lines of the one in their worker."""
    said = error.args[0] if error.args else ""
    return "".join(map(str, said)) if isinstance(said, list) else str(error)
