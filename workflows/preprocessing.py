"""From a raw diffusion run to a denoised one with its reference image and brain mask."""

from __future__ import annotations

from dataclasses import asdict

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from difftract_bids.config import PreprocessingConfig
from difftract_bids.interfaces.preprocessing import (
    ComputeBrainMask,
    ConformGradients,
    DenoiseDWI,
    ExtractReference,
)


def init_preprocessing_wf(
    config: PreprocessingConfig,
    *,
    estimate_noise: bool = False,
    omp_nthreads: int = 1,
    mem_gb: float = 1.0,
    name: str = "preprocessing_wf",
) -> LiterateWorkflow:
    """Preprocess one diffusion run.

    Parameters
    ----------
    config
        Settings of this stage.
    estimate_noise
        Map the noise also if it is left in.
    omp_nthreads
        CPUs that one step may use.
    mem_gb
        Size of the diffusion image in memory (float32), GB.
    name
        Name of the workflow.

    Inputs
    ------
    dwi, bval, bvec
        The raw run.

    Outputs
    -------
    dwi, bval, bvec
        Denoised image and conformed gradient table.
    dwiref
        Mean b=0 image.
    mask
        Brain mask.
    noise_sd, sigma
        Noise standard deviation: its median, and its map if there is one.
    """
    workflow = LiterateWorkflow(name=name)
    workflow.__desc__ = _methods(config)

    inputs = pe.Node(niu.IdentityInterface(["dwi", "bval", "bvec"]), name="inputnode")
    outputs = pe.Node(
        niu.IdentityInterface(["dwi", "bval", "bvec", "dwiref", "mask", "noise_sd", "sigma"]),
        name="outputnode",
    )
    gradients = pe.Node(ConformGradients(**asdict(config)), name="gradients", mem_gb=0.2)
    denoise = pe.Node(
        DenoiseDWI(**asdict(config), estimate_noise=estimate_noise),
        name="denoise",
        n_procs=omp_nthreads,
        mem_gb=0.5 + 4 * mem_gb,
    )
    reference = pe.Node(
        ExtractReference(**asdict(config)), name="reference", mem_gb=0.3 + 2 * mem_gb
    )
    mask = pe.Node(ComputeBrainMask(), name="mask", n_procs=omp_nthreads, mem_gb=0.5)

    workflow.connect([
        (inputs, gradients, [("dwi", "dwi"), ("bval", "bval"), ("bvec", "bvec")]),
        (inputs, denoise, [("dwi", "dwi")]),
        (denoise, reference, [("dwi", "dwi")]),
        (gradients, reference, [("bval", "bval"), ("bvec", "bvec")]),
        (reference, mask, [("dwiref", "dwiref"), ("meandwi", "meandwi")]),
        (denoise, outputs, [(name, name) for name in ("dwi", "noise_sd", "sigma")]),
        (gradients, outputs, [("bval", "bval"), ("bvec", "bvec")]),
        (reference, outputs, [("dwiref", "dwiref")]),
        (mask, outputs, [("mask", "mask")]),
    ])  # fmt: skip
    return workflow


def _methods(config: PreprocessingConfig) -> str:
    denoising = (
        "were denoised by Marchenko-Pastur principal component analysis [@veraart2016]"
        if config.denoise_method == "mppca"
        else "were not denoised"
    )
    return (
        f"### Diffusion data\n\nDiffusion-weighted images {denoising}. Volumes with a b-value of "
        f"at most {config.b0_threshold_s_mm2:g} s/mm² were taken as b=0; their average is the "
        "reference. The brain was segmented in it and the mean diffusion-weighted image by a "
        "median filter and Otsu's threshold, with DIPY [@garyfallidis2014]. Head motion, eddy "
        "currents and susceptibility distortion were not corrected.\n\n"
    )
