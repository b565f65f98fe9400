"""Content of JSON sidecars: BEP016 for maps, BEP046 for tractograms, BEP017 for matrices."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from difftract_bids.config import (
    ActConfig,
    ConnectomeConfig,
    RegionsConfig,
    SeedingConfig,
    TrackingConfig,
)
from difftract_bids.validation import parse_numbers


def tensor_metadata(parameter: str) -> dict[str, Any]:
    """Describe a tensor map: ``fa``, ``md``, or ``colour_fa``."""
    maps: dict[str, dict[str, Any]] = {
        "fa": {"Description": "Fractional anisotropy", "Units": "arbitrary"},
        "md": {"Description": "Mean diffusivity", "Units": "mm^2/s"},
        "colour_fa": {
            "Description": "Fractional anisotropy coloured by the principal direction: red "
            "left-right, green front-back, blue up-down",
            "Units": "arbitrary",
            "OrientationEncoding": {"Type": "dec", "Reference": "xyz", "EncodingAxis": 3},
        },
    }
    model = {
        "Description": "Diffusion tensor, weighted least squares",
        "URL": "https://doi.org/10.1016/S0006-3495(94)80775-1",
        "Parameters": {"FitMethod": "WLS"},
    }
    return {**maps[parameter], "Model": model}


def tractogram_metadata(
    tracking: TrackingConfig,
    seeding: SeedingConfig,
    regions: RegionsConfig,
    counts: dict[str, Any],
    *,
    device: str,
    tolerance_mm: float | None,
    act: ActConfig | None = None,
) -> dict[str, Any]:
    """Describe a tractogram.

    Parameters
    ----------
    tracking
        Settings with every default filled in (:meth:`TrackingConfig.resolve`).
    seeding, regions
        Where seeds were placed, and where streamlines had to go. Of files only the names are told.
    counts
        Numbers of seeds and streamlines, of seeds by what became of them, and of ends by reason.
    device
        What it was computed on.
    tolerance_mm
        To which vertices of the saved file were left out, millimetres; ``None`` if none is saved.
    act
        Settings of anatomical constraints; ``None`` if streamlines did not obey tissue.
    """
    wanted = seeding.wanted_streamlines
    description, url, threshold = _MODELS[tracking.algorithm]
    stored = {} if tolerance_mm is None else {"Tolerance": tolerance_mm, "ToleranceUnits": "mm"}
    return {
        "Model": {"Description": description, "URL": url},
        "StreamlineSeeding": {
            **_seeding(seeding),
            "Direction": seeding.seed_direction or "random",
            "RandomSeed": seeding.random_seed,
            "SeedCount": counts["Seeds"],
        },
        "StreamlinePropagation": {
            "Integrator": tracking.integrator,
            "StepSize": tracking.step_size_mm,
            "StepSizeUnits": "mm",
            "PeakTolerance": tracking.peak_tolerance,
            "Unidirectional": tracking.one_way,
            "Backend": tracking.backend,
            "Device": device,
        },
        "StreamlineTermination": {
            "MaximumAngle": tracking.max_angle_deg,
            "MaximumAngleUnits": "degree",
            threshold: tracking.cutoff,
            "Mask": _places(regions.mask) or ["Brain mask"],
            "StopAtInclude": regions.stop,
            "AnatomicalConstraints": _constraints(act),
        },
        "StreamlineAcceptanceCriteria": {
            "MinimumLength": tracking.min_length_mm,
            "MaximumLength": tracking.max_length_mm,
            "LengthUnits": "mm",
            "Include": _places(regions.include),
            "Exclude": _places(regions.exclude),
        },
        "StreamlineReconstructionDensity": {
            "Method": "Streamlines" if wanted else "Seeds",
            "Count": wanted or counts["Seeds"],
        },
        "Storage": stored,
        "Counts": counts,
    }


def _constraints(act: ActConfig | None) -> dict[str, Any] | bool:
    """Say what streamlines did at tissue; ``False`` if nothing."""
    if act is None:
        return False
    return {
        "Description": "Streamlines end in cortical grey matter, or are cut back within deep grey "
        "matter; those that enter cerebrospinal fluid or end within white matter are rejected",
        "URL": "https://doi.org/10.1016/j.neuroimage.2012.06.005",
        "CropAtInterface": act.crop_at_gmwmi,
    }


#: Description, source and name of the cutoff of each algorithm.
_MODELS = {
    "sd_stream": (
        "Deterministic streamlines along fODF peaks (SD_STREAM)",
        "https://doi.org/10.1002/ima.22005",
        "AmplitudeCutoff",
    ),
    "tensor_det": (
        "Deterministic streamlines along principal directions of tensors (Tensor_Det)",
        "https://doi.org/10.1002/1522-2594(200010)44:4%3C625::AID-MRM17%3E3.0.CO;2-O",
        "AnisotropyCutoff",
    ),
}


def _seeding(seeding: SeedingConfig) -> dict[str, Any]:
    """Say where seeds are, and how they are placed there."""
    image = _places((seeding.seed_image,))[0] if seeding.seed_image else "Brain mask"
    per_voxel, per_axis = seeding.seed_random_per_voxel, seeding.seed_grid_per_voxel
    kinds: dict[str, dict[str, Any]] = {
        "seed_image": {"Source": image, "Method": "Uniform random positions"},
        "seed_random_per_voxel": {
            "Source": image,
            "Method": "Random positions in each voxel",
            "SeedsPerVoxel": per_voxel,
        },
        "seed_grid_per_voxel": {
            "Source": image,
            "Method": "Grid in each voxel",
            "SeedsPerVoxel": (per_axis or 0) ** 3,
        },
        "seed_rejection": {
            "Source": _places((seeding.seed_rejection or "",))[0],
            "Method": "Random positions weighted by an image",
        },
        "seed_gmwmi": {
            "Source": "Interface of grey and white matter",
            "Method": "Random positions on the interface",
        },
        "seed_sphere": {
            "Source": f"Sphere {seeding.seed_sphere}",
            "Method": "Uniform random positions",
        },
        "seed_coordinates": {
            "Source": _places((seeding.seed_coordinates or "",))[0],
            "Method": "Given positions",
        },
    }
    return kinds[seeding.kind]


def _places(entries: tuple[str, ...]) -> list[str]:
    """Name files without their folders, which are nobody's business, and spheres by numbers."""
    return [f"Sphere {e}" if parse_numbers(e, 4) else PurePath(e).name for e in entries]


