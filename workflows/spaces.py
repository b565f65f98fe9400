"""How the anatomy, templates and tissues come into the space of a diffusion run."""

from __future__ import annotations

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from difftract_bids.bids import stages
from difftract_bids.bids.atlases import Atlas, parcellation_of
from difftract_bids.bids.plan import Plan
from difftract_bids.bids.runs import DWIRun
from difftract_bids.workflows.anatomical import (
    init_align_t1w_wf,
    init_given_template_wf,
    init_pseudo_t1w_wf,
    init_template_wf,
    init_tissue_wf,
)
from difftract_bids.workflows.anatomy_report import init_template_report_wf, init_tissue_report_wf
from difftract_bids.workflows.derivatives import init_template_derivatives_wf
from difftract_bids.workflows.wiring import between


class Spaces:
    """What brings anatomy to a run: made once, however many atlases there are.

    Parameters
    ----------
    workflow, plan, run
        The graph of the run, and what is to be done. The alignment of its T1w is added, or what
        stands in for it.
    preprocessing, fodf, save, report
        Stages of that graph.
    omp_nthreads
        CPUs that one step may use.
    """

    def __init__(
        self,
        workflow: LiterateWorkflow,
        plan: Plan,
        run: DWIRun,
        *,
        preprocessing: LiterateWorkflow,
        fodf: LiterateWorkflow,
        save: LiterateWorkflow,
        report: LiterateWorkflow,
        omp_nthreads: int,
    ) -> None:
        self._workflow, self._plan, self._run = workflow, plan, run
        self._preprocessing, self._report, self._omp_nthreads = preprocessing, report, omp_nthreads
        self._templates: dict[str, LiterateWorkflow] = {}
        #: Figures and checks of the templates that have been joined to the run.
        self.template_reports: list[LiterateWorkflow] = []
        self._known = plan.templates_of(run)
        if run.t1w is None:
            self._t1w = init_pseudo_t1w_wf()
            workflow.connect([
                (preprocessing, self._t1w, between("mask")),
                (fodf, self._t1w, between("fa", "md")),
            ])  # fmt: skip
            return
        saved = ["t1w_dwi"]
        if stages.is_aligned_here(run):
            self._t1w = init_align_t1w_wf(omp_nthreads=omp_nthreads)
            self._t1w.inputs.inputnode.t1w = str(run.t1w)
            workflow.connect([(preprocessing, self._t1w, between("dwiref", "mask"))])
            saved += ["t1w_to_dwi", "dwi_to_t1w"]
        else:
            self._t1w = _init_given_t1w_wf(str(run.t1w))
        workflow.connect([
            (self._t1w, report, between("t1w_dwi")),
            (self._t1w, save, between(*saved)),
        ])  # fmt: skip

    def bring(self, atlas: Atlas, node: LiterateWorkflow) -> None:
        """Give a part of the graph its way from an atlas's space to the run's, if it needs one."""
        if atlas.kind == "template":
            template = self._template(str(atlas.template))
            self._workflow.connect([(template, node, between("warp", "affine"))])
        elif parcellation_of(atlas, self._run).space == "T1w":
            self._carry(node, t1w_to_dwi="affine")

    def tissue(self) -> LiterateWorkflow:
        """Add what maps the tissues of the T1w."""
        run, source = self._run, stages.tissue_source(self._run)
        template = stages.tissue_template(run, self._plan.config, self._plan.atlases)
        given = run.anatomy.t1w_mask is not None
        image = None if given or template is None else str(template[1])
        tissue = init_tissue_wf(source, template_t1w=image)
        entry = tissue.inputs.inputnode
        if source == "labels":
            entry.labels = str(run.anatomy.aparcaseg)
        elif source == "probabilities":
            for name, path in run.anatomy.probseg.items():
                setattr(entry, name.lower(), str(path))
        else:
            self._workflow.connect([
                (self._t1w, tissue, between("t1w_dwi")),
                (self._preprocessing, tissue, between("mask")),
            ])  # fmt: skip
            if given:
                entry.t1w_mask = str(run.anatomy.t1w_mask)
        self._carry(tissue, "t1w_to_dwi")
        if template is not None:
            way = self._template(template[0])
            self._workflow.connect([(way, tissue, between("warp", "affine"))])
        figure = init_tissue_report_wf(self._plan, run)
        self._workflow.connect([
            (tissue, figure, between("five_tissue_types")),
            (tissue, self._report, between("five_tissue_types")),
            (self._t1w, figure, between(t1w_dwi="t1w")),
        ])  # fmt: skip
        return tissue

    def _carry(self, node: LiterateWorkflow, *fields: str, **renamed: str) -> None:
        """Hand the alignment of the T1w on; where there was none to make, the spaces are one."""
        if stages.is_aligned_here(self._run):
            self._workflow.connect([(self._t1w, node, between(*fields, **renamed))])

    def _template(self, name: str) -> LiterateWorkflow:
        """Join a template to the run, the first time that it is asked for."""
        if name in self._templates:
            return self._templates[name]
        given = self._run.anatomy.from_template.get(name)
        if given is not None:
            node = init_given_template_wf(name, str(given), name=f"{name}_to_dwi_wf")
            self._carry(node, "t1w_to_dwi")
        else:
            node = init_template_wf(
                name,
                str(self._known[name]),
                omp_nthreads=self._omp_nthreads,
                name=f"{name}_to_dwi_wf",
            )
            self._workflow.connect([
                (self._preprocessing, node, between("mask")),
                (self._t1w, node, between(t1w_dwi="anatomy")),
            ])  # fmt: skip
        self._keep(name, node, is_ours=given is None)
        self._templates[name] = node
        return node

    def _keep(self, name: str, node: LiterateWorkflow, *, is_ours: bool) -> None:
        """Save the way to a template, and draw it."""
        save = init_template_derivatives_wf(self._plan, self._run, name)
        figure = init_template_report_wf(self._plan, self._run, name, str(self._known[name]))
        self.template_reports.append(figure)
        files = ["template_to_dwi"] + (["dwi_to_template"] if is_ours else [])
        self._workflow.connect([
            (node, save, between(*files)),
            (node, figure, between("warp", "affine")),
            (self._t1w, figure, between(t1w_dwi="t1w")),
            (self._preprocessing, figure, between("mask")),
        ])  # fmt: skip


def _init_given_t1w_wf(t1w: str) -> LiterateWorkflow:
    """Take a T1w that lies in the space of the diffusion run."""
    workflow = LiterateWorkflow(name="align_t1w_wf")
    workflow.__desc__ = (
        "### Anatomy\n\nThe T1-weighted image was taken in the space of the diffusion data, where "
        "another program had put it.\n\n"
    )
    outputs = pe.Node(niu.IdentityInterface(["t1w_dwi"]), name="outputnode")
    outputs.inputs.t1w_dwi = t1w
    workflow.add_nodes([outputs])
    return workflow
