"""One simulated head, and what is true of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from nibabel.affines import apply_affine

from difftract_bids.phantom.agreement import Connectome
from difftract_bids.phantom.bundles import make_tube
from difftract_bids.phantom.geometry import Geometry


@dataclass(frozen=True)
class Head:
    """One subject as it lies in the scanner in one session.

    Attributes
    ----------
    geometry
        The head in its own axes.
    weights
        True number of streamlines of each bundle.
    head2ras
        Head axes to scanner axes (RAS+), millimetres, when it does not move.
    """

    geometry: Geometry
    weights: Int[np.ndarray, " bundle"]
    head2ras: Float[np.ndarray, "4 4"]

    def vox2head(self, vox2ras: Float[np.ndarray, "4 4"]) -> Float[np.ndarray, "4 4"]:
        """Turn an image's affine into one to the head's own axes, millimetres."""
        return np.linalg.inv(self.head2ras) @ vox2ras

    def true_connectome(self) -> Connectome:
        """Build the matrix of true streamline counts."""
        names = self.geometry.node_names
        matrix = np.zeros((len(names), len(names)))
        for bundle, weight in zip(self.geometry.bundles, self.weights, strict=True):
            first, second = (names.index(node) for node in bundle.nodes)
            matrix[first, second] += weight
            matrix[second, first] += weight
        return Connectome(tuple(names), matrix)

    def true_streamlines(self) -> list[Float[np.ndarray, "point 3"]]:
        """List the true streamlines, bundle by bundle, in RAS+ millimetres."""
        return [
            apply_affine(self.head2ras, line).astype(np.float32)
            for bundle, weight in zip(self.geometry.bundles, self.weights, strict=True)
            for line in make_tube(self.geometry, bundle, float(weight)).streamlines()
        ]
