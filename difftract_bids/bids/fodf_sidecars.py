"""Content of the JSON sidecars of fODF images, their maps and their responses (BEP016)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from difftract_bids.bids.fodf_model_file import TrainedModel

_MODELS = {
    "csd": (
        "Constrained spherical deconvolution",
        "https://doi.org/10.1016/j.neuroimage.2007.02.016",
    ),
    "msmtcsd": (
        "Multi-shell multi-tissue constrained spherical deconvolution",
        "https://doi.org/10.1016/j.neuroimage.2014.07.061",
    ),
    "ss2t": (
        "Two-tissue constrained spherical deconvolution of one shell and b=0",
        "https://doi.org/10.1016/j.neuroimage.2014.07.061",
    ),
    "given": ("fODFs from elsewhere", None),
    "learned": ("Prediction of a trained network", None),
}
_TISSUE_NAMES = {"WM": "White matter", "GM": "Grey matter", "CSF": "Cerebrospinal fluid"}
_ALGORITHMS = {
    "tournier": "Tournier et al. 2013, doi:10.1002/nbm.3017",
    "fa": "Tournier et al. 2004, doi:10.1016/j.neuroimage.2004.07.037",
    "dhollander": "Dhollander et al. 2019, Proc. ISMRM 27, 555",
}


#: Which peaks are mapped: those that tracking follows, unless they are small beside the largest.
PEAK_RULES = {"cutoff": 0.1, "relative_cutoff": 0.25, "separation_deg": 15.0}


def model_metadata(model: str, reason: str) -> dict[str, Any]:
    """Name an fODF model, its source, and why it is this one.

    Parameters
    ----------
    model
        As in the names of files.
    reason
        As a part of a sentence.
    """
    description, url = _MODELS[model]
    named: dict[str, Any] = {"Description": description} | ({"URL": url} if url else {})
    return {"Model": named, "FODFModel": model, "FODFModelReason": reason}


def sh_encoding(lmax: int, basis: str) -> dict[str, Any]:
    """Say how an image holds spherical harmonics along its fourth axis, in scanner axes.

    Parameters
    ----------
    lmax
        Largest degree.
    basis
        BIDS' word for the basis.
    """
    encoding = {
        "Type": "sh",
        "Reference": "xyz",
        "SphericalHarmonicBasis": basis,
        "SphericalHarmonicDegree": lmax,
        "EncodingAxis": 3,
    }
    return {"OrientationEncoding": encoding}


def fodf_metadata(
    tissue: str,
    *,
    model: str,
    reason: str,
    lmax: int,
    response: Sequence[Sequence[float]],
    shells_s_mm2: Sequence[float],
    left_out: Mapping[str, int],
    n_constraint_directions: int,
) -> dict[str, Any]:
    """Describe the fODF image of a tissue, in MRtrix's basis.

    Parameters
    ----------
    tissue
        ``WM``, ``GM`` or ``CSF``.
    model, reason
        What was fitted, and why.
    lmax
        Largest degree really used; 0 for a tissue without directions.
    response
        Zonal coefficients of its response function, one row a shell.
    shells_s_mm2
        b-values of these rows.
    left_out
        Voxels of the mask without a fit, by reason.
    n_constraint_directions
        Along how many directions amplitudes are held from being negative.
    """
    described = model_metadata(model, reason)
    described["Model"]["Parameters"] = {
        "Tissue": tissue,
        "SphericalHarmonicDegree": lmax,
        "Shells": [round(float(bval), 1) for bval in shells_s_mm2],
        "ShellUnits": "s/mm^2",
        "ConstraintDirections": n_constraint_directions,
    }
    return {
        "Description": _TISSUE_NAMES[tissue],
        **described,
        "NonNegativity": "regularized" if model == "csd" else "constrained",
        **sh_encoding(lmax, "mrtrix3"),
        "ResponseFunction": {
            "Type": "zsh",
            "Coefficients": [[float(value) for value in row] for row in response],
        },
        "VoxelsLeftOut": dict(left_out),
        "Normalised": False,
    }


def learned_metadata(network: TrainedModel, notes: Sequence[str]) -> dict[str, Any]:
    """Describe the fODF image that a trained network predicted, in MRtrix's basis.

    Parameters
    ----------
    network
        What predicted it.
    notes
        In what the run differs from those that it was trained for.
    """
    lmax = int(network.settings["lmax"])
    described = model_metadata("learned", f"the trained model {network.file} was given")
    described["Model"]["Parameters"] = {
        "Tissue": "WM",
        "SphericalHarmonicDegree": lmax,
        "File": network.file,
        "SHA256": network.sha256,
        "Architecture": network.settings["architecture"],
        "TrainedFor": _acquisition(network.settings["acquisition"]),
        **({"CommonResponse": list(network.response)} if network.response else {}),
    }
    trained_on = {"Participants": network.n_participants, "Datasets": network.datasets or None}
    return {
        "Description": "White matter",
        **described,
        "TrainingData": {key: value for key, value in trained_on.items() if value is not None},
        "Differences": list(notes),
        **sh_encoding(lmax, "mrtrix3"),
    }


def _acquisition(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "Shells": [round(float(bval), 1) for bval in settings["shells_s_mm2"]],
        "ShellUnits": "s/mm^2",
        "Directions": list(settings["n_directions"]),
        "VoxelSize": [round(float(size), 3) for size in settings["voxel_size_mm"]],
        "VoxelSizeUnits": "mm",
    }


def refinement_metadata(
    fodf: Mapping[str, Any],
    *,
    target: str,
    kind: str,
    steps: int,
    weight: float,
    loss: tuple[float, float],
    misfit: tuple[float, float],
    response: str,
) -> dict[str, Any]:
    """Describe fODFs that were adjusted to a target.

    Parameters
    ----------
    fodf
        Sidecar of the fODFs before.
    target
        Name of the file, without its folder.
    kind
        ``connectome`` or ``tractogram``.
    steps
        Steps that were made.
    weight
        Of the misfit of the signal.
    loss
        How far the tracked fODFs are from the target, before and after.
    misfit
        Squared difference of the signal that they predict and the measured one, as a share of the
        measured one's square, before and after.
    response
        Where the response is from that predicts the signal: ``fitted`` or ``estimated``.
    """
    return {
        **fodf,
        "Description": f"White matter, adjusted to a {kind}: no estimate from the images alone",
        "Refinement": {
            "Target": target,
            "TargetType": kind,
            "Steps": steps,
            "FidelityWeight": weight,
            "Loss": {"Before": loss[0], "After": loss[1]},
            "SignalMisfit": {"Before": misfit[0], "After": misfit[1]},
            "Response": response,
            "Method": "Descent along the gradient of the loss through the streamlines (discrete "
            "adjoint), with the relative misfit of the predicted signal held down",
        },
    }


def normalisation_metadata(
    *, balance: Mapping[str, float], reference: float, field_range: tuple[float, float]
) -> dict[str, Any]:
    """Say how the tissues were brought to a common intensity.

    Parameters
    ----------
    balance
        Factor of each tissue.
    reference
        What the sum of all tissues is on average.
    field_range
        1st and 99th percentile of the field within the brain; tissues are divided by it.
    """
    return {
        "Normalised": True,
        "NormalisedBy": {
            "Description": "Multi-tissue informed log-domain intensity normalisation: every "
            "tissue was divided by a field; balance factors weighted them while it was found",
            "Reference": "Raffelt et al. 2017, Proc. ISMRM 25, 3541",
            "BalanceFactors": {tissue: float(factor) for tissue, factor in balance.items()},
            "ReferenceSum": float(reference),
            "FieldPercentiles": {"1": float(field_range[0]), "99": float(field_range[1])},
        },
    }


def map_metadata(parameter: str) -> dict[str, Any]:
    """Describe a map of an fODF image: ``afdtotal``, ``nufo`` or ``peak``."""
    rules = {
        "PeakRules": {
            "AmplitudeCutoff": PEAK_RULES["cutoff"],
            "RelativeAmplitudeCutoff": PEAK_RULES["relative_cutoff"],
            "LeastSeparation": PEAK_RULES["separation_deg"],
            "SeparationUnits": "degree",
        }
    }
    described: dict[str, dict[str, Any]] = {
        "afdtotal": {
            "Description": "Total apparent fibre density: the integral of the fODF over the "
            "sphere, the coefficient of degree 0 times sqrt(4 pi)",
            "Units": "arbitrary",
        },
        "nufo": {"Description": "Number of fibre orientations: peaks of the fODF", **rules},
        "peak": {
            "Description": "Peaks of the fODF, largest first: direction times amplitude",
            "OrientationEncoding": {
                "Type": "3vector",
                "Reference": "xyz",
                "EncodingAxis": 3,
                "FillValue": 0.0,
            },
            **rules,
        },
    }
    return described[parameter]


def response_metadata(tissue: str) -> dict[str, Any]:
    """Describe the response function of a tissue: ``WM``, ``GM`` or ``CSF``."""
    return {"Description": f"Response function of {_TISSUE_NAMES[tissue].lower()}"}


def estimation_metadata(algorithm: str, given: Sequence[str] = ()) -> dict[str, Any]:
    """Say where response functions come from.

    Parameters
    ----------
    algorithm
        How they were estimated, unless they were given.
    given
        The files they were given in, of which the names alone are told.
    """
    if given:
        said: dict[str, Any] = {
            "Method": "given",
            "Files": [PurePath(path).name for path in given],
        }
    else:
        said = {"Method": algorithm, "Reference": _ALGORITHMS[algorithm]}
    return {"ResponseEstimation": said}
