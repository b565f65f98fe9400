"""Which streamlines an edge of the soft connectome depends on, and how."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from difftract_bids.core.connectome.soft import SoftConnectome


@dataclass(frozen=True)
class Memberships:
    """Pairs of an edge and one of its streamlines, edge by edge.

    Attributes
    ----------
    edge
        Row × number of nodes + column, row ≤ column; ascending.
    streamline
        Which of the streamlines given.
    shares
        What the streamline adds to the edge: the product of both ends' probabilities.
    cotangents
        Derivatives of the share by the streamline's first and last vertex, 1/mm.
    """

    edge: Int[Tensor, " m"]
    streamline: Int[Tensor, " m"]
    shares: Float[Tensor, " m"]
    cotangents: Float[Tensor, "m 2 3"]

    def __len__(self) -> int:
        return len(self.edge)


def find_memberships(
    connectome: SoftConnectome, ends_mm: Float[Tensor, "n 2 3"], least: float
) -> Memberships:
    """List the memberships of streamlines.

    Parameters
    ----------
    connectome
        The soft connectome.
    ends_mm
        First and last vertices.
    least
        Pairs with a smaller share are left out.
    """
    ends = ends_mm.detach().double().requires_grad_()
    with torch.enable_grad():
        nodes, probability = connectome.assign(ends)
        slopes = [
            torch.autograd.grad(probability[:, :, slot].sum(), ends, retain_graph=True)[0]
            for slot in range(nodes.shape[2])
        ]
    n_nodes, probability = len(connectome.node_labels), probability.detach()
    parts = []
    for i in range(nodes.shape[2]):
        for j in range(nodes.shape[2]):
            a, b = nodes[:, 0, i], nodes[:, 1, j]
            to_first = slopes[i][:, 0] * probability[:, 1, j, None]
            to_last = slopes[j][:, 1] * probability[:, 0, i, None]
            share = probability[:, 0, i] * probability[:, 1, j]
            kept = (a >= 0) & (b >= 0) & (share > least)
            member = torch.nonzero(kept).squeeze(1)
            edge = torch.minimum(a, b)[member] * n_nodes + torch.maximum(a, b)[member]
            both = torch.stack([to_first, to_last], dim=1)
            parts.append((edge, member, share[member], both[member]))
    if not parts:
        none = torch.zeros(0, dtype=torch.int64)
        return Memberships(none, none, ends.new_zeros(0), ends.new_zeros(0, 2, 3))
    edge, member, share, both = (torch.cat(column) for column in zip(*parts, strict=True))
    order = torch.argsort(edge, stable=True)
    return Memberships(edge[order], member[order], share[order], both[order])
