"""How much noise in the signal moves the edges of a connectome: the delta method.

For noise that is independent between voxels and volumes, with the standard deviation σ_v in a
voxel, the variance of an edge C is to first order

    Var C = Σ_v σ_v² Σ_i (∂C / ∂S_vi)²,

S_vi being the signal of voxel v in volume i. The derivative is that of `DWIToConnectome`: through
the soft assignment of ends, all steps of the edge's streamlines, and the deconvolution. Seeds and
responses are held fixed, and what has no derivative (a streamline that ends elsewhere, or is
lost) is not in it.
"""

from difftract_bids.core.uncertainty.standard_errors import EdgeErrors, edge_standard_deviations

__all__ = ["EdgeErrors", "edge_standard_deviations"]
