"""Head motion, eddy currents and outliers by FSL's eddy."""

from __future__ import annotations

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from difftract_bids.bids.phase_encoding import PhaseEncoding
from difftract_bids.interfaces.fsl import CollectEddy, Eddy, PrepareEddy


def init_eddy_wf(
    encoding: PhaseEncoding,
    program: str,
    *,
    with_topup: bool = False,
    b0_threshold_s_mm2: float = 50.0,
    omp_nthreads: int = 1,
    mem_gb: float = 1.0,
    name: str = "eddy_wf",
) -> LiterateWorkflow:
    """Correct a run by FSL's eddy, with topup's field if there is one.

    Parameters
    ----------
    encoding
        Phase encoding of the run.
    program
        Name that eddy has on the PATH (:func:`difftract_bids.bids.fsl.find_eddy`).
    with_topup
        Whether topup was run.
    b0_threshold_s_mm2
        Volumes up to this b-value count as b=0.
    omp_nthreads
        CPUs that one step may use.
    mem_gb
        Size of the diffusion image in memory (float32), GB.
    name
        Name of the workflow.

    Inputs
    ------
    dwi, bval, bvec, mask
        The run, and a brain mask: in its distorted space, but without distortion with topup
        (https://fsl.fmrib.ox.ac.uk/fsl/docs, eddy, ``--mask``).
    fieldcoef, movpar, encoding_file
        Of :func:`difftract_bids.workflows.susceptibility.init_topup_wf`, ``with_topup`` only.

    Outputs
    -------
    dwi, bval, bvec
        Corrected image (susceptibility too, with topup) and rotated table.
    affines
        Head motion, a row of 3x4 numbers a volume.
    outliers
        Table of outlier slices.
    notes
        What the user should know.

    Examples
    --------
    >>> from pathlib import Path
    >>> from difftract_bids.bids.phase_encoding import PhaseEncoding
    >>> from difftract_bids.workflows.eddy import init_eddy_wf
    >>> encoding = PhaseEncoding("j", -1, readout_s=0.05)
    >>> workflow = init_eddy_wf(encoding, "eddy_openmp", with_topup=True)
    >>> workflow.inputs.inputnode.dwi = Path("raw.nii.gz").absolute()
    >>> workflow.get_node("eddy").inputs.repol
    True
    """
    workflow = LiterateWorkflow(name=name)
    workflow.__desc__ = (
        "Head motion and eddy currents were corrected, and outlier slices replaced, by FSL's eddy "
        "[@andersson2016; @andersson2016outliers].\n\n"
    )
    run = ("dwi", "bval", "bvec", "mask")
    topup = ("fieldcoef", "movpar", "encoding_file")
    given = ("dwi", "bval", "bvec", "affines", "outliers")
    inputs = pe.Node(niu.IdentityInterface([*run, *topup]), name="inputnode")
    outputs = pe.Node(niu.IdentityInterface([*given, "notes"]), name="outputnode")
    threshold = {"b0_threshold_s_mm2": b0_threshold_s_mm2}
    readout = {} if encoding.readout_s is None else {"readout_s": encoding.readout_s}
    prepare = pe.Node(
        PrepareEddy(pe_direction=encoding.direction, **threshold, **readout),
        name="prepare",
        mem_gb=0.5 + 3 * mem_gb,
    )
    cuda = program.startswith("eddy_cuda")
    eddy = pe.Node(
        Eddy(
            program=program,
            use_cuda=cuda,
            repol=True,
            is_shelled=True,
            output_type="NIFTI_GZ",
            num_threads=omp_nthreads,
        ),
        name="eddy",
        n_procs=omp_nthreads,
        mem_gb=1.0 + 6 * mem_gb,
    )
    collect = pe.Node(CollectEddy(**threshold), name="collect", mem_gb=0.5 + 3 * mem_gb)
    merge = pe.Node(niu.Merge(2, ravel_inputs=True), name="merge_notes", mem_gb=0.1)
    prepared = ("in_file", "in_mask", "in_bval", "in_bvec", "in_acqp", "in_index")
    workflow.connect([
        (inputs, prepare, [(item, item) for item in run]),
        (prepare, eddy, [(item, item) for item in prepared]),
        (inputs, collect, [("dwi", "dwi"), ("bval", "bval")]),
        (eddy, collect, [
            ("out_corrected", "corrected"),
            ("out_rotated_bvecs", "rotated_bvecs"),
            ("out_parameter", "eddy_parameters"),
            ("out_outlier_report", "outlier_report"),
        ]),
        (collect, outputs, [(item, item) for item in given]),
        (prepare, merge, [("notes", "in1")]),
        (collect, merge, [("notes", "in2")]),
        (merge, outputs, [("out", "notes")]),
    ])  # fmt: skip
    if with_topup:
        workflow.connect([
            (inputs, prepare, [("encoding_file", "encoding_file")]),
            (inputs, eddy, [("fieldcoef", "in_topup_fieldcoef"), ("movpar", "in_topup_movpar")]),
        ])  # fmt: skip
    return workflow
