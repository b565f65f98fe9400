"""Where every voxel of every volume was: motion and distortion, undone in one interpolation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from difftract_bids.bids.phase_encoding import OpposedImage, PhaseEncoding
from difftract_bids.config import MotionCorrection, PreprocessingConfig
from difftract_bids.interfaces.motion import ResampleDWI, WriteConfounds
from difftract_bids.interfaces.preprocessing import ComputeBrainMask, ExtractReference
from difftract_bids.interfaces.susceptibility import UndistortMask
from difftract_bids.workflows.eddy import init_eddy_wf
from difftract_bids.workflows.motion import init_head_motion_wf
from difftract_bids.workflows.susceptibility import init_t1w_susceptibility_wf, init_topup_wf
from difftract_bids.workflows.wiring import between, same

_SERIES = ("dwi", "bval", "bvec")
_TABLES = ("confounds", "outliers")


@dataclass(frozen=True)
class Displacements:
    """What is known, and done, about where voxels are.

    Attributes
    ----------
    motion
        How head motion is corrected.
    distortion
        How susceptibility distortion is.
    encoding
        Phase encoding; ``None`` where it is unknown, and then neither eddy nor any correction of
        distortion can be had.
    opposed
        Images of opposed phase encoding, for topup.
    eddy
        Name that eddy has on the PATH.
    slice_direction
        ``SliceEncodingDirection`` as in BIDS.
    """

    motion: MotionCorrection = "dipy"
    distortion: Literal["topup", "t1w", "none"] = "none"
    encoding: PhaseEncoding | None = None
    opposed: tuple[OpposedImage, ...] = ()
    eddy: str = "eddy"
    slice_direction: str = "k"


def init_displacements_wf(
    config: PreprocessingConfig,
    displacements: Displacements,
    *,
    omp_nthreads: int = 1,
    mem_gb: float = 1.0,
    name: str = "displacements_wf",
) -> LiterateWorkflow:
    """Bring all volumes to one position, undistorted, and to the voxel size asked for.

    Parameters
    ----------
    config
        Settings of this stage.
    displacements
        What is known and done.
    omp_nthreads
        CPUs that one step may use.
    mem_gb
        Size of the series in memory (float32), GB.
    name
        Name of the workflow.

    Inputs
    ------
    dwi, bval, bvec
        The series, not interpolated yet.
    raw
        It before denoising, which motion is estimated on (but by eddy, which has ways of its own).
    t1w
        T1w image, where distortion is estimated from it.

    Outputs
    -------
    dwi, bval, bvec
        The series in place, directions turned with the head.
    confounds, outliers
        Tables of motion and of flagged slices, if motion was corrected.
    notes
        What the user should know.

    Examples
    --------
    >>> from difftract_bids.bids.phase_encoding import PhaseEncoding
    >>> from difftract_bids.config import PreprocessingConfig
    >>> from difftract_bids.workflows.displacements import Displacements, init_displacements_wf
    >>> known = Displacements(
    ...     motion="dipy", distortion="t1w", encoding=PhaseEncoding("j", -1, readout_s=0.05)
    ... )
    >>> workflow = init_displacements_wf(PreprocessingConfig(), known)
    >>> workflow.get_node("susceptibility_wf").list_node_names()
    ['estimate', 'inputnode', 'outputnode']
    """
    workflow = LiterateWorkflow(name=name)
    inputs = pe.Node(niu.IdentityInterface([*_SERIES, "raw", "t1w"]), name="inputnode")
    outputs = pe.Node(niu.IdentityInterface([*_SERIES, *_TABLES, "notes"]), name="outputnode")
    notes = pe.Node(niu.Merge(2, ravel_inputs=True), name="notes", run_without_submitting=True)
    workflow.connect([(notes, outputs, [("out", "notes")])])
    size: dict[str, Any] = {"omp_nthreads": omp_nthreads, "mem_gb": mem_gb}
    build = _by_eddy if displacements.motion == "eddy" else _by_registration
    build(workflow, inputs, outputs, config, displacements, size)
    return workflow


def _by_registration(workflow, inputs, outputs, config, displacements, size):
    """Estimate everything on the distorted series, and resample it once."""
    resample = _resampling(config, displacements, size)
    moves = displacements.motion != "none"
    table, fields = inputs, ("bval", "bvec")
    if moves:
        table = init_head_motion_wf(config, **size)
        table.inputs.inputnode.slice_direction = displacements.slice_direction
        if displacements.encoding is not None:
            table.inputs.inputnode.pe_direction = displacements.encoding.direction
        fields = ("outputnode.bval", "outputnode.bvec")
        workflow.connect([
            (inputs, table, [
                ("raw", "inputnode.dwi"), *same("bval", "bvec", target="inputnode."),
            ]),
            (table, resample, [("outputnode.affines", "affines")]),
            (table, outputs, same(*_TABLES, source="outputnode.")),
            (table, workflow.get_node("notes"), [("outputnode.notes", "in1")]),
        ])  # fmt: skip
    workflow.connect([
        (inputs, resample, [("dwi", "dwi")]),
        (table, outputs, list(zip(fields, ("bval", "bvec"), strict=True))),
        (resample, outputs, [("dwi", "dwi")]),
    ])  # fmt: skip
    if displacements.distortion == "topup":
        topup = _topup(workflow, inputs, config, displacements)
        workflow.connect([(topup, resample, [("outputnode.displacement", "displacement")])])
    elif displacements.distortion == "t1w":
        reference = _reference(config, size)
        if moves:
            workflow.connect([(table, reference, [("outputnode.affines", "affines")])])
        workflow.connect([(inputs, reference, same(*_SERIES))])
        _from_t1w(workflow, inputs, reference, resample, displacements, size)


def _by_eddy(workflow, inputs, outputs, config, displacements, size):
    """Let eddy resample; what remains, if anything, is a second interpolation."""
    with_topup = displacements.distortion == "topup"
    reference, mask = _reference(config, size), _mask(size)
    threshold = {"b0_threshold_s_mm2": config.b0_threshold_s_mm2}
    eddy = init_eddy_wf(
        displacements.encoding, displacements.eddy, with_topup=with_topup, **threshold, **size
    )
    confounds = pe.Node(WriteConfounds(**threshold), name="confounds")
    workflow.connect([
        (inputs, reference, same(*_SERIES)),
        (reference, mask, [("dwiref", "dwiref"), ("meandwi", "meandwi")]),
        (inputs, eddy, same(*_SERIES, target="inputnode.")),
        (eddy, confounds, [
            *same(*_SERIES, "outliers", source="outputnode."), ("outputnode.affines", "rigid"),
        ]),
        (confounds, outputs, [("confounds", "confounds")]),
        (eddy, outputs, same("bval", "bvec", "outliers", source="outputnode.")),
        (eddy, workflow.get_node("notes"), [("outputnode.notes", "in1")]),
    ])  # fmt: skip
    if with_topup:
        topup = _topup(workflow, inputs, config, displacements)
        given = ("fieldcoef", "movpar", "encoding_file")
        straight = pe.Node(
            UndistortMask(pe_direction=displacements.encoding.direction), name="undistorted_mask"
        )
        workflow.connect([
            (topup, eddy, between(*given)),
            (topup, straight, [("outputnode.displacement", "displacement")]),
            (mask, straight, [("mask", "mask")]),
            (straight, eddy, [("mask", "inputnode.mask")]),
        ])  # fmt: skip
    else:
        workflow.connect([(mask, eddy, [("mask", "inputnode.mask")])])
    if displacements.distortion != "t1w" and config.output_resolution_mm is None:
        workflow.connect([(eddy, outputs, [("outputnode.dwi", "dwi")])])
        return
    resample = _resampling(config, displacements, size)
    workflow.connect([
        (eddy, resample, [("outputnode.dwi", "dwi")]),
        (resample, outputs, [("dwi", "dwi")]),
    ])  # fmt: skip
    if displacements.distortion == "t1w":
        corrected = _reference(config, size, name="corrected_reference")
        workflow.connect([(eddy, corrected, same(*_SERIES, source="outputnode."))])
        _from_t1w(workflow, inputs, corrected, resample, displacements, size)


def _from_t1w(workflow, inputs, reference, resample, displacements, size):
    """Estimate the distortion of a reference image from the T1w."""
    mask = _mask(size, name="distorted_mask")
    susceptibility = init_t1w_susceptibility_wf(
        displacements.encoding, omp_nthreads=size["omp_nthreads"]
    )
    workflow.connect([
        (inputs, susceptibility, [("t1w", "inputnode.t1w")]),
        (reference, mask, [("dwiref", "dwiref"), ("meandwi", "meandwi")]),
        (reference, susceptibility, [("dwiref", "inputnode.dwiref")]),
        (mask, susceptibility, [("mask", "inputnode.mask")]),
        (susceptibility, resample, [("outputnode.displacement", "displacement")]),
        (susceptibility, workflow.get_node("notes"), [("outputnode.notes", "in2")]),
    ])  # fmt: skip


def _topup(workflow, inputs, config, displacements):
    topup = init_topup_wf(
        displacements.encoding,
        displacements.opposed,
        b0_threshold_s_mm2=config.b0_threshold_s_mm2,
    )
    workflow.connect([(inputs, topup, same("dwi", "bval", target="inputnode."))])
    return topup


def _resampling(config, displacements, size):
    interface = ResampleDWI(output_resolution_mm=config.output_resolution_mm)
    if displacements.encoding is not None:
        interface.inputs.pe_direction = displacements.encoding.direction
    memory_gb = 0.5 + 4 * size["mem_gb"]
    return pe.Node(interface, name="resample", n_procs=size["omp_nthreads"], mem_gb=memory_gb)


def _reference(config, size, name="reference"):
    interface = ExtractReference(b0_threshold_s_mm2=config.b0_threshold_s_mm2)
    return pe.Node(interface, name=name, mem_gb=0.3 + 2 * size["mem_gb"])


def _mask(size, name="mask"):
    return pe.Node(ComputeBrainMask(), name=name, n_procs=size["omp_nthreads"], mem_gb=0.5)
