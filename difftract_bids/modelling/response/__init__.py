"""Estimating response functions: of single fibres, of tissues, and of groups."""

from difftract_bids.modelling.response.average import average_responses
from difftract_bids.modelling.response.dhollander import estimate_tissue_responses
from difftract_bids.modelling.response.files import read_response, write_response
from difftract_bids.modelling.response.single_shell import estimate_response
from difftract_bids.modelling.zonal import Response

__all__ = [
    "Response",
    "average_responses",
    "estimate_response",
    "estimate_tissue_responses",
    "read_response",
    "write_response",
]
