"""Sizes and places of the nodes of a parcellation."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from difftract_bids.core.connectome.checks import check_parcellation
from difftract_bids.core.connectome.edges import check_node_labels
from difftract_bids.core.connectome.node_places import find_places
from difftract_bids.core.interpolation import Grid


def node_voxels(
    parcellation: Int[Tensor, "x y z"], node_labels: Int[Tensor, " node"]
) -> Int[Tensor, " node"]:
    """Count the voxels of each node.

    Parameters
    ----------
    parcellation
        Labels; those of no node are left out.
    node_labels
        The label of each node.

    Raises
    ------
    InputError
        If the parcellation is no three-dimensional image of integers.
    AtlasError
        If two nodes have the same label, or one is 0.
    """
    _, node = _labelled(parcellation, node_labels)
    return torch.bincount(node, minlength=len(node_labels))


def node_volumes_mm3(
    parcellation: Int[Tensor, "x y z"],
    vox2ras: Float[Tensor, "4 4"],
    node_labels: Int[Tensor, " node"],
) -> Float[Tensor, " node"]:
    """Measure the volume of each node, mm³, in float64.

    Parameters
    ----------
    parcellation, node_labels
        As for `node_voxels`.
    vox2ras
        Affine of the parcellation, voxels to RAS+ millimetres.

    Raises
    ------
    InputError
        If the parcellation or the affine cannot be used.
    AtlasError
        If two nodes have the same label, or one is 0.
    """
    linear = _affine(parcellation, vox2ras)[:3, :3]
    return node_voxels(parcellation, node_labels) * torch.linalg.det(linear).abs()


def node_areas_mm2(
    parcellation: Int[Tensor, "x y z"],
    vox2ras: Float[Tensor, "4 4"],
    node_labels: Int[Tensor, " node"],
) -> Float[Tensor, " node"]:
    """Measure the surface of each node, mm², in float64: the faces of voxels that bound it.

    A face counts between a voxel of the node and one of anything else, and at the image's edge.
    Slanted surfaces come out larger than they are, a plane by a factor of at most √3.

    Parameters
    ----------
    parcellation, vox2ras, node_labels
        As for `node_volumes_mm3`.

    Raises
    ------
    InputError
        If the parcellation or the affine cannot be used.
    AtlasError
        If two nodes have the same label, or one is 0.
    """
    linear = _affine(parcellation, vox2ras)[:3, :3]
    voxel, node = _labelled(parcellation, node_labels)
    index = torch.full(tuple(n + 2 for n in parcellation.shape), -1, device=voxel.device)
    index[tuple(voxel.T + 1)] = node
    areas = linear.new_zeros(len(node_labels))
    for axis, (one, other) in enumerate(((1, 2), (2, 0), (0, 1))):
        face_mm2 = torch.linalg.vector_norm(torch.linalg.cross(linear[:, one], linear[:, other]))
        for step in (-1, 1):
            beside = voxel + 1
            beside[:, axis] += step
            outer = index[tuple(beside.T)] != node
            areas += face_mm2 * torch.bincount(node[outer], minlength=len(node_labels))
    return areas


def node_centroids_mm(
    parcellation: Int[Tensor, "x y z"],
    vox2ras: Float[Tensor, "4 4"],
    node_labels: Int[Tensor, " node"],
) -> Float[Tensor, "node 3"]:
    """Find the mean place of each node's voxels, RAS+ millimetres, in float64; NaN without any.

    Parameters
    ----------
    parcellation, vox2ras, node_labels
        As for `node_volumes_mm3`.

    Raises
    ------
    InputError
        If the parcellation or the affine cannot be used.
    AtlasError
        If two nodes have the same label, or one is 0.
    """
    affine = _affine(parcellation, vox2ras)
    voxel, node = _labelled(parcellation, node_labels)
    total = affine.new_zeros(len(node_labels), 3).index_add(0, node, voxel.to(affine.dtype))
    count = torch.bincount(node, minlength=len(node_labels))
    mean = total / torch.where(count > 0, count, torch.nan)[:, None]
    return mean @ affine[:3, :3].T + affine[:3, 3]


def _affine(parcellation: Tensor, vox2ras: Tensor) -> Float[Tensor, "4 4"]:
    check_parcellation(parcellation)
    Grid.from_affine(tuple(parcellation.shape), vox2ras, torch.device("cpu"))  # it checks it
    return vox2ras.detach().to(device=parcellation.device, dtype=torch.float64)


def _labelled(
    parcellation: Tensor, node_labels: Tensor
) -> tuple[Int[Tensor, "m 3"], Int[Tensor, " m"]]:
    """List the voxels of nodes, and which node each is of."""
    check_parcellation(parcellation)
    check_node_labels(node_labels)
    labels = node_labels.to(device=parcellation.device, dtype=torch.int64)
    voxel = torch.nonzero(parcellation)
    place, known = find_places(parcellation[tuple(voxel.T)].to(torch.int64), labels)
    return voxel[known], place[known]
