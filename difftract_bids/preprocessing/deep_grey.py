"""Where deep grey matter and cortex may be: a prior that comes with the package.

``data/make_deep_grey.py`` made it, in the space of ICBM 152 2009a; it fits brains registered to
any of the ICBM 152 2009 templates, which differ by a millimetre or two.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import as_file, files
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from difftract_bids.io.images import Volume, load_volume
from difftract_bids.io.transforms import Transform
from difftract_bids.preprocessing.registration import resample

_FILE = "tpl-MNI152NLin2009aSym_res-02_desc-deepgrey_probseg.nii.gz"


class GreyPrior(NamedTuple):
    """How likely each voxel is grey matter of either kind, 0 to 1, by its place alone."""

    deep: Float[np.ndarray, "x y z"]
    cortical: Float[np.ndarray, "x y z"]


def grey_prior(
    shape: Sequence[int], vox2ras: Float[np.ndarray, "4 4"], to_template: Sequence[Transform]
) -> GreyPrior:
    """Bring the prior to a brain.

    Parameters
    ----------
    shape, vox2ras
        The grid of the brain's image.
    to_template
        From points of that grid's space to points of the template, outermost last.
    """
    with as_file(files("difftract_bids.data") / "deep_grey" / _FILE) as path:
        percent, template2ras = load_volume(path, ndim=4)
    deep, cortical = (
        resample(Volume(percent[..., i] / 100, template2ras), shape, vox2ras, to_template)
        for i in range(2)
    )
    return GreyPrior(deep, cortical)
