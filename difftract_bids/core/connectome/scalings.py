"""What streamlines and edges are scaled by: lengths and the sizes of nodes."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from difftract_bids.core.connectome.checks import check_streamlines
from difftract_bids.core.connectome.edges import Labels, check_node_labels
from difftract_bids.core.connectome.node_places import find_places
from difftract_bids.core.kernels import assignment as kernels
from difftract_bids.errors import InputError


def inverse_lengths_per_mm(lengths_mm: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Give one over the length of each streamline, 0 for those without a length.

    References
    ----------
    ``-scale_invlength`` of MRtrix3 3.0.3's ``tck2connectome``; Hagmann et al. 2008,
    doi:10.1371/journal.pbio.0060159: longer bundles are seeded in more places.
    """
    long = lengths_mm > 0
    return torch.where(long, 1 / torch.where(long, lengths_mm, torch.ones_like(lengths_mm)), 0)


def inverse_node_volumes(
    labels: Labels, node_labels: Int[Tensor, " node"], volumes: Float[Tensor, " node"]
) -> Float[Tensor, " n"]:
    """Give, for each streamline, one over the mean volume of its nodes.

    Parameters
    ----------
    labels
        From `assign_ends`, `assign_streamlines` or `visited_labels`.
    node_labels
        The label of each node.
    volumes
        Size of each node: `node_voxels` for ``tck2connectome``'s numbers, `node_volumes_mm3` for
        numbers that do not depend on the voxels.

    Returns
    -------
    Tensor
        In float64 and one over the unit of ``volumes``; labels of no node count as nodes without a
        volume, and where all are the factor is 0.

    Raises
    ------
    AtlasError
        If two nodes have the same label, or one is 0.
    InputError
        If there are not as many volumes as nodes.

    References
    ----------
    ``-scale_invnodevol`` of MRtrix3 3.0.3's ``tck2connectome``.
    """
    check_node_labels(node_labels)
    if volumes.shape != node_labels.shape:
        raise InputError(
            f"There are {tuple(volumes.shape)} volumes for {len(node_labels)} nodes.",
            where="volumes",
            remedy="Give one number for each node, in the same order.",
        )
    if isinstance(labels, Tensor):
        flat, offsets = labels.reshape(-1), torch.arange(0, labels.numel() + 1, 2)
    else:
        flat, offsets = labels
    place, known = find_places(flat, node_labels)
    size = torch.where(known, volumes.to(torch.float64)[place], 0)
    n_labels = offsets.diff()
    owner = torch.repeat_interleave(torch.arange(len(n_labels)), n_labels)
    total = size.new_zeros(len(n_labels)).index_add(0, owner, size)
    return torch.where(total > 0, n_labels / total.clamp(min=torch.finfo(total.dtype).tiny), 0)


def connection_density(
    inverse_length_sums: Float[Tensor, "node node"], areas_mm2: Float[Tensor, " node"]
) -> Float[Tensor, "node node"]:
    """Turn sums of inverse lengths into connection densities, 2 / (S_a + S_b) Σ 1 / length.

    Parameters
    ----------
    inverse_length_sums
        For each edge the sum over its streamlines, 1/mm.
    areas_mm2
        Surface S of each node, mm²; see `node_areas_mm2`.

    Returns
    -------
    Tensor
        Densities, 1/mm³; 0 between nodes without a surface.

    References
    ----------
    Hagmann et al. 2008, doi:10.1371/journal.pbio.0060159, "connection density".
    """
    both = areas_mm2[:, None] + areas_mm2[None, :]
    there = both > 0
    return torch.where(there, 2 * inverse_length_sums / torch.where(there, both, 1), 0)


def streamline_lengths_mm(
    points_mm: Float[Tensor, "p 3"],
    offsets: Int[Tensor, " n+1"],
    *,
    dtype: torch.dtype = torch.float64,
) -> Float[Tensor, " n"]:
    """Sum the segments of each streamline, one after the other.

    Parameters
    ----------
    points_mm, offsets
        Vertices, RAS+ millimetres, and where each streamline starts.
    dtype
        Width of the arithmetic. MRtrix's is ``torch.float32``: its lengths are wrong by some
        1e-6 of themselves, all to one side where steps are of one length.

    Returns
    -------
    Tensor
        Lengths, millimetres, in ``dtype``; 0 of a single vertex.

    Raises
    ------
    InputError
        If the vertices and offsets are no streamlines.
    """
    check_streamlines(points_mm, offsets)
    points = points_mm.detach().to(device="cpu", dtype=dtype).contiguous().numpy()
    starts = offsets.to(device="cpu", dtype=torch.int64).contiguous().numpy()
    found = np.zeros(len(starts) - 1, dtype=points.dtype)
    kernels.lengths(0, len(found), points, starts, found)
    return torch.from_numpy(found)
