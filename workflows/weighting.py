"""From streamlines and fibre orientation distributions to a weight for each streamline."""

from __future__ import annotations

from dataclasses import asdict

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from difftract_bids.config import SIFT2Config
from difftract_bids.interfaces.weighting import WeighStreamlines

_INPUTS = ["tractogram", "fodf", "mask"]
_OUTPUTS = ["weights", "metadata", "notes"]


def init_weighting_wf(
    config: SIFT2Config | None = None,
    *,
    omp_nthreads: int = 1,
    mem_gb: float = 1.0,
    name: str = "weighting_wf",
) -> LiterateWorkflow:
    """Weigh streamlines so that their density fits the fODFs.

    Parameters
    ----------
    config
        Settings of this stage.
    omp_nthreads
        CPUs that one step may use.
    mem_gb
        Size of the diffusion image in memory (float32), GB.
    name
        Name of the workflow.

    Inputs
    ------
    tractogram
        The streamlines.
    fodf
        SH coefficients of white matter, MRtrix's basis.
    mask
        Brain mask.

    Outputs
    -------
    weights
        Table of a weight for each streamline, in the tractogram's order.
    metadata
        Content of its sidecar.
    notes
        What a user should know about the fit.

    Examples
    --------
    >>> from pathlib import Path
    >>> from difftract_bids.workflows.weighting import init_weighting_wf
    >>> workflow = init_weighting_wf()
    >>> workflow.base_dir = "work"
    >>> workflow.config["execution"]["remove_unnecessary_outputs"] = "false"
    >>> workflow.inputs.inputnode.tractogram = Path("tractogram.trx").absolute()
    >>> workflow.inputs.inputnode.fodf = Path("fodf.nii.gz").absolute()
    >>> workflow.inputs.inputnode.mask = Path("mask.nii.gz").absolute()
    >>> graph = workflow.run()
    >>> Path("work/weighting_wf/weigh/weights.tsv").exists()
    True
    """
    workflow = LiterateWorkflow(name=name)
    workflow.__desc__ = (
        "### Streamline weights\n\nEach streamline was given a weight, such that the weighted "
        "density of streamlines fits the amplitude of the fODFs in every voxel and along every "
        "fibre orientation, by the method of SIFT2 [@smith2015sift2], in an implementation of "
        "this program's own.\n\n"
    )
    inputs = pe.Node(niu.IdentityInterface(_INPUTS), name="inputnode")
    outputs = pe.Node(niu.IdentityInterface(_OUTPUTS), name="outputnode")
    weigh = pe.Node(
        WeighStreamlines(**asdict(config or SIFT2Config())),
        name="weigh",
        n_procs=omp_nthreads,
        mem_gb=3.0 + 2 * mem_gb,
    )
    fields = [("tractogram", "tractogram"), ("fodf", "fodf"), ("mask", "brain_mask")]
    workflow.connect([
        (inputs, weigh, fields),
        (weigh, outputs, [(name, name) for name in _OUTPUTS]),
    ])  # fmt: skip
    return workflow
