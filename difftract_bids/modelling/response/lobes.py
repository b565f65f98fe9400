"""Peaks of fODFs, and where their largest lobe points on average."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from dipy.core.sphere import unit_icosahedron
from jaxtyping import Float, Int
from scipy.spatial import cKDTree

from difftract_bids.core.fodf_peaks import all_peaks
from difftract_bids.core.sh import lmax_of
from difftract_bids.modelling.fodf import sh_basis

#: An icosahedron divided so often has 1281 pairs of opposite vertices, 4 degrees apart.
_SUBDIVISIONS = 4
_VOXELS_AT_ONCE = 2000


class HalfSphere(NamedTuple):
    """Directions that stand for themselves and their opposites, and each one's neighbours."""

    directions: Float[np.ndarray, "direction 3"]
    #: The first is the direction itself; it also fills up the rows of the twelve with five.
    neighbours: Int[np.ndarray, "direction 7"]


def peak_amplitudes(
    fodf: Float[np.ndarray, "voxel coeff"], number: int
) -> Float[np.ndarray, "voxel peak"]:
    """Return the amplitudes of each fODF's largest peaks; zero where there are no more.

    Parameters
    ----------
    fodf
        Coefficients in MRtrix's basis.
    number
        How many peaks.
    """
    peaks = all_peaks(torch.from_numpy(np.ascontiguousarray(fodf)), number)
    return torch.linalg.vector_norm(peaks, dim=2).numpy()


def lobe_directions(fodf: Float[np.ndarray, "voxel coeff"]) -> Float[np.ndarray, "voxel 3"]:
    """Return the mean direction of each fODF's largest lobe, weighted by amplitude.

    A lobe is the directions from which one climbs to the same peak.

    Parameters
    ----------
    fodf
        Coefficients in MRtrix's basis.

    Returns
    -------
    directions
        Unit vectors in the frame of the fODF; zero where it is positive nowhere.

    References
    ----------
    Smith et al. 2013, doi:10.1016/j.neuroimage.2012.11.049, appendix 2 (lobes and their mean
    direction; there they are grown from the largest amplitude downwards).
    """
    directions = np.zeros((len(fodf), 3))
    sphere, neighbours = half_sphere()
    for part, amplitude in _portions(fodf):
        uphill = amplitude[neighbours].argmax(axis=1)
        peak = np.take_along_axis(neighbours, uphill, axis=1)
        # Each jump doubles the climb so far; none is longer than the grid is wide.
        for _ in range(int(np.ceil(np.log2(2 * len(sphere) ** 0.5)))):
            peak = np.take_along_axis(peak, peak, axis=0)
        best = amplitude.argmax(axis=0)
        weight = np.where(peak == best, np.maximum(amplitude, 0.0), 0.0)
        # Opposite directions are one: take of each pair the one on the peak's side.
        mean = (weight * np.sign(sphere @ sphere[best].T)).T @ sphere
        length = np.linalg.norm(mean, axis=1, keepdims=True)
        directions[part] = mean / np.where(length > 0, length, 1.0)
    return directions


def _portions(
    fodf: Float[np.ndarray, "voxel coeff"],
) -> Iterator[tuple[slice, Float[np.ndarray, "direction part"]]]:
    """Yield the amplitudes along the grid of some voxels at a time, to bound the memory."""
    basis = sh_basis(half_sphere().directions, lmax_of(fodf.shape[1])).astype(np.float32)
    for start in range(0, len(fodf), _VOXELS_AT_ONCE):
        part = slice(start, start + _VOXELS_AT_ONCE)
        yield part, basis @ fodf[part].T.astype(np.float32)


@cache
def half_sphere() -> HalfSphere:
    """Divide an icosahedron and keep one of each two opposite vertices."""
    sphere = unit_icosahedron.subdivide(n=_SUBDIVISIONS)
    vertices = sphere.vertices / np.linalg.norm(sphere.vertices, axis=1, keepdims=True)
    opposite = cKDTree(vertices).query(-vertices)[1]
    kept = np.flatnonzero(np.arange(len(vertices)) < opposite)
    number = np.empty(len(vertices), dtype=np.int64)
    number[kept] = number[opposite[kept]] = np.arange(len(kept))
    neighbours = np.repeat(np.arange(len(kept))[:, None], 7, axis=1)
    filled = np.ones(len(kept), dtype=np.int64)
    edges = {(number[a], number[b]) for a, b in sphere.edges}
    for one, other in sorted(edges | {(b, a) for a, b in edges}):
        neighbours[one, filled[one]] = other
        filled[one] += 1
    return HalfSphere(vertices[kept], neighbours)
