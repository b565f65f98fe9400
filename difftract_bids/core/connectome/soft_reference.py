"""The soft assignment of ends to nodes in plain PyTorch: what the kernels are compared with.

It is also what runs on a GPU. Every function here takes as many ends as memory holds; see
`difftract_bids.core.connectome.soft` for the formula, and for how they are shared out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int, Int32
from torch import Tensor

from difftract_bids.core.interpolation import Grid, apply_affine

#: Pairs of an end and a voxel that are looked at together: some 100 MB for all that is computed.
_PAIRS_AT_A_TIME = 1 << 20


@dataclass(frozen=True)
class Reach:
    """Which voxels an end reaches, and how much each of them counts.

    Attributes
    ----------
    nodes
        Row of the connectome of each voxel, -1 where it has no label.
    vox2ras
        Affine of this image, voxels to RAS+ millimetres, float64.
    radius_mm
        Only centres strictly nearer than this count.
    sigma_mm
        Standard deviation of the Gaussian.
    n_nodes
        Rows of the connectome.
    """

    nodes: Int32[Tensor, "x y z"]
    vox2ras: Float[Tensor, "4 4"]
    radius_mm: float
    sigma_mm: float
    n_nodes: int

    @cached_property
    def grid(self) -> Grid:
        """Where positions lie in the image."""
        return Grid.from_affine(tuple(self.nodes.shape), self.vox2ras, self.nodes.device)

    @cached_property
    def offsets(self) -> Float[Tensor, "3 offset"]:
        """Voxels that may lie within the radius, from the voxel that an end is in."""
        # A ball's extent along an axis of the voxels, and half a voxel to its own centre.
        rows = torch.linalg.vector_norm(self.grid.ras2vox[:3, :3], dim=1).tolist()
        extents = [math.ceil(self.radius_mm * row + 0.5) for row in rows]
        axes = [torch.arange(-extent, extent + 1, dtype=torch.float64) for extent in extents]
        offsets = torch.cartesian_prod(*axes).T
        steps_mm = self.vox2ras[:3, :3].cpu()
        length = torch.linalg.vector_norm(steps_mm @ offsets, dim=0)
        # An end is at most half a voxel's longest diagonal away from the centre of its own.
        corners = torch.cartesian_prod(*[torch.tensor([-0.5, 0.5]).to(steps_mm)] * 3).T
        half = float(torch.linalg.vector_norm(steps_mm @ corners, dim=0).max())
        near = length < self.radius_mm + half + 1e-6
        return offsets[:, near].to(self.nodes.device)


def soft_nodes(
    ends_mm: Float[Tensor, "n 2 3"], reach: Reach
) -> tuple[Int[Tensor, "n 2 k"], Float[Tensor, "n 2 k"]]:
    """Find the nodes that each end reaches, ascending, and its probabilities; -1 fills up.

    Differentiable in the ends.
    """
    position = ends_mm.reshape(-1, 3).T
    node, distance2 = _reached(position, reach)
    in_reach = node >= 0
    # The smallest is taken off, so that the nearest voxel counts 1 however small σ is.
    exponent = -distance2 / (2 * reach.sigma_mm**2)
    exponent = exponent.masked_fill(~in_reach, -torch.inf)
    largest = exponent.detach().amax(1, keepdim=True)
    share = (exponent - largest.clamp(min=torch.finfo(exponent.dtype).min)).exp()
    total = share.sum(1, keepdim=True)
    share = share / torch.where(total > 0, total, 1)
    return _sum_by_node(node, share)


def soft_pairs(
    ends_mm: Float[Tensor, "n 2 3"], reach: Reach, hard: Int[Tensor, "n 2"] | None
) -> tuple[Int[Tensor, "n kk"], Float[Tensor, "n kk"]]:
    """Find the edges that each streamline may belong to, and how surely.

    Parameters
    ----------
    ends_mm
        First and last vertices.
    reach
        See there.
    hard
        Nodes of the ends for a straight-through estimate: probabilities are 0 or 1, with the
        derivatives of the soft ones.

    Returns
    -------
    edges, probabilities
        Index into the flattened upper triangle (row × nodes + column), and the product of both
        ends' probabilities; 0 where there is no edge.
    """
    nodes, probability = soft_nodes(ends_mm, reach)
    if hard is not None:
        probability = straight_through(nodes, probability, hard)
    first, last = nodes[:, 0, :, None], nodes[:, 1, None, :]
    edge = torch.minimum(first, last) * reach.n_nodes + torch.maximum(first, last)
    edge = torch.where((first >= 0) & (last >= 0), edge, 0)
    both = probability[:, 0, :, None] * probability[:, 1, None, :]
    return edge.flatten(1), both.flatten(1)


def straight_through(
    nodes: Int[Tensor, "n 2 k"], probability: Float[Tensor, "n 2 k"], hard: Int[Tensor, "n 2"]
) -> Float[Tensor, "n 2 k"]:
    """Replace probabilities by 1 for the hard choice and 0 for others, but not their derivatives.

    References
    ----------
    Bengio et al. 2013, arXiv:1308.3432.
    """
    chosen = ((nodes == hard[..., None]) & (nodes >= 0)).to(probability.dtype)
    # In this order the value is exactly 0 or 1.
    return chosen + (probability - probability.detach())


def _reached(
    position: Float[Tensor, "3 e"], reach: Reach
) -> tuple[Int[Tensor, "e offset"], Float[Tensor, "e offset"]]:
    """Give the node (-1: none, or too far) and the squared distance of voxels around, mm²."""
    own = torch.floor(reach.grid.to_voxel(position.detach()) + 0.5)
    voxel = own[:, :, None] + reach.offsets[:, None, :]
    size = torch.tensor(reach.nodes.shape, device=voxel.device)[:, None, None]
    index = voxel.long()
    inside = ((index >= 0) & (index < size)).all(0)
    i, j, k = index.clamp(min=0).minimum(size - 1)
    affine = reach.vox2ras.to(voxel)
    centre = apply_affine(affine, voxel.flatten(1)).reshape(voxel.shape)
    distance2 = ((position[:, :, None] - centre) ** 2).sum(0)
    near = inside & (distance2.detach().sqrt() < reach.radius_mm)
    return torch.where(near, reach.nodes[i, j, k].long(), -1), distance2


def _sum_by_node(
    node: Int[Tensor, "e offset"], share: Float[Tensor, "e offset"]
) -> tuple[Int[Tensor, "n 2 k"], Float[Tensor, "n 2 k"]]:
    """Add the shares of voxels of the same node; nodes ascend, -1 fills up."""
    node, order = node.sort(dim=1)
    starts = torch.ones_like(node, dtype=torch.bool)
    starts[:, 1:] = node[:, 1:] != node[:, :-1]
    starts &= node >= 0
    # Voxels without a node come first and go to a place of their own, which is cut off.
    place = starts.cumsum(1)
    k = int(place[:, -1].max()) if len(place) else 0
    total = share.new_zeros(len(node), k + 1)
    total = total.scatter_add(1, place, share.gather(1, order))
    nodes = node.new_full((len(node), k + 1), -1).scatter(1, place, node)
    return nodes[:, 1:].reshape(-1, 2, k), total[:, 1:].reshape(-1, 2, k)


class SoftReference:
    """The sums over streamlines, a portion at a time; derivatives by autograd over a portion.

    `difftract_bids.core.kernels.soft_sums.SoftKernel` has the same methods.
    """

    def __init__(self, reach: Reach) -> None:
        self.reach = reach

    def assign(
        self, ends_mm: Float[Tensor, "n 2 3"]
    ) -> tuple[Int[Tensor, "n 2 k"], Float[Tensor, "n 2 k"]]:
        """See `soft_nodes`."""
        parts = [soft_nodes(ends_mm[part], self.reach) for part in self._portions(ends_mm)]
        k = max((nodes.shape[2] for nodes, _ in parts), default=0)
        nodes = torch.full((len(ends_mm), 2, k), -1, device=ends_mm.device)
        probability = ends_mm.new_zeros(len(ends_mm), 2, k)
        for part, (some_nodes, some) in zip(self._portions(ends_mm), parts, strict=True):
            nodes[part, :, : some.shape[2]] = some_nodes
            probability[part, :, : some.shape[2]] = some
        return nodes, probability

    def pull_back_assign(
        self,
        ends_mm: Float[Tensor, "n 2 3"],
        nodes: Int[Tensor, "n 2 k"],  # noqa: ARG002 - the kernels look derivatives up by node
        cotangent: Float[Tensor, "n 2 k"],
    ) -> Float[Tensor, "n 2 3"]:
        """Pass derivatives by the probabilities on to the ends."""
        to_ends = torch.zeros_like(ends_mm)
        for part in self._portions(ends_mm):
            with torch.enable_grad():
                ends = ends_mm[part].detach().requires_grad_()
                _, probability = soft_nodes(ends, self.reach)
            given = cotangent[part, :, : probability.shape[2]]
            (to_ends[part],) = torch.autograd.grad(probability, ends, given)
        return to_ends

    def sums(
        self,
        ends_mm: Float[Tensor, "n 2 3"],
        weights: Float[Tensor, "n channel"],
        hard: Int[Tensor, "n 2"] | None,
    ) -> Float[Tensor, "channel node node"]:
        """Sum the weights of each edge, upper triangles; see `soft_pairs`."""
        n_nodes = self.reach.n_nodes
        upper = ends_mm.new_zeros(weights.shape[1], n_nodes * n_nodes)
        for part in self._portions(ends_mm):
            some = None if hard is None else hard[part]
            edge, both = soft_pairs(ends_mm[part], self.reach, some)
            for channel, weight in zip(upper, weights[part].T, strict=True):
                channel.index_add_(0, edge.ravel(), (both * weight[:, None]).ravel())
        return upper.reshape(-1, n_nodes, n_nodes)

    def pull_back(
        self,
        ends_mm: Float[Tensor, "n 2 3"],
        weights: Float[Tensor, "n channel"],
        hard: Int[Tensor, "n 2"] | None,
        to_upper: Float[Tensor, "channel node node"],
    ) -> tuple[Float[Tensor, "n 2 3"], Float[Tensor, "n channel"]]:
        """Pass derivatives by the sums on to the ends and the weights."""
        to_ends, to_weights = torch.zeros_like(ends_mm), torch.zeros_like(weights)
        slopes = to_upper.flatten(1)
        for part in self._portions(ends_mm):
            some = None if hard is None else hard[part]
            with torch.enable_grad():
                ends = ends_mm[part].detach().requires_grad_()
                edge, both = soft_pairs(ends, self.reach, some)
            at_edge = slopes[:, edge]  # channel, streamline, pair
            to_weights[part] = (at_edge * both.detach()).sum(2).T
            given = (at_edge * weights[part].T[:, :, None]).sum(0)
            (to_ends[part],) = torch.autograd.grad(both, ends, given)
        return to_ends, to_weights

    def _portions(self, ends_mm: Tensor) -> Iterator[slice]:
        size = max(1, _PAIRS_AT_A_TIME // (2 * self.reach.offsets.shape[1]))
        return (slice(at, at + size) for at in range(0, len(ends_mm), size))
