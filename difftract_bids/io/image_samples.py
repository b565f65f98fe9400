"""What an image holds along streamlines."""

from __future__ import annotations

import os

import numpy as np
import torch
from jaxtyping import Float

from difftract_bids.config import StreamlineStatistic
from difftract_bids.core.connectome.sampling import sample_along
from difftract_bids.io.images import load_volume
from difftract_bids.io.streaming import Sampler
from difftract_bids.io.streamline_arrays import StreamlineArrays


def image_sampler(path: str | os.PathLike[str], statistic: StreamlineStatistic) -> Sampler:
    """Make a function from streamlines to one number of an image for each.

    Parameters
    ----------
    path
        Three-dimensional image, of any grid in the space of the streamlines.
    statistic
        What is taken of the values at the vertices; the mean is over the length.

    Raises
    ------
    InputError
        If the image is missing, truncated or of another number of dimensions.
    """
    image, vox2ras = load_volume(path, ndim=3)
    data, affine = torch.from_numpy(image), torch.from_numpy(vox2ras)

    def sample(streamlines: StreamlineArrays) -> Float[np.ndarray, " n"]:
        points_mm = torch.from_numpy(np.ascontiguousarray(streamlines.points))
        offsets = torch.from_numpy(np.ascontiguousarray(streamlines.offsets))
        with torch.no_grad():
            return sample_along(data, affine, points_mm, offsets, statistic).numpy()

    return sample
