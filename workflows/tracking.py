"""From fibre orientation distributions, or tensors, to streamlines."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import PurePath

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from nipype.utils.gpu_count import gpu_count
from niworkflows.engine.workflows import LiterateWorkflow

from difftract_bids.config import (
    ActConfig,
    ConnectomeConfig,
    OutputConfig,
    RegionsConfig,
    SeedingConfig,
    TrackingConfig,
)
from difftract_bids.interfaces.tracking import TrackStreamlines
from difftract_bids.validation import parse_numbers

_INPUTS = ["fodf", "mask", "dwi", "bval", "bvec", "images", "five_tissue_types"]
_OUTPUTS = ["tractogram", "summary", "preview", "metadata", "notes"]


def init_tracking_wf(
    tracking: TrackingConfig,
    seeding: SeedingConfig,
    output: OutputConfig,
    regions: RegionsConfig | None = None,
    connectome: ConnectomeConfig | None = None,
    act: ActConfig | None = None,
    *,
    b0_threshold_s_mm2: float = 50.0,
    omp_nthreads: int = 1,
    mem_gb: float = 1.0,
    name: str = "tracking_wf",
) -> LiterateWorkflow:
    """Track streamlines from seeds.

    Parameters
    ----------
    tracking, seeding, output, regions
        Settings of this stage; paths in them are this run's own.
    connectome
        What connectomes will need: images looked up along streamlines, a tractogram. Nothing, if
        left out.
    act
        Settings of anatomical constraints, whatever its ``act`` says; streamlines obey no tissue,
        and ``five_tissue_types`` is not connected, if left out.
    b0_threshold_s_mm2
        Volumes up to this b-value count as b=0, s/mm²; for ``tensor_det``.
    omp_nthreads
        CPUs that tracking may use.
    mem_gb
        Size of the image that is followed in memory (float32), GB.
    name
        Name of the workflow.

    Inputs
    ------
    fodf
        SH coefficients, MRtrix's basis; for ``sd_stream``.
    dwi, bval, bvec
        Preprocessed run; for ``tensor_det``.
    mask
        Brain mask: where seeds are placed and streamlines may run, if settings do not say.
    five_tissue_types
        Fractions of tissue; if ``act`` is given.
    images
        Those that the connectomes average along streamlines, in the order of
        ``connectome.sampled``.

    Outputs
    -------
    tractogram
        Streamlines in scanner (RAS+) millimetres, thinned; undefined if neither settings nor
        connectomes ask for it.
    summary
        Table of seed, ends, length and what images hold along it of every streamline.
    preview
        Some thousand streamlines, for figures.
    metadata
        Content of the tractogram's sidecar.
    notes
        What a user should know about the tractogram.

    Examples
    --------
    >>> from pathlib import Path
    >>> from difftract_bids.config import OutputConfig, SeedingConfig, TrackingConfig
    >>> from difftract_bids.workflows.tracking import init_tracking_wf
    >>> seeding = SeedingConfig(n_streamlines=100)
    >>> workflow = init_tracking_wf(TrackingConfig(cutoff=0.15), seeding, OutputConfig())
    >>> workflow.base_dir = "work"
    >>> workflow.config["execution"]["remove_unnecessary_outputs"] = "false"
    >>> workflow.inputs.inputnode.fodf = Path("fodf.nii.gz").absolute()
    >>> workflow.inputs.inputnode.mask = Path("mask.nii.gz").absolute()
    >>> graph = workflow.run()
    >>> sorted(path.name for path in Path("work/tracking_wf/track").glob("*.trx"))
    ['preview.trx', 'tractogram.trx']
    """
    regions = regions or RegionsConfig()
    workflow = LiterateWorkflow(name=name)
    workflow.__desc__ = tracking_methods(tracking, seeding, regions, act)
    inputs = pe.Node(niu.IdentityInterface(_INPUTS), name="inputnode")
    outputs = pe.Node(niu.IdentityInterface(_OUTPUTS), name="outputnode")
    settings = asdict(tracking) | asdict(seeding) | asdict(output)
    # That of saved images, which do not matter here: another one must not track anew.
    del settings["sh_basis"]
    sampled = connectome.sampled if connectome else ()
    if connectome:
        settings["tractogram"] = output.tractogram or connectome.needs_paths
    if connectome and sampled:
        settings |= {
            "image_names": list(sampled),
            "streamline_statistic": connectome.streamline_statistic,
        }
    if act:
        settings["crop_at_gmwmi"] = act.crop_at_gmwmi
    settings |= {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(regions).items()}
    track = pe.Node(
        TrackStreamlines(
            **settings,
            b0_threshold_s_mm2=b0_threshold_s_mm2,
            use_gpu=tracking.device != "cpu" and gpu_count() > 0,
        ),
        name="track",
        n_procs=omp_nthreads,
        mem_gb=1.5 + 2 * mem_gb,
    )
    followed = ["fodf"] if tracking.algorithm == "sd_stream" else ["dwi", "bval", "bvec"]
    followed += ["images"] if sampled else []
    followed += ["five_tissue_types"] if act else []
    workflow.connect([
        (inputs, track, [("mask", "brain_mask"), *((field, field) for field in followed)]),
        (track, outputs, [(field, field) for field in _OUTPUTS]),
    ])  # fmt: skip
    return workflow


def tracking_methods(
    tracking: TrackingConfig,
    seeding: SeedingConfig,
    regions: RegionsConfig,
    act: ActConfig | None = None,
) -> str:
    """Write the methods paragraph of this stage.

    Parameters
    ----------
    tracking, seeding, regions
        Settings; with the labels of runs not yet filled in, so that all runs share a text.
    act
        Settings of anatomical constraints, if there are any.
    """
    constrained = act is not None
    propagation = _propagation(tracking, constrained=constrained)
    said = (propagation, _constraints(act), _seeds(seeding), _regions(regions))
    return f"### Tractography\n\n{' '.join(filter(None, said))}\n\n"


def _propagation(tracking: TrackingConfig, *, constrained: bool) -> str:
    """Say in words what was followed, and how."""
    integrator = {
        "euler": "Euler's method",
        "midpoint": "the midpoint rule",
        "rk4": "the fourth-order Runge-Kutta method in MRtrix3's form",
        "rk4_classic": "the classical fourth-order Runge-Kutta method",
    }[tracking.integrator]
    voxels = "0.1" if tracking.integrator == "euler" else "0.25"
    step = f"{tracking.step_size_mm:g} mm" if tracking.step_size_mm else f"{voxels} voxels"
    in_voxels = tracking.resolve(1.0, act=constrained)
    followed, by, least = {
        "sd_stream": ("fODF peaks", "SD_STREAM", "an fODF amplitude"),
        "tensor_det": (
            "principal directions of tensors fitted to interpolated signals",
            "Tensor_Det",
            "a fractional anisotropy",
        ),
    }[tracking.algorithm]
    ways = "in the direction found at the seed" if tracking.one_way else "both ways"
    return (
        f"Streamlines were propagated along {followed} by the deterministic {by} algorithm of "
        "MRtrix3 [@tournier2012; @tournier2019], in a differentiable implementation on PyTorch "
        f"[@paszke2019]. They were followed {ways} with {integrator}, in steps of {step} with at "
        f"most {in_voxels.max_angle_deg:g} degrees between them, to {least} below "
        f"{in_voxels.cutoff:g}."
    )


def _constraints(act: ActConfig | None) -> str:
    """Say in words which tissue was obeyed; nothing if none."""
    if act is None:
        return ""
    cropped = (
        " Ends in cortical grey matter were moved back onto its interface with white matter."
        if act.crop_at_gmwmi
        else ""
    )
    return (
        "Tracking was anatomically constrained [@smith2012]: streamlines ended where they entered "
        "cortical grey matter, and were cut back to the vertex of least amplitude where they left "
        "deep grey matter; those that entered cerebrospinal fluid or ended within white matter "
        f"were rejected.{cropped}"
    )


def _seeds(seeding: SeedingConfig) -> str:
    """Say in words where seeds were, and how many."""
    image = _named((seeding.seed_image,)) if seeding.seed_image else "the brain mask"
    where = {
        "seed_image": f"at random in {image}",
        "seed_random_per_voxel": f"at random in {image}, {seeding.seed_random_per_voxel} a voxel",
        "seed_grid_per_voxel": (
            f"on a grid in {image}, {(seeding.seed_grid_per_voxel or 0) ** 3} a voxel"
        ),
        "seed_rejection": f"in proportion to the image {_named((seeding.seed_rejection or '',))}",
        "seed_gmwmi": "at random on the interface of grey and white matter",
        "seed_sphere": f"at random in the sphere ({seeding.seed_sphere}) mm",
        "seed_coordinates": f"as given in {_named((seeding.seed_coordinates or '',))}",
    }[seeding.kind]
    number = "Seeds" if seeding.n_seeds is None else f"At most {seeding.n_seeds:,} seeds"
    wanted = seeding.wanted_streamlines
    until = f" until {wanted:,} streamlines were found" if wanted else ""
    return f"{number} were placed {where} (random seed {seeding.random_seed}){until}."


def _regions(regions: RegionsConfig) -> str:
    """Say in words where streamlines had to go; nothing if anywhere."""
    said = []
    if regions.mask:
        said.append(f"Streamlines ended outside {_named(regions.mask)}.")
    if regions.include:
        ended = " and ended then" if regions.stop else ""
        said.append(f"Those kept visited {_named(regions.include, 'and')}{ended}.")
    if regions.exclude:
        said.append(f"Those that entered {_named(regions.exclude)} were rejected.")
    return " ".join(said)


def _named(entries: tuple[str, ...], joint: str = "or") -> str:
    names = [
        f"the sphere ({entry}) mm" if parse_numbers(entry, 4) else PurePath(entry).name
        for entry in entries
    ]
    return f" {joint} ".join(names)
