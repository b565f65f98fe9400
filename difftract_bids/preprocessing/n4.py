"""N4, run so that its result does not depend on the machine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk  # noqa: N813 (its customary name)
from jaxtyping import Float

from difftract_bids.errors import InputError


def log_bias(
    image: sitk.Image,
    inside: sitk.Image,
    factors: Sequence[int],
    iterations: Sequence[int],
    *,
    control_points: Sequence[int] | None = None,
    convergence: float | None = None,
) -> Float[np.ndarray, "x y z"]:
    """Estimate the logarithm of the field that multiplies an image, on its grid.

    Parameters
    ----------
    image, inside
        The image, and where to judge it, 8 bit.
    factors
        How many voxels along each axis are one where the field is sought.
    iterations
        At most, of each level.
    control_points, convergence
        N4's own settings; its defaults if not given.

    Raises
    ------
    InputError
        If there is too little to judge.

    References
    ----------
    Tustison et al. 2010, doi:10.1109/TMI.2010.2046908.
    """
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetMaximumNumberOfIterations(list(iterations))
    if control_points is not None:
        n4.SetNumberOfControlPoints(list(control_points))
    if convergence is not None:
        n4.SetConvergenceThreshold(convergence)
    # Sums of several threads depend on how many there are, and only the global default reaches
    # the splines within N4.
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        n4.Execute(sitk.Shrink(image, factors), sitk.Shrink(inside, factors))
        field = n4.GetLogBiasFieldAsImage(image)
    except RuntimeError as error:
        raise InputError(
            f"The intensity bias cannot be estimated: {str(error).splitlines()[-1]}",
            remedy="Look at the image and its brain mask: there may be too little of the brain. "
            "If so, leave the step out (--bias-correction none).",
        ) from error
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
    return sitk.GetArrayFromImage(field).transpose(2, 1, 0)
