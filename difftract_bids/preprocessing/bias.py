"""The intensity bias of receive coils (N4)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from difftract_bids.errors import InputError
from difftract_bids.io.images import Volume
from difftract_bids.io.transforms import to_itk
from difftract_bids.preprocessing.n4 import log_bias

#: The field is smooth: it is sought on voxels of about this size.
_WORKING_MM = 8.0
_ITERATIONS = (50, 50, 50)
#: Distance of the spline's knots at the first level; each level halves it.
_KNOTS_MM = 150.0
_CONVERGENCE = 1e-4
#: Away from the brain the spline is free: the field stays within what it is in the brain.
_SLACK = 1.1


def estimate_bias(b0: Volume, mask: Bool[np.ndarray, "x y z"]) -> Float[np.ndarray, "x y z"]:
    """Estimate the field that multiplies an image by N4 (SimpleITK).

    Parameters
    ----------
    b0
        Mean b=0 image.
    mask
        Brain, roughly, on its grid.

    Returns
    -------
    numpy.ndarray
        Float32, positive, mean 1 in the mask; divide images by it. Outside the mask the spline
        goes on smoothly, held to a tenth beyond its range inside.

    Raises
    ------
    InputError
        If the mask has no voxel with signal, or next to none.

    References
    ----------
    Tustison et al. 2010, doi:10.1109/TMI.2010.2046908.
    """
    data = np.nan_to_num(b0.data.astype(np.float32), posinf=0.0, neginf=0.0)
    inside = mask & (data > 0)
    if not inside.any():
        raise InputError(
            "No voxel of the brain mask has any signal at b=0.",
            remedy="Look at the b=0 volumes, or switch this step off (--bias-correction none).",
        )
    image, region = to_itk(data, b0.vox2ras), to_itk(inside.astype(np.uint8), b0.vox2ras)
    factors = [max(1, round(_WORKING_MM / float(size))) for size in b0.voxel_sizes_mm]
    extent_mm = np.ptp(np.argwhere(inside), axis=0) * b0.voxel_sizes_mm
    points = [max(1, round(mm / _KNOTS_MM)) + 3 for mm in extent_mm]
    log_field = log_bias(
        image, region, factors, _ITERATIONS, control_points=points, convergence=_CONVERGENCE
    )
    field = np.exp(np.nan_to_num(log_field.astype(np.float64)))
    low, high = field[inside].min() / _SLACK, field[inside].max() * _SLACK
    field = np.clip(field, low, high)
    return (field / field[mask].mean()).astype(np.float32)
