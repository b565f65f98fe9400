"""Content of the sidecars of derivatives: sensitivity maps and standard errors of edges."""

from __future__ import annotations

from typing import Any, Literal

from difftract_bids.bids.edge_targets import EdgeTarget
from difftract_bids.config import SensitivityConfig

_METHOD = (
    "Derivative of the soft connectome through assignment, streamlines (discrete adjoint) and "
    "deconvolution; seeds, responses and decisions held fixed"
)


def sensitivity_metadata(
    kind: Literal["", "dwi", "fodf"],
    *,
    config: SensitivityConfig,
    target: EdgeTarget,
    value: float,
    n_streamlines: int,
    by_signal: bool,
) -> dict[str, Any]:
    """Describe a sensitivity map.

    Parameters
    ----------
    kind
        The map of one value a voxel, or a derivative by the diffusion image or the fODFs.
    config
        How the connectome was made smooth.
    target
        What was differentiated.
    value
        The sum of edges, in (soft) streamlines.
    n_streamlines
        Streamlines that have part in it.
    by_signal
        Whether there is a derivative by the diffusion image.
    """
    described = {
        "": (
            "How much the edge changes when the signal of a voxel does: root of the sum over "
            "volumes of squared derivatives, times 1% of the voxel's mean b=0 signal"
            if by_signal
            else "Norm of the derivative of the edge by a voxel's SH coefficients",
            "streamlines" if by_signal else "arbitrary",
        ),
        "dwi": ("Derivative of the edge by each value of the diffusion image", "arbitrary"),
        "fodf": ("Derivative of the edge by each SH coefficient of the fODFs", "arbitrary"),
    }
    description, units = described[kind]
    return {
        "Description": description,
        "Units": units,
        "Edge": target.text,
        "SoftStreamlineCount": value,
        "StreamlinesInvolved": n_streamlines,
        **_smoothing(config, config.sensitivity_softness),
    }


def edge_errors_metadata(
    config: SensitivityConfig, *, n_nodes: int, n_streamlines: int
) -> dict[str, Any]:
    """Describe a matrix of standard deviations.

    Parameters
    ----------
    config
        How the connectome was made smooth.
    n_nodes
        Rows.
    n_streamlines
        Streamlines that it was worked out from.
    """
    return {
        "Description": "Standard deviation of the number of streamlines that connect two parcels, "
        "for the noise of the diffusion image: first order (delta method)",
        "RelationshipMeasure": "count",
        "MeasureDescription": "Standard deviation of the streamline count",
        "Units": "count",
        "Weighted": True,
        "Directed": False,
        "ValidDiagonal": True,
        "StorageFormat": "Full",
        "NonNegative": "True",
        "NodeCount": n_nodes,
        "NoiseLevel": "Marchenko-Pastur PCA, before denoising: of denoised images the noise is "
        "less, and this an upper bound of the first order",
        "Limits": "Streamlines that noise adds, and changes of course at decisions, are not in "
        "it: repeated scans differ by more",
        "StreamlinesInvolved": n_streamlines,
        **_smoothing(config, config.errors_softness),
    }


def _smoothing(config: SensitivityConfig, softness: float) -> dict[str, Any]:
    return {
        "Method": _METHOD,
        "SoftAssignmentSigma": config.soft_sigma_mm,
        "SurvivalSoftness": softness,
    }
