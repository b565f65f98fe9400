"""One atlas in one diffusion run: parcellation, connectome, figures and files."""

from __future__ import annotations

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from difftract_bids.bids.atlases import Atlas, parcellation_of
from difftract_bids.bids.plan import Plan
from difftract_bids.bids.runs import DWIRun
from difftract_bids.workflows.anatomical import init_parcellation_wf
from difftract_bids.workflows.connectome import init_connectome_wf
from difftract_bids.workflows.derivatives import init_atlas_derivatives_wf
from difftract_bids.workflows.reporting import init_atlas_report_wf

_INPUTS = ["dwiref", "mask", "summary", "warp", "affine"]


def init_atlas_wf(plan: Plan, run: DWIRun, atlas: Atlas) -> LiterateWorkflow:
    """Bring an atlas into a run's space and build its connectome.

    Parameters
    ----------
    plan, run
        What to do, on which files.
    atlas
        The atlas; the workflow is called ``atlas_<its name>_wf``.

    Inputs
    ------
    dwiref, mask
        Reference image and brain mask of the run.
    summary
        Ends and length of each of its streamlines.
    warp, affine
        From the atlas's space to the run's, see
        :func:`difftract_bids.workflows.anatomical.init_parcellation_wf`.

    Outputs
    -------
    count
        Streamline count matrix (TSV).
    notes
        What a user should know about parcellation and matrix.
    """
    own = parcellation_of(atlas, run) if atlas.kind == "subject" else atlas
    workflow = LiterateWorkflow(name=f"atlas_{atlas.name.replace('+', '_')}_wf")
    inputs = pe.Node(niu.IdentityInterface(_INPUTS), name="inputnode")
    outputs = pe.Node(niu.IdentityInterface(["count", "notes"]), name="outputnode")
    parcellation = init_parcellation_wf(atlas.name, str(own.image), str(own.table))
    connectome = init_connectome_wf(plan.config.connectome)
    connectome.inputs.inputnode.table = str(own.table)
    figures = init_atlas_report_wf(plan, run, atlas.name)
    save = init_atlas_derivatives_wf(plan, run, atlas.name)
    save.inputs.inputnode.dseg_table = str(own.table)
    notes = pe.Node(niu.Merge(2), name="notes", run_without_submitting=True)
    to_own_space = [(name, f"inputnode.{name}") for name in ("mask", "warp", "affine")]
    matrices = [
        (f"outputnode.{name}", f"inputnode.{name}")
        for name in ("count", "count_metadata", "meanlength", "meanlength_metadata", "nodeindices")
    ]
    workflow.connect([
        (inputs, parcellation, to_own_space),
        (inputs, connectome, [("summary", "inputnode.summary")]),
        (inputs, figures, [("dwiref", "inputnode.dwiref"), ("mask", "inputnode.mask")]),
        (parcellation, connectome, [("outputnode.parcellation", "inputnode.parcellation")]),
        (parcellation, figures, [("outputnode.parcellation", "inputnode.parcellation")]),
        (parcellation, save, [("outputnode.parcellation", "inputnode.dseg")]),
        (connectome, figures, [("outputnode.count", "inputnode.count")]),
        (connectome, save, matrices),
        (parcellation, notes, [("outputnode.notes", "in1")]),
        (connectome, notes, [("outputnode.notes", "in2")]),
        (connectome, outputs, [("outputnode.count", "count")]),
        (notes, outputs, [("out", "notes")]),
    ])  # fmt: skip
    return workflow
