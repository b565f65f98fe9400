"""Streamline weights that make counts of streamlines quantitative (SIFT2).

References
----------
Smith et al. 2015, doi:10.1016/j.neuroimage.2015.06.092; Smith et al. 2013,
doi:10.1016/j.neuroimage.2012.11.049.
"""

from difftract_bids.core.sift2.fit import Cost, StreamlineWeights, fit_streamline_weights
from difftract_bids.core.sift2.fixels import Fixels, segment_fodf
from difftract_bids.core.sift2.mapping import Visits, map_streamlines

__all__ = [
    "Cost",
    "Fixels",
    "StreamlineWeights",
    "Visits",
    "fit_streamline_weights",
    "map_streamlines",
    "segment_fodf",
]