def relmat_metadata(measure: str, config: ConnectomeConfig, *, n_nodes: int) -> dict[str, Any]:
    """Describe a connectome matrix.

    Parameters
    ----------
    measure
        One of :data:`difftract_bids.config.MEASURES`, or ``mean`` and the name of an image.
    config
        How it was made. Of files only the names are told.
    n_nodes
        Its rows.
    """
    statistic = config.streamline_statistic
    weights = config.streamline_weights
    weighting = "none" if weights is None else PurePath(weights).name
    if measure == "sift2":
        weighting = "SIFT2"
    image = measure.removeprefix("mean").upper()
    along = f"Mean over streamlines of the {statistic} of {image} along each"
    described, units = _MEASURES.get(measure, (along, "arbitrary"))
    if measure == "count" and weights is not None:
        described = "Sum of the weights of the streamlines that connect two parcels"
    return {
        "Description": described,
        "RelationshipMeasure": measure,
        "MeasureDescription": described,
        "Units": "mm^2/s" if measure == "meanmd" else units,
        "Weighted": True,
        "Directed": False,
        "ValidDiagonal": not config.zero_diagonal,
        "StorageFormat": "UpperTriangle" if config.upper_triangle else "Full",
        "NonNegative": "True",
        "NodeCount": n_nodes,
        "EdgeStatistic": "mean" if measure.startswith("mean") else "sum",
        "StreamlineWeighting": weighting,
        "Assignment": assignment_metadata(config),
    }


#: What a matrix holds, and its unit.
_MEASURES = {
    "count": ("Number of streamlines that connect two parcels", "count"),
    "meanlength": ("Mean length of the streamlines that connect two parcels", "mm"),
    "invlength": ("Sum of inverse lengths of the streamlines that connect two parcels", "1/mm"),
    "invnodevol": (
        "Number of streamlines that connect two parcels, over the mean volume of the two",
        "1/mm^3",
    ),
    "density": (
        (
            "Sum of inverse lengths of the streamlines that connect two parcels, over the mean "
            "surface area of the two (Hagmann et al. 2008, doi:10.1371/journal.pbio.0060159)"
        ),
        "1/mm^3",
    ),
    "sift2": (
        (
            "Sum of the SIFT2 weights of the streamlines that connect two parcels "
            "(Smith et al. 2015, doi:10.1016/j.neuroimage.2015.06.092); times the weights' Mu it "
            "compares between participants whose fODFs have one response"
        ),
        "arbitrary",
    ),
}


def assignment_metadata(config: ConnectomeConfig) -> dict[str, Any]:
    """Say how streamlines were assigned to parcels."""
    said: dict[str, Any] = {
        "Mode": config.assignment,
        "Method": {
            "radial_search": "nearest labelled voxel centre to each end",
            "end_voxels": "voxel of each end",
            "reverse_search": "last labelled voxel on the way to each end",
            "forward_search": "first labelled voxel straight ahead of each end",
            "all_voxels": "every parcel that the streamline visits, in pairs",
        }[config.assignment],
    }
    if config.assignment == "radial_search":
        said["RadiusMM"] = config.assignment_radius_mm
    elif config.assignment_distance_mm is not None and config.assignment.endswith("search"):
        said["DistanceMM"] = config.assignment_distance_mm
    return said


def assignments_metadata(config: ConnectomeConfig) -> dict[str, Any]:
    """Describe the table of the nodes of each streamline."""
    columns = {
        "first": "Index of the node of the first vertex, 0 for none",
        "last": "Index of the node of the last vertex, 0 for none",
    }
    if config.assignment == "all_voxels":
        columns = {"nodes": "Indices of all nodes that the streamline visits, ascending"}
    return {
        "Description": "Nodes of each streamline, a row each, in the order of the tractogram",
        "Assignment": assignment_metadata(config),
        **{name: {"Description": text} for name, text in columns.items()},
    }


def node_table_metadata() -> dict[str, Any]:
    """Describe the columns of the node table of a matrix."""
    columns = {
        "index": ("Label in the parcellation image", ""),
        "name": ("Name; the header of the matrices", ""),
        "hemisphere": ("Side of the brain", ""),
        "volume_mm3": ("Volume of its voxels in the parcellation", "mm^3"),
        "x_mm": ("Centroid, to the right; n/a without a voxel", "mm"),
        "y_mm": ("Centroid, to the front; n/a without a voxel", "mm"),
        "z_mm": ("Centroid, upwards; n/a without a voxel", "mm"),
        "streamlines": ("Streamlines of the node, those to itself counted once", "count"),
    }
    return {
        name: {"Description": text, **({"Units": unit} if unit else {})}
        for name, (text, unit) in columns.items()
    }
