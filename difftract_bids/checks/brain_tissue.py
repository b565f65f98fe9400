"""Where brain tissue is by its diffusion-weighted signal, whatever a mask says."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from scipy import ndimage

from difftract_bids.io.gradients import GradientTable

#: The b-value at which tissue stands out best from fluid, muscle and noise, s/mm².
_BEST_BVAL_S_MM2 = 1000.0
#: Tissue is brighter than this share of the way from the background to its bright quarter.
_BRIGHT = 0.4
#: Bridges to scalp and muscle that are thinner than twice this are cut.
_CORE_MM = 4.0


def powder_average(
    dwi: NDArray[np.floating], gradients: GradientTable
) -> Float[np.ndarray, "x y z"]:
    """Average the shell that is nearest b = 1000 s/mm² over its directions.

    Fluid, eyes and most of the scalp are dark in it.
    """
    shells = [(bval, volumes) for bval, volumes in gradients.shell_volumes() if bval > 0]
    _, volumes = min(shells, key=lambda shell: abs(np.log(shell[0] / _BEST_BVAL_S_MM2)))
    total = np.zeros(dwi.shape[:3], dtype=np.float32)
    for volume in np.flatnonzero(volumes):
        total += dwi[..., volume]
    total /= volumes.sum()
    return np.nan_to_num(total, posinf=0.0, neginf=0.0)


def find_tissue(
    powder: Float[np.ndarray, "x y z"],
    mask: Bool[np.ndarray, "x y z"],
    voxel_sizes_mm: Float[np.ndarray, " 3"],
) -> Bool[np.ndarray, "x y z"]:
    """Find the large connected bright part of a powder average that a mask has most of.

    The mask says only how bright tissue is, by its brightest quarter, and which part is meant:
    with half of a brain it finds the whole, and with half a head the brain. Holes are filled.

    Parameters
    ----------
    powder
        From `powder_average`.
    mask
        Brain mask, good or bad, not empty.
    voxel_sizes_mm
        Length of a voxel along each axis, millimetres.
    """
    bright_level = float(np.percentile(powder[mask], 75))
    outside = powder[~mask]
    dark_level = float(np.percentile(outside, 25)) if outside.size else 0.0
    bright = powder > dark_level + _BRIGHT * max(bright_level - dark_level, 0.0)
    # Where the image ends tissue does not: a brain cut by the field of view keeps its cut face.
    core = ndimage.distance_transform_edt(bright, voxel_sizes_mm) > _CORE_MM
    parts, count = ndimage.label(core)
    if not count:  # too small to be opened
        return bright & mask
    overlap = np.bincount(parts[mask], minlength=count + 1)[1:]
    chosen = parts == int(overlap.argmax()) + 1
    # One voxel further than what was cut off, to get rounded corners back.
    regrown = distance_mm(chosen, voxel_sizes_mm) <= _CORE_MM + float(voxel_sizes_mm.max())
    return ndimage.binary_fill_holes(regrown & bright)


def distance_mm(
    region: Bool[np.ndarray, "x y z"], voxel_sizes_mm: Float[np.ndarray, " 3"]
) -> Float[np.ndarray, "x y z"]:
    """Give the distance of each voxel from a region that is not empty; 0 within it."""
    return ndimage.distance_transform_edt(~region, voxel_sizes_mm)
