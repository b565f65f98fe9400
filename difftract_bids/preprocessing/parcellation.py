"""Parcellations brought into the diffusion image's grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray

from difftract_bids.bids.nodes import NodeTable
from difftract_bids.errors import AtlasError
from difftract_bids.io.images import Volume
from difftract_bids.io.transforms import Transform
from difftract_bids.preprocessing.registration import dilate_mm, resample

#: Labels up to a voxel outside the mask are kept: its edge is no surer than that, and streamlines
#: that end on it belong to the cortex just beyond. (A little more than 1, for rounding.)
_RIM_VOXELS = 1.01
_SAME_GRID_MM = 1e-3


class DwiParcellation(NamedTuple):
    """Labels on the diffusion grid, and the names of nodes that have no voxel there."""

    labels: Int[np.ndarray, "x y z"]
    lost: tuple[str, ...]


def parcellation_in_dwi(
    source: Volume, nodes: NodeTable, brain: Volume, transforms: Sequence[Transform] = ()
) -> DwiParcellation:
    """Bring labels onto the diffusion grid in one nearest-neighbour interpolation.

    Labels on that very grid are copied. Those more than a voxel outside the mask are dropped.

    Parameters
    ----------
    source
        Label image: of the atlas, or the subject's own.
    nodes
        Its nodes.
    brain
        Brain mask of the diffusion image, on its grid.
    transforms
        From diffusion space outwards: ``[dwi_to_t1w, t1w_to_template]``, ``[dwi_to_template]``,
        ``[dwi_to_t1w]`` for labels in T1w space; empty for labels in diffusion space.

    Raises
    ------
    AtlasError
        If no label lies in the brain mask.
    """
    mask = brain.data.astype(bool)
    labels = source.data.astype(np.int32)
    if transforms or not _same_grid(source, brain):
        moved = resample(
            Volume(labels, source.vox2ras), mask.shape, brain.vox2ras, transforms, labels=True
        )
        labels = moved.astype(np.int32, copy=False)
    if not labels[mask].any():
        raise AtlasError(
            f"None of the {len(nodes)} nodes of the atlas has a voxel in the brain mask.",
            remedy="Look at the mask and the registration in the report; for labels in the "
            "subject's own space, check the space that their name and header say.",
        )
    rim_mm = _RIM_VOXELS * float(brain.voxel_sizes_mm.max())
    labels = np.where(dilate_mm(mask, brain.vox2ras, rim_mm), labels, 0).astype(np.int32)
    return DwiParcellation(labels, _lost(labels, nodes))


def _lost(labels: NDArray[np.int32], nodes: NodeTable) -> tuple[str, ...]:
    return tuple(nodes.names_of(set(nodes.index) - set(np.unique(labels).tolist())))


def _same_grid(one: Volume, other: Volume) -> bool:
    return one.data.shape == other.data.shape and np.allclose(
        one.vox2ras, other.vox2ras, atol=_SAME_GRID_MM
    )
