"""From raw diffusion series to one corrected series with its reference image and brain mask.

Errors are undone in the reverse of the order in which they arose: noise and ringing first, which
are what they are only in images that nothing has interpolated; then where each volume and each
voxel was, all of it in one interpolation; last the coils' bias, which is smooth in space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from difftract_bids.config import PreprocessingConfig
from difftract_bids.interfaces.bias import CorrectBias
from difftract_bids.interfaces.combine import ConcatenateRuns
from difftract_bids.interfaces.gradients import CheckGradients, ConformGradients
from difftract_bids.interfaces.noise import CarryNoise
from difftract_bids.interfaces.preprocessing import ComputeBrainMask, ExtractReference
from difftract_bids.workflows.cleaning import init_cleaning_wf
from difftract_bids.workflows.displacements import Displacements, init_displacements_wf
from difftract_bids.workflows.wiring import between, same

_SERIES = ("dwi", "bval", "bvec")
_OUTPUTS = (
    *_SERIES, "dwiref", "mask", "sigma", "raw", "raw_bval", "denoised", "confounds", "outliers",
    "notes",
)  # fmt: skip


def init_preprocessing_wf(
    config: PreprocessingConfig,
    *,
    parts: Sequence[Mapping[str, Any]] = ({},),
    displacements: Displacements | None = None,
    estimate_noise: bool = False,
    omp_nthreads: int = 1,
    mem_gb: float = 1.0,
    name: str = "preprocessing_wf",
) -> LiterateWorkflow:
    """Preprocess one diffusion series.

    Parameters
    ----------
    config
        Settings of this stage.
    parts
        Sidecar of each acquisition that the series is made of.
    displacements
        What is known and done about motion and distortion; only head motion if left out.
    estimate_noise
        Map the noise whatever becomes of it.
    omp_nthreads
        CPUs that one step may use.
    mem_gb
        Size of the series in memory (float32), GB.
    name
        Name of the workflow.

    Inputs
    ------
    dwi, bval, bvec
        The raw files; lists of them if there are several parts.
    t1w
        T1w image; needed only where distortion is estimated from it.

    Outputs
    -------
    dwi, bval, bvec
        Corrected series and its gradient table.
    dwiref
        Mean b=0 image.
    mask
        Brain mask.
    sigma
        Noise standard deviation before denoising, on the grid of the result, if it is known.
    raw, raw_bval, denoised
        The first part before denoising, its b-values, and the part after denoising.
    confounds, outliers
        Tables of motion and of flagged slices, if motion was corrected.
    notes
        What the user should know.

    Examples
    --------
    >>> from pathlib import Path
    >>> from difftract_bids.config import PreprocessingConfig
    >>> from difftract_bids.workflows.preprocessing import init_preprocessing_wf
    >>> config = PreprocessingConfig(motion_correction="none", output_resolution_mm=2.0)
    >>> workflow = init_preprocessing_wf(config, omp_nthreads=4, mem_gb=0.5)
    >>> workflow.inputs.inputnode.dwi = Path("raw.nii.gz").absolute()
    >>> workflow.inputs.inputnode.bval = Path("raw.bval").absolute()
    >>> workflow.inputs.inputnode.bvec = Path("raw.bvec").absolute()
    >>> workflow.get_node("displacements_wf").list_node_names()
    ['inputnode', 'notes', 'outputnode', 'resample']
    >>> "Voxels were made 2 mm" in workflow.visit_desc()
    True
    """
    displacements = displacements or Displacements(config.motion_correction)
    size: dict[str, Any] = {"omp_nthreads": omp_nthreads, "mem_gb": mem_gb}
    step = {"n_procs": omp_nthreads, "mem_gb": 0.5 + 4 * mem_gb}
    noise = estimate_noise or config.denoise_method == "mppca"
    workflow = LiterateWorkflow(name=name)
    workflow.__desc__ = _methods(config, displacements, n_parts=len(parts))
    inputs = pe.Node(niu.IdentityInterface([*_SERIES, "t1w"]), name="inputnode")
    outputs = pe.Node(niu.IdentityInterface(list(_OUTPUTS)), name="outputnode")
    notes = pe.Node(
        niu.Merge(len(parts) + 3, ravel_inputs=True), name="notes", run_without_submitting=True
    )
    cleaned = [
        init_cleaning_wf(config, metadata, number, whole=len(parts) == 1, noise=noise, **size)
        for number, metadata in enumerate(parts, start=1)
    ]
    for place, one in enumerate(cleaned, start=1):
        _connect_part(workflow, inputs, one, place, len(parts))
        workflow.connect([(one, notes, [("outputnode.notes", f"in{place}")])])
    series = _joined(workflow, config, cleaned, notes, mem_gb)
    check = pe.Node(CheckGradients(**asdict(config)), name="check_gradients", **step)
    place = init_displacements_wf(config, displacements, **size)
    last = _init_finishing_wf(config, **size)
    workflow.connect([
        (series, check, same(*_SERIES, source="outputnode.")),
        (series, place, between("dwi", "raw")),
        (check, place, [("bval", "inputnode.bval"), ("bvec", "inputnode.bvec")]),
        (inputs, place, [("t1w", "inputnode.t1w")]),
        (check, notes, [("notes", f"in{len(parts) + 2}")]),
        (place, notes, [("outputnode.notes", f"in{len(parts) + 3}")]),
        (place, last, between(*_SERIES)),
        (place, outputs, same("bval", "bvec", "confounds", "outliers", source="outputnode.")),
        (last, outputs, same("dwi", "dwiref", "mask", source="outputnode.")),
        (cleaned[0], outputs, [
            *same("raw", "denoised", source="outputnode."), ("outputnode.bval", "raw_bval"),
        ]),
        (notes, outputs, [("out", "notes")]),
    ])  # fmt: skip
    if noise:
        _carry_noise(workflow, cleaned, series, last, outputs)
    return workflow


def init_given_series_wf(
    config: PreprocessingConfig,
    *,
    has_mask: bool,
    mem_gb: float = 1.0,
    name: str = "preprocessing_wf",
) -> LiterateWorkflow:
    """Take a series that another program has preprocessed.

    Parameters
    ----------
    config
        Settings of this stage; only what counts as b=0 matters.
    has_mask
        Whether a brain mask comes with it.
    mem_gb
        Size of the series in memory (float32), GB.
    name
        Name of the workflow.

    Inputs
    ------
    dwi, bval, bvec, mask
        Its files; the mask only with ``has_mask``.

    Outputs
    -------
    dwi, bval, bvec, dwiref, mask
        The series with a conformed gradient table, its mean b=0 image and brain mask.
    notes
        Nothing.

    Examples
    --------
    >>> from pathlib import Path
    >>> from difftract_bids.config import PreprocessingConfig
    >>> from difftract_bids.workflows.preprocessing import init_given_series_wf
    >>> workflow = init_given_series_wf(PreprocessingConfig(), has_mask=False)
    >>> workflow.base_dir = "work"
    >>> workflow.config["execution"]["remove_unnecessary_outputs"] = "false"
    >>> workflow.inputs.inputnode.dwi = Path("dwi.nii.gz").absolute()
    >>> workflow.inputs.inputnode.bval = Path("dwi.bval").absolute()
    >>> workflow.inputs.inputnode.bvec = Path("dwi.bvec").absolute()
    >>> graph = workflow.run()
    >>> sorted(path.name for path in Path("work/preprocessing_wf").glob("*/*.nii.gz"))
    ['dwiref.nii.gz', 'mask.nii.gz', 'meandwi.nii.gz']
    """
    workflow = LiterateWorkflow(name=name)
    workflow.__desc__ = (
        "### Diffusion data\n\nDiffusion-weighted images were taken as another program had "
        "preprocessed them.\n\n"
    )
    inputs = pe.Node(niu.IdentityInterface([*_SERIES, "mask"]), name="inputnode")
    fields = [*_SERIES, "dwiref", "mask", "notes"]
    outputs = pe.Node(niu.IdentityInterface(fields), name="outputnode")
    gradients = pe.Node(ConformGradients(**asdict(config)), name="gradients", mem_gb=0.2)
    workflow.connect([
        (inputs, gradients, same(*_SERIES)),
        (inputs, outputs, [("dwi", "dwi")]),
        (gradients, outputs, same("bval", "bvec")),
    ])  # fmt: skip
    reference = pe.Node(
        ExtractReference(**asdict(config)), name="reference", mem_gb=0.3 + 2 * mem_gb
    )
    workflow.connect([
        (inputs, reference, [("dwi", "dwi")]),
        (gradients, reference, same("bval", "bvec")),
        (reference, outputs, [("dwiref", "dwiref")]),
    ])  # fmt: skip
    if has_mask:
        workflow.connect([(inputs, outputs, [("mask", "mask")])])
    else:
        mask = pe.Node(ComputeBrainMask(), name="mask", mem_gb=0.5)
        workflow.connect([
            (reference, mask, [("dwiref", "dwiref"), ("meandwi", "meandwi")]),
            (mask, outputs, [("mask", "mask")]),
        ])  # fmt: skip
    return workflow


def _connect_part(workflow, inputs, part, number, n_parts):
    """Give a part its files, out of lists if there are several parts."""
    if n_parts == 1:
        workflow.connect([(inputs, part, same(*_SERIES, target="inputnode."))])
        return
    for field in _SERIES:
        choose = pe.Node(
            niu.Select(index=[number - 1]),
            name=f"{field}_{number}",
            run_without_submitting=True,
        )
        workflow.connect([
            (inputs, choose, [(field, "inlist")]),
            (choose, part, [("out", f"inputnode.{field}")]),
        ])  # fmt: skip


def _joined(workflow, config, cleaned, notes, mem_gb):
    """Put the parts one after the other; a single one is the series already."""
    if len(cleaned) == 1:
        return cleaned[0]
    joined = LiterateWorkflow(name="combine_wf")
    fields = [*_SERIES, "scales", "notes"]
    inputs = pe.Node(niu.IdentityInterface([*_SERIES, "raw"]), name="inputnode")
    outputs = pe.Node(niu.IdentityInterface([*fields, "raw"]), name="outputnode")
    join = pe.Node(ConcatenateRuns(**asdict(config)), name="combine", mem_gb=0.5 + 4 * mem_gb)
    joined.connect([
        (inputs, join, same(*_SERIES)),
        (join, outputs, same(*fields)),
    ])  # fmt: skip
    taken = [*_SERIES]
    if config.motion_correction == "dipy":
        taken.append("raw")
        raw = pe.Node(ConcatenateRuns(**asdict(config)), name="raw", mem_gb=0.5 + 4 * mem_gb)
        joined.connect([
            (inputs, raw, [("raw", "dwi"), *same("bval", "bvec")]),
            (raw, outputs, [("dwi", "raw")]),
        ])  # fmt: skip
    for field in taken:
        files = pe.Node(niu.Merge(len(cleaned)), name=f"all_{field}", run_without_submitting=True)
        workflow.connect(
            [
                (part, files, [(f"outputnode.{field}", f"in{place}")])
                for place, part in enumerate(cleaned, start=1)
            ]
        )
        workflow.connect([(files, joined, [("out", f"inputnode.{field}")])])
    workflow.connect([(joined, notes, [("outputnode.notes", f"in{len(cleaned) + 1}")])])
    return joined


def _init_finishing_wf(
    config: PreprocessingConfig, *, omp_nthreads: int, mem_gb: float
) -> LiterateWorkflow:
    """Take the bias out of a series in place, and find its reference image and brain."""
    workflow = LiterateWorkflow(name="finish_wf")
    inputs = pe.Node(niu.IdentityInterface(list(_SERIES)), name="inputnode")
    outputs = pe.Node(niu.IdentityInterface(["dwi", "dwiref", "mask", "field"]), name="outputnode")
    reference, mask = _reference_and_mask(workflow, config, omp_nthreads, mem_gb)
    workflow.connect([
        (inputs, reference, same("bval", "bvec")),
        (reference, outputs, [("dwiref", "dwiref")]),
        (mask, outputs, [("mask", "mask")]),
    ])  # fmt: skip
    if config.bias_correction == "none":
        workflow.connect([
            (inputs, reference, [("dwi", "dwi")]),
            (inputs, outputs, [("dwi", "dwi")]),
        ])  # fmt: skip
        return workflow
    biased = _reference_and_mask(workflow, config, omp_nthreads, mem_gb, prefix="biased_")
    correct = pe.Node(
        CorrectBias(**asdict(config)),
        name="bias",
        n_procs=omp_nthreads,
        mem_gb=0.5 + 3 * mem_gb,
    )
    workflow.connect([
        (inputs, biased[0], same(*_SERIES)),
        (inputs, correct, same(*_SERIES)),
        (biased[1], correct, [("mask", "mask")]),
        (correct, reference, [("dwi", "dwi")]),
        (correct, outputs, [("dwi", "dwi"), ("field", "field")]),
    ])  # fmt: skip
    return workflow


def _reference_and_mask(workflow, config, omp_nthreads, mem_gb, prefix=""):
    """Add the two nodes that find the reference image and the brain."""
    reference = pe.Node(
        ExtractReference(**asdict(config)), name=f"{prefix}reference", mem_gb=0.3 + 2 * mem_gb
    )
    mask = pe.Node(ComputeBrainMask(), name=f"{prefix}mask", n_procs=omp_nthreads, mem_gb=0.5)
    workflow.connect([
        (reference, mask, [("dwiref", "dwiref"), ("meandwi", "meandwi")]),
    ])  # fmt: skip
    return reference, mask


def _carry_noise(workflow, cleaned, series, last, outputs):
    """Bring the noise maps of the parts to where the series ends up, as bright as it is."""
    maps = pe.Node(niu.Merge(len(cleaned)), name="noise_maps", run_without_submitting=True)
    carry = pe.Node(CarryNoise(), name="noise", mem_gb=0.5)
    if len(cleaned) > 1:
        workflow.connect([(series, carry, [("outputnode.scales", "scales")])])
    workflow.connect(
        [
            (part, maps, [("outputnode.sigma", f"in{place}")])
            for place, part in enumerate(cleaned, start=1)
        ]
    )
    workflow.connect([
        (maps, carry, [("out", "sigma")]),
        (last, carry, [("outputnode.dwiref", "like"), ("outputnode.field", "field")]),
        (carry, outputs, [("sigma", "sigma")]),
    ])  # fmt: skip


def _methods(config: PreprocessingConfig, displacements: Displacements, n_parts: int) -> str:
    """Say what is done, without what the sub-workflows say themselves."""
    denoising = {
        "mppca": "were denoised by Marchenko-Pastur principal component analysis [@veraart2016]",
        "patch2self": "were denoised by Patch2Self [@fadnavis2020]",
        "none": "were not denoised",
    }[config.denoise_method]
    said = [f"### Diffusion data\n\nDiffusion-weighted images {denoising}."]
    if config.unringing_method != "none":
        where = ", where k-space was sampled fully," if config.unringing_method == "auto" else ""
        said.append(f"Gibbs ringing was{where} removed by subvoxel shifts [@kellner2016].")
    if n_parts > 1:
        said.append(f"The volumes of {n_parts} acquisitions were put together.")
    said.append(
        "The axes of the b-vectors were checked by the coherence of fibres [@schilling2019]."
    )
    if config.bias_correction == "n4":
        said.append("The intensity bias was estimated by N4 [@tustison2010] and removed.")
    said.append(
        f"Volumes with a b-value of at most {config.b0_threshold_s_mm2:g} s/mm² were taken as "
        "b=0; their average is the reference. The brain was segmented in it and the mean "
        "diffusion-weighted image by a median filter and Otsu's threshold, with DIPY "
        "[@garyfallidis2014]."
    )
    left = [] if displacements.motion != "none" else ["head motion and eddy currents"]
    left += [] if displacements.distortion != "none" else ["susceptibility distortion"]
    if left:
        text, verb = " and ".join(left), "was" if left == ["susceptibility distortion"] else "were"
        said.append(f"{text[0].upper()}{text[1:]} {verb} not corrected.")
    resampled = len(left) < 2 or config.output_resolution_mm is not None
    if displacements.motion != "eddy" and resampled:
        said.append("Volumes were resampled once, by cubic interpolation.")
    if config.output_resolution_mm is not None:
        said.append(f"Voxels were made {config.output_resolution_mm:g} mm in each direction.")
    return " ".join(said) + "\n\n"
