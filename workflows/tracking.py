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
        "euler": "Euler steps",
        "midpoint": "the midpoint rule",
        "rk4": "fourth-order Runge-Kutta steps as in MRtrix3",
        "rk4_classic": "classical fourth-order Runge-Kutta steps",
    }[tracking.integrator]
    workflow.__desc__ = (
        "Streamlines were propagated deterministically along fODF peaks by the SD_STREAM "
        f"algorithm of MRtrix3 [@sdstream; @mrtrix3] with {integrator}, from "
        f"{seeding.n_seeds:,} seeds "
        f"placed at random in the brain mask (random seed {seeding.random_seed}), by a "
        "differentiable implementation in PyTorch [@pytorch] that gives the same streamlines.\n"
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
