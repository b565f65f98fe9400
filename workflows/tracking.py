"""From fibre orientation distributions to streamlines."""

from __future__ import annotations

from dataclasses import asdict

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from difftract_bids.config import OutputConfig, SeedingConfig, TrackingConfig
from difftract_bids.interfaces.tracking import TrackStreamlines


def init_tracking_wf(
    tracking: TrackingConfig,
    seeding: SeedingConfig,
    output: OutputConfig,
    *,
    omp_nthreads: int = 1,
    mem_gb: float = 1.0,
    name: str = "tracking_wf",
) -> LiterateWorkflow:
    """Track streamlines from random seeds in a mask.

    Parameters
    ----------
    tracking, seeding, output
        Settings of this stage.
    omp_nthreads
        CPUs that tracking may use.
    mem_gb
        Size of the fODF image in memory (float32), GB.
    name
        Name of the workflow.

    Inputs
    ------
    fodf
        SH coefficients, MRtrix's basis.
    mask
        Where seeds are placed and streamlines may run.

    Outputs
    -------
    tractogram
        Streamlines in scanner (RAS+) millimetres.
    metadata
        Content of the tractogram's sidecar.
    """
    workflow = LiterateWorkflow(name=name)
    integrator = {
        "euler": "Euler's method",
        "midpoint": "the midpoint rule",
        "rk4": "the fourth-order Runge-Kutta method in MRtrix3's form",
        "rk4_classic": "the classical fourth-order Runge-Kutta method",
    }[tracking.integrator]
    steps = "0.1" if tracking.integrator == "euler" else "0.25"
    step = f"{tracking.step_size_mm:g} mm" if tracking.step_size_mm else f"{steps} voxels"
    in_voxels = tracking.resolve(1.0)
    workflow.__desc__ = (
        "### Tractography\n\nStreamlines were propagated along fODF peaks by the deterministic "
        "SD_STREAM algorithm of MRtrix3 [@tournier2012; @tournier2019], in a differentiable "
        f"implementation in PyTorch [@paszke2019]. {seeding.n_seeds:,} seeds were placed at "
        f"random in the brain mask (random seed {seeding.random_seed}) and followed both ways with "
        f"{integrator}, in steps of {step} with at most {in_voxels.max_angle_deg:g} degrees "
        f"between them, to an fODF amplitude below {in_voxels.cutoff:g}.\n\n"
    )
    inputs = pe.Node(niu.IdentityInterface(["fodf", "mask"]), name="inputnode")
    outputs = pe.Node(niu.IdentityInterface(["tractogram", "metadata"]), name="outputnode")
    track = pe.Node(
        TrackStreamlines(**asdict(tracking), **asdict(seeding), **asdict(output)),
        name="track",
        n_procs=omp_nthreads,
        mem_gb=1.5 + 2 * mem_gb,
    )
    workflow.connect([
        (inputs, track, [("fodf", "fodf"), ("mask", "mask")]),
        (track, outputs, [("tractogram", "tractogram"), ("metadata", "metadata")]),
    ])  # fmt: skip
    return workflow
