"""One atlas in one diffusion run: parcellation, connectome, figures and files."""

from __future__ import annotations

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from difftract_bids.bids.atlases import Atlas, parcellation_of
from difftract_bids.bids.figures import told_measures
from difftract_bids.bids.given_files import connectome_of
from difftract_bids.bids.nodes import read_nodes
from difftract_bids.bids.plan import Plan
from difftract_bids.bids.runs import DWIRun
from difftract_bids.workflows.anatomical import init_parcellation_wf
from difftract_bids.workflows.atlas_report import init_atlas_report_wf
from difftract_bids.workflows.connectome import (
    connectome_methods,
    connectome_outputs,
    init_connectome_wf,
)
from difftract_bids.workflows.derivatives import init_atlas_derivatives_wf

_INPUTS = ["dwiref", "mask", "fa", "summary", "tractogram", "sift2_weights", "warp", "affine"]
_OUTPUTS = ["parcellation", "streamlines", "assigned", "hdf5", "notes", "checks"]


def atlas_wf_name(atlas: Atlas) -> str:
    """Name the workflow of an atlas."""
    return f"atlas_{atlas.name.replace('+', '_')}_wf"


def init_atlas_wf(plan: Plan, run: DWIRun, atlas: Atlas) -> LiterateWorkflow:
    """Bring an atlas into a run's space and build its connectome.

    Parameters
    ----------
    plan, run
        What to do, on which files.
    atlas
        The atlas; for the name of the workflow see :func:`atlas_wf_name`.

    Inputs
    ------
    dwiref, mask, fa
        Reference image, brain mask and anisotropy of the run.
    summary
        Ends, length and images of each of its streamlines.
    tractogram, sift2_weights
        The streamlines, and a weight for each; as far as the settings need them.
    warp, affine
        From the atlas's space to the run's, see
        :func:`difftract_bids.workflows.anatomical.init_parcellation_wf`.

    Outputs
    -------
    parcellation
        Label image in the run's space.
    streamlines, assigned
        Streamline count matrix (TSV), and how many streamlines connect nodes.
    hdf5
        All matrices in one file, if that is asked for.
    notes
        What a user should know about parcellation and matrix.
    checks
        What was found of the parcellation.

    Examples
    --------
    >>> from pathlib import Path
    >>> from difftract_bids.bids.plan import make_plan
    >>> from difftract_bids.config import Config
    >>> from difftract_bids.workflows.atlas import init_atlas_wf
    >>> plan = make_plan(Path("bids"), Path("out"), Path("work"), Config())
    >>> workflow = init_atlas_wf(plan, plan.runs[0], plan.atlases[0])
    >>> workflow.name
    'atlas_ICBM100_wf'
    >>> sorted({name.split(".")[0] for name in workflow.list_node_names()})[:3]
    ['connectome_wf', 'derivatives_wf', 'inputnode']
    """
    own = parcellation_of(atlas, run) if atlas.kind == "subject" else atlas
    workflow = LiterateWorkflow(name=atlas_wf_name(atlas))
    inputs = pe.Node(niu.IdentityInterface(_INPUTS), name="inputnode")
    outputs = pe.Node(niu.IdentityInterface(_OUTPUTS), name="outputnode")
    config = connectome_of(plan.config.connectome, run)
    parcellation = init_parcellation_wf(atlas.name, str(own.image), str(own.table))
    connectome = init_connectome_wf(config, n_nodes=len(read_nodes(own.table)))
    connectome.__desc__ = connectome_methods(plan.config.connectome)
    connectome.inputs.inputnode.table = str(own.table)
    figures = init_atlas_report_wf(plan, run, atlas.name)
    figures.inputs.inputnode.table = str(own.table)
    save = init_atlas_derivatives_wf(plan, run, atlas.name)
    save.inputs.inputnode.dseg_table = str(own.table)
    streamlines = ["summary"] + (["tractogram"] if config.follows_paths else [])
    streamlines += ["sift2_weights"] if "sift2" in config.connectome_measures else []
    shown = [(f"outputnode.{one}", f"inputnode.{one}") for one in ("streamlines", "nodeindices")]
    shown += [(f"outputnode.{name}", f"inputnode.{name}") for name in told_measures(plan.config)]
    passed_on = ["streamlines", "assigned", "notes"] + (["hdf5"] if config.connectome_hdf5 else [])
    # Of nodes without a voxel the connectome's notes tell, whoever lost them.
    workflow.connect([
        (inputs, parcellation, _same(["mask", "warp", "affine"])),
        (inputs, connectome, _same(streamlines)),
        (inputs, figures, _same(["dwiref", "mask", "fa"])),
        (figures, outputs, [("outputnode.checks", "checks")]),
        (parcellation, connectome, [("outputnode.parcellation", "inputnode.parcellation")]),
        (parcellation, figures, [("outputnode.parcellation", "inputnode.parcellation")]),
        (parcellation, save, [("outputnode.parcellation", "inputnode.dseg")]),
        (parcellation, outputs, [("outputnode.parcellation", "parcellation")]),
        (connectome, figures, shown),
        (connectome, save, [
            (f"outputnode.{name}", f"inputnode.{name}") for name in connectome_outputs(config)
        ]),
        (connectome, outputs, [(f"outputnode.{name}", name) for name in passed_on]),
    ])  # fmt: skip
    return workflow


def _same(names: list[str]) -> list[tuple[str, str]]:
    return [(name, f"inputnode.{name}") for name in names]
