"""Voxels of white matter, grey matter and fluid, found from the diffusion signal alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from difftract_bids.errors import InputError
from difftract_bids.io.gradients import GradientTable
from difftract_bids.modelling.response.voxels import brighter, positive_mean, top

#: White matter is more anisotropic than this, grey matter and fluid are less.
_WHITE_FA = 0.2
#: ln(signal without weighting / with); free water at b = 3000 s/mm² has 9.
_LARGEST_DECAY = 10.0
#: White matter that decays faster, by so many robust standard deviations, has fluid in it.
_OUTLIER = 2.0
_MAD_TO_STANDARD_DEVIATION = 1.4826
#: Of the refined tissue, the share from which the response is estimated.
_GREY_SHARE, _FLUID_SHARE = 0.02, 0.1


class TissueVoxels(NamedTuple):
    """Refined white matter, and the final voxels of grey matter and fluid."""

    white: Bool[np.ndarray, " voxel"]
    grey: Bool[np.ndarray, " voxel"]
    fluid: Bool[np.ndarray, " voxel"]


def signal_decay(
    signal: Float[np.ndarray, "voxel volume"], gradients: GradientTable
) -> Float[np.ndarray, " voxel"]:
    """Return ln(mean b=0 signal / mean signal of a shell), averaged over the weighted volumes."""
    (_, b0), *weighted = gradients.shell_volumes()
    reference = positive_mean(signal, b0)
    total = sum(
        volumes.sum() * np.log(reference / positive_mean(signal, volumes))
        for _, volumes in weighted
    )
    return np.minimum(total / gradients.n_directions, _LARGEST_DECAY)


def divide_tissues(
    decay: Float[np.ndarray, " voxel"], fa: Float[np.ndarray, " voxel"]
) -> TissueVoxels:
    """Tell tissues apart by anisotropy and signal decay, and drop what may be mixed.

    Parameters
    ----------
    decay
        By `signal_decay`, positive.
    fa
        Fractional anisotropy.

    Raises
    ------
    InputError
        If a tissue has no voxels.

    References
    ----------
    Dhollander, Raffelt and Connelly 2016, "Unsupervised 3-tissue response function estimation from
    single-shell or multi-shell diffusion MR data without a co-registered T1 image", ISMRM Workshop
    on Breaking the Barriers of Diffusion MRI, 5; as MRtrix3 3.0.3's ``dwi2response dhollander``.
    """
    white = fa > _WHITE_FA
    if not white.any() or white.all():
        raise InputError(
            f"{int(white.sum())} of {len(fa)} voxels have an anisotropy above {_WHITE_FA}: there "
            "are no two tissues to tell apart.",
            remedy="Check the brain mask and the gradient table.",
        )
    fluid = _where(~white, brighter(decay[~white]))
    grey = ~white & ~fluid
    middle = np.median(decay[white])
    deviation = _MAD_TO_STANDARD_DEVIATION * np.median(np.abs(decay[white] - middle))
    outliers = white & (decay > middle + _OUTLIER * deviation)
    white &= ~outliers
    fluid |= outliers & (decay > decay[fluid].min())
    fluid = _where(fluid, brighter(decay[fluid]))
    if not grey.any():
        raise InputError(
            "No voxel of the mask looks like grey matter.", remedy="Check the brain mask."
        )
    grey = _without_extremes(grey, decay)
    from_middle = np.abs(decay[grey] - np.median(decay[grey]))
    return TissueVoxels(
        white,
        _where(grey, top(-from_middle, share_of(grey, _GREY_SHARE))),
        _where(fluid, top(decay[fluid], share_of(fluid, _FLUID_SHARE))),
    )


def share_of(voxels: Bool[np.ndarray, " voxel"], share: float) -> int:
    """Return how many voxels a share is, at least one."""
    return max(1, round(float(voxels.sum()) * share))


def _without_extremes(
    grey: Bool[np.ndarray, " voxel"], decay: Float[np.ndarray, " voxel"]
) -> Bool[np.ndarray, " voxel"]:
    """Drop grey matter mixed with fluid, which decays faster, and with white, which slower."""
    middle = np.median(decay[grey])
    kept = np.zeros_like(grey)
    for side in (grey & (decay > middle), grey & (decay <= middle)):
        if side.any():
            kept |= _where(side, ~brighter(np.abs(decay[side] - middle)))
    return kept if kept.any() else grey


def _where(
    voxels: Bool[np.ndarray, " voxel"], chosen: Bool[np.ndarray, " part"]
) -> Bool[np.ndarray, " voxel"]:
    """Spread a choice among some voxels over all of them."""
    spread = np.zeros_like(voxels)
    spread[voxels] = chosen
    return spread
