"""From a preprocessed diffusion run to tensor maps and fibre orientation distributions."""

from __future__ import annotations

from dataclasses import asdict

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from difftract_bids.config import FodfConfig
from difftract_bids.interfaces.fodf import EstimateResponse, FitFODF, FitTensor

_DIFFUSION = [(name, name) for name in ("dwi", "bval", "bvec", "mask")]


def init_fodf_wf(
    config: FodfConfig,
    *,
    b0_threshold_s_mm2: float = 50.0,
    omp_nthreads: int = 1,
    mem_gb: float = 1.0,
    name: str = "fodf_wf",
) -> LiterateWorkflow:
    """Fit tensors and fODFs.

    Parameters
    ----------
    config
        Settings of this stage.
    b0_threshold_s_mm2
        Volumes up to this b-value count as b=0, s/mm².
    omp_nthreads
        CPUs that one step may use.
    mem_gb
        Size of the diffusion image in memory (float32), GB.
    name
        Name of the workflow.

    Inputs
    ------
    dwi, bval, bvec, mask
        The preprocessed run.

    Outputs
    -------
    fa, md, v1
        Tensor maps; ``v1`` is the principal eigenvector in scanner axes.
    response
        Single-fibre response function, MRtrix's text format.
    fodf
        SH coefficients in MRtrix's basis, scanner axes.
    fodf_metadata
        Content of the fODF's sidecar.
    notes
        What a user should know about the fits.
    """
    workflow = LiterateWorkflow(name=name)
    degree = (
        f"up to degree {config.lmax}"
        if config.lmax
        else "up to degree 8, or less where there are fewer directions than coefficients"
    )
    workflow.__desc__ = (
        "### Fibre orientations\n\nA diffusion tensor was fitted by weighted least squares "
        "[@basser1994], with DIPY [@garyfallidis2014], for maps of fractional anisotropy and mean "
        "diffusivity. Fibre orientation distributions (fODFs) were estimated by constrained "
        f"spherical deconvolution [@tournier2007] with spherical harmonics {degree}, with a "
        "response from the voxels that look most like a single fibre [@tournier2013].\n\n"
    )
    inputs = pe.Node(niu.IdentityInterface([name for name, _ in _DIFFUSION]), name="inputnode")
    outputs = pe.Node(
        niu.IdentityInterface(["fa", "md", "v1", "response", "fodf", "fodf_metadata", "notes"]),
        name="outputnode",
    )
    resources = {"n_procs": omp_nthreads, "mem_gb": 0.5 + 4 * mem_gb}
    tensor = pe.Node(FitTensor(b0_threshold_s_mm2=b0_threshold_s_mm2), name="tensor", **resources)
    response = pe.Node(
        EstimateResponse(b0_threshold_s_mm2=b0_threshold_s_mm2, **asdict(config)),
        name="response",
        **resources,
    )
    fodf = pe.Node(
        FitFODF(b0_threshold_s_mm2=b0_threshold_s_mm2, **asdict(config)), name="fodf", **resources
    )
    workflow.connect([
        (inputs, tensor, _DIFFUSION),
        (inputs, response, _DIFFUSION),
        (inputs, fodf, _DIFFUSION),
        (response, fodf, [("response", "response")]),
        (tensor, outputs, [("fa", "fa"), ("md", "md"), ("v1", "v1")]),
        (response, outputs, [("response", "response"), ("notes", "notes")]),
        (fodf, outputs, [("fodf", "fodf"), ("metadata", "fodf_metadata")]),
    ])  # fmt: skip
    return workflow
