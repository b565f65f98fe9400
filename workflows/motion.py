"""Head motion of one diffusion run, estimated and written down; nothing is resampled here."""

from __future__ import annotations

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from difftract_bids.config import PreprocessingConfig
from difftract_bids.interfaces.motion import EstimateHeadMotion, FlagOutliers, WriteConfounds
from difftract_bids.workflows.wiring import same


def init_head_motion_wf(
    config: PreprocessingConfig,
    *,
    omp_nthreads: int = 1,
    mem_gb: float = 1.0,
    name: str = "head_motion_wf",
) -> LiterateWorkflow:
    """Estimate head motion, flag slices that lost signal, and tabulate both.

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
    dwi, bval, bvec
        The run as acquired: neither interpolated nor denoised, as principal components of patches
        mix the positions of the head.
    pe_direction
        Phase encoding as in BIDS; judged by the images unless given.
    slice_direction
        ``SliceEncodingDirection`` as in BIDS; "k" unless given.

    Outputs
    -------
    affines
        Reference position (the first b=0 volume's) to each volume, RAS+ millimetres.
    bval, bvec
        Gradient table, directions turned with the head.
    confounds, outliers
        Tables of motion, and of flagged slices.
    notes
        What the user should know.

    Examples
    --------
    >>> from pathlib import Path
    >>> from difftract_bids.config import PreprocessingConfig
    >>> from difftract_bids.workflows.motion import init_head_motion_wf
    >>> workflow = init_head_motion_wf(PreprocessingConfig(), omp_nthreads=4)
    >>> workflow.inputs.inputnode.dwi = Path("raw.nii.gz").absolute()
    >>> workflow.inputs.inputnode.pe_direction = "j-"
    >>> sorted(workflow.list_node_names())[:3]
    ['confounds', 'estimate', 'flag']
    """
    workflow = LiterateWorkflow(name=name)
    workflow.__desc__ = (
        "Head motion was estimated on the images as acquired, by aligning each b=0 volume to the "
        "average of the others, and each diffusion-weighted volume to its prediction from the "
        "other volumes of its shell by Gaussian processes [@andersson2015; @andersson2016; "
        "@cieslak2021], with a shift along the axis of phase encoding, linear in position, for "
        "eddy currents where that axis is known or the images show it. Shells were brought to the "
        "first b=0 volume by the b=0 volumes between theirs, or by mutual information "
        "[@mattes2003]. b-vectors were "
        "turned with the head [@leemans2009]. Framewise displacement is that of @power2012, "
        "without shifts that follow the gradient, which are not the head's [@andersson2016]. "
        "Slices more than 4 robust standard deviations and 10% below their prediction were "
        "flagged, not replaced [@andersson2016outliers].\n\n"
    )
    inputs = pe.Node(
        niu.IdentityInterface(["dwi", "bval", "bvec", "pe_direction", "slice_direction"]),
        name="inputnode",
    )
    inputs.inputs.slice_direction = "k"
    outputs = pe.Node(
        niu.IdentityInterface(["affines", "bval", "bvec", "confounds", "outliers", "notes"]),
        name="outputnode",
    )
    threshold = {"b0_threshold_s_mm2": config.b0_threshold_s_mm2}
    size = {"n_procs": omp_nthreads, "mem_gb": 0.5 + 6 * mem_gb}
    estimate = pe.Node(EstimateHeadMotion(**threshold), name="estimate", **size)
    flag = pe.Node(FlagOutliers(**threshold), name="flag", **size)
    confounds = pe.Node(WriteConfounds(**threshold), name="confounds", mem_gb=0.3 + mem_gb)
    notes = pe.Node(niu.Merge(2), name="notes")
    workflow.connect([
        (inputs, estimate, [(field, field) for field in ("dwi", "bval", "bvec", "pe_direction")]),
        (inputs, flag, [("dwi", "dwi"), ("slice_direction", "slice_direction")]),
        (inputs, confounds, [("dwi", "dwi")]),
        (estimate, flag, same("affines", "bval", "bvec", "mask")),
        (estimate, confounds, same("rigid", "bval", "bvec", "mask")),
        (flag, confounds, [("outliers", "outliers")]),
        (estimate, notes, [("notes", "in1")]),
        (flag, notes, [("notes", "in2")]),
        (estimate, outputs, [("affines", "affines"), ("bval", "bval"), ("bvec", "bvec")]),
        (flag, outputs, [("outliers", "outliers")]),
        (confounds, outputs, [("confounds", "confounds")]),
        (notes, outputs, [("out", "notes")]),
    ])  # fmt: skip
    return workflow
