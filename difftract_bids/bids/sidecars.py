"""Content of JSON sidecars: BEP016 for maps, BEP046 for tractograms, BEP017 for matrices."""

from __future__ import annotations

from typing import Any

from difftract_bids.config import SeedingConfig, TrackingConfig

_SPHERICAL_HARMONICS = {
    "Type": "sh",
    "Reference": "xyz",
    "SphericalHarmonicBasis": "mrtrix3",
    "EncodingAxis": 3,
}


def fodf_metadata(lmax: int, response: list[list[float]]) -> dict[str, Any]:
    """Describe an fODF image.

    Parameters
    ----------
    lmax
        Maximum spherical harmonic degree.
    response
        Zonal coefficients of the response function, one row a shell.
    """
    return {
        "Model": {
            "Description": "Constrained spherical deconvolution",
            "URL": "https://doi.org/10.1016/j.neuroimage.2007.02.016",
            "Parameters": {"SphericalHarmonicDegree": lmax, "NonNegativity": "soft"},
        },
        "OrientationEncoding": {**_SPHERICAL_HARMONICS, "SphericalHarmonicDegree": lmax},
        "ResponseFunction": {"Type": "zsh", "Coefficients": response},
    }


def tensor_metadata(parameter: str) -> dict[str, Any]:
    """Describe a tensor map: ``fa`` or ``md``."""
    described = {
        "fa": {"Description": "Fractional anisotropy", "Units": "arbitrary"},
        "md": {"Description": "Mean diffusivity", "Units": "mm^2/s"},
    }[parameter]
    model = {
        "Description": "Diffusion tensor, weighted least squares",
        "URL": "https://doi.org/10.1016/S0006-3495(94)80775-1",
        "Parameters": {"FitMethod": "WLS"},
    }
    return {**described, "Model": model}


def tractogram_metadata(
    tracking: TrackingConfig, seeding: SeedingConfig, counts: dict[str, Any]
) -> dict[str, Any]:
    """Describe a tractogram.

    Parameters
    ----------
    tracking
        Settings with every default filled in (:meth:`TrackingConfig.resolve`).
    seeding
        Where seeds were placed.
    counts
        Numbers of seeds and streamlines, of seeds by what became of them, and of ends by reason.
    """
    return {
        "Model": {
            "Description": "Deterministic streamlines along fODF peaks (SD_STREAM)",
            "URL": "https://doi.org/10.1002/ima.22005",
        },
        "StreamlineSeeding": {
            "Source": "Brain mask",
            "Method": "Uniform random positions",
            "RandomSeed": seeding.random_seed,
            "SeedCount": seeding.n_seeds,
        },
        "StreamlinePropagation": {
            "Integrator": tracking.integrator,
            "StepSize": tracking.step_size_mm,
            "StepSizeUnits": "mm",
            "PeakTolerance": tracking.peak_tolerance,
        },
        "StreamlineTermination": {
            "MaximumAngle": tracking.max_angle_deg,
            "MaximumAngleUnits": "degree",
            "AmplitudeCutoff": tracking.cutoff,
            "Mask": "Brain mask",
        },
        "StreamlineAcceptanceCriteria": {
            "MinimumLength": tracking.min_length_mm,
            "MaximumLength": tracking.max_length_mm,
            "LengthUnits": "mm",
        },
        "StreamlineReconstructionDensity": {"Method": "Seeds", "Count": seeding.n_seeds},
        "Counts": counts,
    }


def relmat_metadata(measure: str, *, n_nodes: int, radius_mm: float) -> dict[str, Any]:
    """Describe a connectome matrix: ``count`` or ``meanlength``."""
    described = {
        "count": ("Number of streamlines that connect two parcels", "count"),
        "meanlength": ("Mean length of the streamlines that connect two parcels", "mm"),
    }[measure]
    return {
        "Description": described[0],
        "RelationshipMeasure": measure,
        "MeasureDescription": described[0],
        "Units": described[1],
        "Weighted": True,
        "Directed": False,
        "ValidDiagonal": True,
        "StorageFormat": "Full",
        "NonNegative": "True",
        "NodeCount": n_nodes,
        "Assignment": {"Method": "nearest labelled voxel centre", "RadiusMM": radius_mm},
    }
