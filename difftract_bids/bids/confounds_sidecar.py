"""Content of the JSON sidecar of the confounds of a diffusion run."""

from __future__ import annotations

from typing import Any

from difftract_bids.config import MotionCorrection


def confounds_metadata(motion: MotionCorrection) -> dict[str, Any]:
    """Describe the columns of ``desc-confounds_timeseries.tsv``.

    Parameters
    ----------
    motion
        How head motion was corrected.
    """
    # eddy goes by the first volume, whatever its b-value.
    first = "first volume" if motion == "eddy" else "first b=0 volume"
    reference = f"relative to the {first}"
    outliers = "replaced by their prediction" if motion == "eddy" else "flagged, not replaced"
    without = ", without shifts along phase encoding that follow the gradient (eddy currents)"
    without = "" if motion == "eddy" else without
    shifts = {
        f"trans_{axis}": (f"Translation of the brain's centre {way}, {reference}{without}", "mm")
        for axis, way in (("x", "to the right"), ("y", "to the front"), ("z", "upwards"))
    }
    turns = {
        f"rot_{axis}": (f"Rotation about the fixed {axis} axis of the scanner, {reference}", "rad")
        for axis in "xyz"
    }
    directions = {
        f"grad_{axis}": (
            (
                f"Component along {axis} (RAS+) of the gradient direction, turned with the head "
                "into the reference position"
            ),
            "",
        )
        for axis in "xyz"
    }
    columns = {
        **shifts,
        **turns,
        "framewise_displacement": (
            (
                "Sum of the absolute changes of the six parameters from the volume before, "
                "rotations as arcs at 50 mm (Power et al. 2012, "
                "doi:10.1016/j.neuroimage.2011.10.018)"
            ),
            "mm",
        ),
        "bval": ("b-value", "s/mm^2"),
        **directions,
        "outlier_slices": (f"Slices whose signal fell out: {outliers}", "count"),
    }
    return {
        "Description": "Head motion and quality of each volume, a row each, as acquired",
        "MotionReference": f"Position of the head at the {first}",
        **{
            name: {"Description": text, **({"Units": unit} if unit else {})}
            for name, (text, unit) in columns.items()
        },
    }


def outliers_metadata() -> dict[str, Any]:
    """Describe ``desc-outliers_timeseries.tsv``."""
    return {
        "Description": "Slices whose signal fell out (1) or not (0): a row a slice, a column a "
        "volume, both from 0. They were flagged, not replaced, unless FSL's eddy was used."
    }
