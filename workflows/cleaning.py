"""Noise and ringing of one acquisition, before anything interpolates it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from difftract_bids.config import PreprocessingConfig
from difftract_bids.interfaces.denoising import DenoiseDWI, RemoveGibbs
from difftract_bids.interfaces.gradients import ConformGradients
from difftract_bids.workflows.wiring import same

_SERIES = ("dwi", "bval", "bvec")


def init_cleaning_wf(
    config: PreprocessingConfig,
    metadata: Mapping[str, Any],
    number: int,
    *,
    whole: bool,
    noise: bool,
    omp_nthreads: int,
    mem_gb: float,
) -> LiterateWorkflow:
    """Take noise and ringing out of one acquisition.

    Parameters
    ----------
    config
        Settings of this stage.
    metadata
        Its sidecar.
    number
        Which part of the series it is, from 1.
    whole
        Whether it is all of the series: only then it needs b=0 and six directions.
    noise
        Whether the noise is mapped.
    omp_nthreads, mem_gb
        CPUs of a step, and the size of the series, GB.

    Examples
    --------
    >>> from pathlib import Path
    >>> from difftract_bids.config import PreprocessingConfig
    >>> from difftract_bids.workflows.cleaning import init_cleaning_wf
    >>> config = PreprocessingConfig(denoise_method="mppca")
    >>> size = {"omp_nthreads": 4, "mem_gb": 0.5}
    >>> workflow = init_cleaning_wf(
    ...     config, {"PartialFourier": 1}, 1, whole=True, noise=True, **size
    ... )
    >>> workflow.inputs.inputnode.dwi = Path("raw.nii.gz").absolute()
    >>> sorted(workflow.list_node_names())
    ['denoise', 'gradients', 'inputnode', 'outputnode', 'unring']
    """
    step = {"n_procs": omp_nthreads, "mem_gb": 0.5 + 4 * mem_gb}
    workflow = LiterateWorkflow(name=f"part_{number}_wf")
    inputs = pe.Node(niu.IdentityInterface(list(_SERIES)), name="inputnode")
    fields = [*_SERIES, "raw", "denoised", "sigma", "notes"]
    outputs = pe.Node(niu.IdentityInterface(fields), name="outputnode")
    gradients = pe.Node(
        ConformGradients(**asdict(config), whole=whole), name="gradients", mem_gb=0.2
    )
    denoise = pe.Node(DenoiseDWI(**asdict(config), estimate_noise=noise), name="denoise", **step)
    unring = pe.Node(RemoveGibbs(**asdict(config), metadata=dict(metadata)), name="unring", **step)
    workflow.connect([
        (inputs, gradients, same(*_SERIES)),
        (inputs, denoise, [("dwi", "dwi")]),
        (inputs, unring, [("dwi", "raw")]),
        (inputs, outputs, [("dwi", "raw")]),
        (gradients, denoise, same("bval", "bvec")),
        (gradients, outputs, same("bval", "bvec")),
        (denoise, unring, [("dwi", "dwi")]),
        (denoise, outputs, [("dwi", "denoised"), ("sigma", "sigma")]),
        (unring, outputs, same("dwi", "notes")),
    ])  # fmt: skip
    return workflow
