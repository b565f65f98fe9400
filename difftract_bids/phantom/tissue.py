"""Which tissue and which parcel a point or a voxel of the head holds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import cKDTree

from difftract_bids.phantom.geometry import Geometry


class Tissue(IntEnum):
    """Tissue classes; the values are BIDS' standard ``dseg`` indices for the first five."""

    AIR = 0
    GREY = 1
    WHITE = 2
    CSF = 3
    BONE = 4
    SCALP = 5


@dataclass(frozen=True)
class TissueMap:
    """Tissues and parcels on a grid.

    Attributes
    ----------
    fractions
        Volume fraction of each :class:`Tissue` in each voxel; they sum to 1.
    labels
        Parcel index of each voxel that is mostly grey, 0 elsewhere.
    """

    fractions: Float[np.ndarray, "x y z tissue"]
    labels: Int[np.ndarray, "x y z"]


def tissue_at(geometry: Geometry, points_mm: Float[np.ndarray, "*n 3"]) -> Int[np.ndarray, "*n"]:
    """Give the :class:`Tissue` at each point (head axes, millimetres)."""
    outside = geometry.pial.distance_mm(points_mm)
    layers = np.cumsum([geometry.subarachnoid_mm, geometry.skull_mm, geometry.scalp_mm])
    shells = np.array([Tissue.CSF, Tissue.BONE, Tissue.SCALP, Tissue.AIR], np.uint8)
    tissue = shells[np.searchsorted(layers, outside)]
    inside = outside < 0
    tissue[inside] = _inside(geometry, points_mm[inside])
    return tissue


def _inside(geometry: Geometry, points_mm: Float[np.ndarray, "n 3"]) -> Int[np.ndarray, " n"]:
    depth_mm = geometry.depth_mm(points_mm)
    gap = geometry.fissure.distance_mm(points_mm)
    cortical = (depth_mm < geometry.cortex_mm) | (gap < geometry.cortex_mm)
    tissue = np.where(cortical, Tissue.GREY, Tissue.WHITE).astype(np.uint8)
    for ventricle in geometry.ventricles:
        tissue[ventricle.distance_mm(points_mm) < 0] = Tissue.CSF
    tissue[(gap < 0) | (depth_mm < 0)] = Tissue.CSF
    for parcel in geometry.parcels:
        if parcel.kind == "nucleus":
            tissue[parcel.shape.distance_mm(points_mm) < 0] = Tissue.GREY
    return tissue


def parcel_at(geometry: Geometry, points_mm: Float[np.ndarray, "n 3"]) -> Int[np.ndarray, " n"]:
    """Give the index of the parcel that a point of grey matter belongs to.

    A point inside a nucleus belongs to it, any other to the nearest cortical centre of its
    hemisphere: whether it is grey at all is :func:`tissue_at`'s to say.
    """
    labels = np.zeros(len(points_mm), np.int16)
    for side, on_side in (("left", points_mm[:, 0] < 0), ("right", points_mm[:, 0] >= 0)):
        cortex = [p for p in geometry.parcels if p.kind == "cortex" and p.hemisphere == side]
        nearest = cKDTree([p.shape.centre_mm for p in cortex]).query(points_mm[on_side])[1]
        labels[on_side] = np.array([p.index for p in cortex])[nearest]
    for parcel in geometry.parcels:
        if parcel.kind == "nucleus":
            labels[parcel.shape.distance_mm(points_mm) < 0] = parcel.index
    return labels


def map_tissue(
    geometry: Geometry,
    shape: tuple[int, int, int],
    vox2head: Float[np.ndarray, "4 4"],
    *,
    samples_per_axis: int = 3,
) -> TissueMap:
    """Fill a grid with tissue fractions (partial volume by sub-sampling) and parcel labels.

    Parameters
    ----------
    geometry
        The head.
    shape
        Number of voxels along each axis.
    vox2head
        Voxel indices to head axes, millimetres.
    samples_per_axis
        Sub-samples of a voxel along each axis.
    """
    grid = np.moveaxis(np.indices(shape), 0, -1).reshape(-1, 3)
    centres = _to_head(grid, vox2head)
    reach = sum((geometry.subarachnoid_mm, geometry.skull_mm, geometry.scalp_mm))
    voxel_mm = np.linalg.norm(vox2head[:3, :3], axis=0).max()
    near = np.flatnonzero(geometry.pial.distance_mm(centres) < reach + 1.5 * voxel_mm)
    offsets = (np.arange(samples_per_axis) + 0.5) / samples_per_axis - 0.5
    fractions = np.zeros((len(grid), len(Tissue)), np.float32)
    fractions[:, Tissue.AIR] = 1.0
    fractions[near] = 0.0
    for step in np.stack(np.meshgrid(offsets, offsets, offsets), -1).reshape(-1, 3):
        tissue = tissue_at(geometry, centres[near] + vox2head[:3, :3] @ step)
        fractions[near, tissue] += 1.0 / samples_per_axis**3
    grey = np.flatnonzero(fractions[:, Tissue.GREY] >= 0.5)
    labels = np.zeros(len(grid), np.int16)
    labels[grey] = parcel_at(geometry, centres[grey])
    return TissueMap(fractions.reshape(*shape, len(Tissue)), labels.reshape(shape))


def _to_head(
    voxels: Float[np.ndarray, "n 3"], vox2head: Float[np.ndarray, "4 4"]
) -> Float[np.ndarray, "n 3"]:
    return voxels @ vox2head[:3, :3].T + vox2head[:3, 3]
