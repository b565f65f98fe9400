"""Adding figures to a graph: each is drawn by one node, and saved by another."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from difftract_bids.bids.footprint import series_gb
from difftract_bids.bids.plan import Plan
from difftract_bids.bids.runs import DWIRun
from difftract_bids.workflows.derivatives import init_report_sink

#: What a figure takes: fields of the workflow's inputs that are its own inputs' names too, or the
#: former by the latter where they differ.
Fields = Sequence[str] | Mapping[str, str]


@dataclass(frozen=True)
class Drawing:
    """Where figures of a run are drawn, and from what.

    Attributes
    ----------
    workflow
        The graph; it has a node ``inputnode``.
    plan, run
        What was done.
    given
        Fields of that node that have a value; ``None`` for all. What needs others is left out.
    """

    workflow: LiterateWorkflow
    plan: Plan
    run: DWIRun
    given: Collection[str] | None = None

    def draw(
        self,
        desc: str,
        interface: object,
        needs: Fields,
        *,
        wants: Fields = (),
        atlas: str | None = None,
        label: str | None = None,
        n_series: float = 0.0,
    ) -> pe.Node | None:
        """Add a figure, if all that it needs is there.

        Parameters
        ----------
        desc
            What it is, see :data:`difftract_bids.bids.figures.FIGURES`.
        interface
            What draws it.
        needs, wants
            Fields that it cannot do without, and those that it takes if they are there.
        atlas, label
            What it is of.
        n_series
            How many times the size of the series it takes of memory.

        Returns
        -------
        Node or None
            The node that draws.
        """
        node = self.step(
            f"plot_{desc}", interface, needs, wants=wants, mem_gb=1.5, n_series=n_series
        )
        if node is None:
            return None
        sink = init_report_sink(self.plan, self.run, desc, atlas=atlas, label=label)
        # What is drawn again is no reason to lose what was drawn before.
        sink.inputs.keep_drawn = self.given is not None
        self.workflow.connect([(node, sink, [("out_report", "in_file")])])
        return node

    def step(
        self,
        name: str,
        interface: object,
        needs: Fields,
        *,
        wants: Fields = (),
        mem_gb: float = 1.0,
        n_series: float = 0.0,
    ) -> pe.Node | None:
        """Add a step that takes fields of the inputs, if all that it needs is there.

        Of memory it takes ``mem_gb`` and ``n_series`` times the size of the series.
        """
        needed, wanted = _pairs(needs), _pairs(wants)
        if not self.has(*(source for source, _ in needed)):
            return None
        pairs = needed + [(source, field) for source, field in wanted if self.has(source)]
        if n_series:  # which is read from a header
            mem_gb += n_series * series_gb(self.run, self.plan.config)
        node = pe.Node(interface, name=name, mem_gb=mem_gb)
        self.workflow.connect([(self.workflow.get_node("inputnode"), node, pairs)])
        return node

    def has(self, *fields: str) -> bool:
        """Say whether fields have a value."""
        return self.given is None or set(fields) <= set(self.given)


def begin_drawing(
    plan: Plan,
    run: DWIRun,
    fields: Sequence[str],
    *,
    name: str,
    outputs: Sequence[str] = (),
    given: Collection[str] | None = None,
) -> Drawing:
    """Begin a graph of figures, with the fields that it takes and gives."""
    workflow = LiterateWorkflow(name=name)
    nodes = [pe.Node(niu.IdentityInterface(list(fields)), name="inputnode")]
    if outputs:
        nodes.append(pe.Node(niu.IdentityInterface(list(outputs)), name="outputnode"))
    workflow.add_nodes(nodes)
    return Drawing(workflow, plan, run, given)


def _pairs(fields: Fields) -> list[tuple[str, str]]:
    if isinstance(fields, Mapping):
        return [(source, field) for field, source in fields.items()]
    return [(field, field) for field in fields]
