"""From the signal to the fODF: spherical deconvolution as differentiable layers."""

from difftract_bids.core.deconvolution.directions import (
    constraint_directions,
    directions_from_angles,
)
from difftract_bids.core.deconvolution.multi_tissue import MSMTCSD, msmt_csd
from difftract_bids.core.deconvolution.single_shell import CSD, CSDOptions, csd

__all__ = [
    "CSD",
    "MSMTCSD",
    "CSDOptions",
    "constraint_directions",
    "csd",
    "directions_from_angles",
    "msmt_csd",
]
