"""The figures of finished runs, drawn again from what was saved."""

from __future__ import annotations

from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from difftract_bids.bids.atlases import Atlas
from difftract_bids.bids.drawn_from import (
    atlas_sources,
    counts_of,
    run_sources,
    template_sources,
    tissue_sources,
)
from difftract_bids.bids.labels import participant_wf_name
from difftract_bids.bids.plan import Plan
from difftract_bids.bids.runs import DWIRun
from difftract_bids.interfaces.reportlets.sensitivity import PlotEdgeErrors
from difftract_bids.interfaces.reread import RereadTractogram
from difftract_bids.workflows.anatomy_report import init_template_report_wf, init_tissue_report_wf
from difftract_bids.workflows.atlas import atlas_wf_name
from difftract_bids.workflows.atlas_report import init_atlas_report_wf
from difftract_bids.workflows.derivatives import init_checks_sink, init_report_sink
from difftract_bids.workflows.run_report import init_run_report_wf

#: What tracking gives to figures and derivatives do not hold.
_REREAD = ("preview", "summary")


def init_redrawing_wf(
    plan: Plan, *, omp_nthreads: int = 1, name: str = "redrawing_wf"
) -> LiterateWorkflow:
    """Build the graph that draws the figures of a plan again, from its derivatives.

    What cannot be drawn from them (images before a step, for one) is left as it is.

    Parameters
    ----------
    plan
        What was done.
    omp_nthreads
        CPUs that one step may use.
    name
        Name of the workflow.

    Examples
    --------
    >>> from pathlib import Path
    >>> from difftract_bids.bids.plan import make_plan
    >>> from difftract_bids.config import Config
    >>> from difftract_bids.workflows.redrawing import init_redrawing_wf
    >>> plan = make_plan(Path("bids"), Path("out"), Path("work"), Config())
    >>> workflow = init_redrawing_wf(plan)
    >>> workflow.list_node_names()  # nothing of it was ever saved
    []
    """
    workflow = LiterateWorkflow(name=name, base_dir=str(plan.scratch_dir))
    for participant in plan.participants:
        drawn = [_of_run(plan, run, omp_nthreads) for run in plan.of(participant)]
        parts = [part for part in drawn if part is not None]
        if parts:
            own = LiterateWorkflow(name=participant_wf_name(participant))
            own.add_nodes(parts)
            workflow.add_nodes([own])
    return workflow


def _of_run(plan: Plan, run: DWIRun, omp_nthreads: int) -> LiterateWorkflow | None:
    values = run_sources(plan, run)
    if not {"dwi", "bval", "bvec", "mask", "dwiref", "fa"} <= set(values):
        return None  # nothing that is worth a report
    workflow = LiterateWorkflow(name=f"{run.node_name}_wf")
    checking = _draw_templates(workflow, plan, run)
    checking += [_draw_atlas(workflow, plan, run, atlas) for atlas in plan.atlases]
    tissue = tissue_sources(plan, run)
    if tissue:
        _add(workflow, init_tissue_report_wf(plan, run), tissue)
        values["five_tissue_types"] = tissue["five_tissue_types"]
    tractogram = values.pop("tractogram", None)
    values |= counts_of(plan, run)
    given = {*values, "checks", *(_REREAD if tractogram else ())}
    report = init_run_report_wf(plan, run, given=given, omp_nthreads=omp_nthreads)
    _add(workflow, report, values)
    checks = pe.Node(
        niu.Merge(max(len(checking), 1), ravel_inputs=True),
        name="checks",
        run_without_submitting=True,
    )
    checks.inputs.in1 = []
    for place, node in enumerate(checking, start=1):
        workflow.connect([(node, checks, [("outputnode.checks", f"in{place}")])])
    workflow.connect([(checks, report, [("out", "inputnode.checks")])])
    if tractogram:
        reread = pe.Node(RereadTractogram(tractogram=tractogram), name="reread", mem_gb=1.0)
        workflow.connect([(reread, report, [(one, f"inputnode.{one}") for one in _REREAD])])
        if {"counts", "tractogram_metadata"} <= set(values):
            sink = init_checks_sink(plan, run)
            fields = [
                ("outputnode.checks", "in_file"),
                ("outputnode.checks_metadata", "meta_dict"),
            ]
            workflow.connect([(report, sink, fields)])
    return workflow


def _draw_templates(workflow: LiterateWorkflow, plan: Plan, run: DWIRun) -> list[Any]:
    drawn = []
    for template, t1w in plan.templates_of(run).items():
        values = template_sources(plan, run, template)
        report = init_template_report_wf(plan, run, template, str(t1w), given=set(values))
        if {"t1w", "mask", "warp"} <= set(values):
            drawn.append(_add(workflow, report, values))
    return drawn


def _draw_atlas(workflow: LiterateWorkflow, plan: Plan, run: DWIRun, atlas: Atlas) -> Any:
    values = atlas_sources(plan, run, atlas)
    report = init_atlas_report_wf(
        plan, run, atlas.name, given=set(values), name=atlas_wf_name(atlas)
    )
    sd = values.pop("sd", None)
    _add(workflow, report, values)
    if sd and "streamlines" in values:
        errors = PlotEdgeErrors(count=values["streamlines"], sd=sd)
        plot = pe.Node(errors, name=f"plot_errors_{atlas_wf_name(atlas)}", mem_gb=1.0)
        name = f"ds_errors_{atlas_wf_name(atlas)}"
        sink = init_report_sink(plan, run, "errors", atlas=atlas.name, name=name)
        sink.inputs.keep_drawn = True
        workflow.connect([(plot, sink, [("out_report", "in_file")])])
    return report


def _add(workflow: LiterateWorkflow, part: LiterateWorkflow, values: dict[str, Any]) -> Any:
    """Add a part, with values for its inputs."""
    workflow.add_nodes([part])
    entry = part.get_node("inputnode")
    for field, value in values.items():
        setattr(entry.inputs, field, value)
    return part
