"""Susceptibility distortion as a displacement: from opposed images, or from the T1w."""

from __future__ import annotations

from collections.abc import Sequence

from nipype.interfaces import fsl
from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from difftract_bids.bids.phase_encoding import OpposedImage, PhaseEncoding
from difftract_bids.interfaces.fsl import PrepareTopup
from difftract_bids.interfaces.susceptibility import (
    EstimateSusceptibilityFromT1w,
    FieldToDisplacement,
)


def init_t1w_susceptibility_wf(
    encoding: PhaseEncoding, *, omp_nthreads: int = 1, name: str = "susceptibility_wf"
) -> LiterateWorkflow:
    """Estimate susceptibility distortion by registration to the T1w.

    Parameters
    ----------
    encoding
        Phase encoding of the run.
    omp_nthreads
        CPUs that one step may use.
    name
        Name of the workflow.

    Inputs
    ------
    dwiref, mask, t1w
        Mean b=0 image, brain mask on its grid, and T1w.

    Outputs
    -------
    displacement
        Along the phase-encoding voxel axis, mm.
    notes
        What the user should know.

    Examples
    --------
    >>> from pathlib import Path
    >>> from difftract_bids.bids.phase_encoding import PhaseEncoding
    >>> from difftract_bids.workflows.susceptibility import init_t1w_susceptibility_wf
    >>> workflow = init_t1w_susceptibility_wf(PhaseEncoding("j", -1))
    >>> workflow.inputs.inputnode.t1w = Path("T1w.nii.gz").absolute()
    >>> workflow.get_node("estimate").inputs.pe_direction
    'j-'
    """
    workflow = LiterateWorkflow(name=name)
    workflow.__desc__ = (
        "Susceptibility distortion was estimated by registering the b=0 reference to the "
        "T1-weighted image along the phase-encoding axis "
        "[@studholme2000; @bhushan2015].\n\n"
    )
    names = ("dwiref", "mask", "t1w")
    inputs = pe.Node(niu.IdentityInterface(list(names)), name="inputnode")
    outputs = pe.Node(niu.IdentityInterface(["displacement", "notes"]), name="outputnode")
    estimate = pe.Node(
        EstimateSusceptibilityFromT1w(pe_direction=encoding.direction),
        name="estimate",
        n_procs=omp_nthreads,
        mem_gb=2.0,
    )
    workflow.connect([
        (inputs, estimate, [(item, item) for item in names]),
        (estimate, outputs, [("displacement", "displacement"), ("notes", "notes")]),
    ])  # fmt: skip
    return workflow


def init_topup_wf(
    encoding: PhaseEncoding,
    opposed: Sequence[OpposedImage],
    *,
    b0_threshold_s_mm2: float = 50.0,
    name: str = "susceptibility_wf",
) -> LiterateWorkflow:
    """Estimate susceptibility distortion from b=0 images of opposed phase encoding, by topup.

    Parameters
    ----------
    encoding
        Phase encoding of the run; its readout time is known.
    opposed
        Images encoded the opposite way.
    b0_threshold_s_mm2
        Volumes up to this b-value count as b=0.
    name
        Name of the workflow.

    Inputs
    ------
    dwi, bval
        The run, motion not corrected.

    Outputs
    -------
    displacement
        Along the phase-encoding voxel axis, mm.
    fieldcoef, movpar, encoding_file
        What eddy reads of topup's.

    Examples
    --------
    >>> from pathlib import Path
    >>> from difftract_bids.bids.phase_encoding import OpposedImage, PhaseEncoding
    >>> from difftract_bids.workflows.susceptibility import init_topup_wf
    >>> own, other = PhaseEncoding("j", -1, 0.05), PhaseEncoding("j", 1, 0.05)
    >>> workflow = init_topup_wf(own, [OpposedImage(Path("epi.nii.gz").absolute(), other)])
    >>> workflow.inputs.inputnode.dwi = Path("raw.nii.gz").absolute()
    >>> sorted(workflow.list_node_names())
    ['convert', 'inputnode', 'outputnode', 'prepare', 'topup']
    """
    workflow = LiterateWorkflow(name=name)
    workflow.__desc__ = (
        "Susceptibility distortion was estimated from b=0 images of opposed phase encoding by "
        "FSL's topup [@andersson2003].\n\n"
    )
    given = ("fieldcoef", "movpar", "encoding_file")
    inputs = pe.Node(niu.IdentityInterface(["dwi", "bval"]), name="inputnode")
    outputs = pe.Node(niu.IdentityInterface(["displacement", *given]), name="outputnode")
    prepare = pe.Node(
        PrepareTopup(
            pe_direction=encoding.direction,
            readout_s=encoding.readout_s,
            opposed=[str(one.image) for one in opposed],
            opposed_bvals=[str(one.bval or "") for one in opposed],
            opposed_directions=[one.phase_encoding.direction for one in opposed],
            opposed_readouts_s=[one.phase_encoding.readout_s for one in opposed],
            b0_threshold_s_mm2=b0_threshold_s_mm2,
        ),
        name="prepare",
        mem_gb=2.0,
    )
    topup = pe.Node(fsl.TOPUP(output_type="NIFTI_GZ"), name="topup", mem_gb=3.0)
    convert = pe.Node(
        FieldToDisplacement(pe_direction=encoding.direction, readout_s=encoding.readout_s),
        name="convert",
        mem_gb=1.0,
    )
    workflow.connect([
        (inputs, prepare, [("dwi", "dwi"), ("bval", "bval")]),
        (inputs, convert, [("dwi", "dwiref")]),
        (prepare, topup, [
            ("in_file", "in_file"), ("encoding_file", "encoding_file"), ("config", "config"),
        ]),
        (topup, convert, [("out_field", "field")]),
        (convert, outputs, [("displacement", "displacement")]),
        (prepare, outputs, [("encoding_file", "encoding_file")]),
        (topup, outputs, [("out_fieldcoef", "fieldcoef"), ("out_movpar", "movpar")]),
    ])  # fmt: skip
    return workflow
