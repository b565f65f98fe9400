"""What in an image makes a connection: the gradient of edges by the fODFs and by the signal."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from difftract_bids.core.connectome.soft import SoftConnectome
from difftract_bids.core.end_to_end import FODFToConnectome
from difftract_bids.errors import InputError

#: Streamlines whose nodes are in memory together.
_ENDS_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class Sensitivity:
    """A sum of edges, and its derivative by the image.

    Attributes
    ----------
    value
        The sum, in streamlines.
    fodf
        Its derivative by the SH coefficients (x, y, z, coeff), streamlines for a unit of them.
    """

    value: float
    fodf: Float[Tensor, "x y z coeff"]


def sensitivity(
    tracking: FODFToConnectome,
    fodf: Float[Tensor, "x y z coeff"],
    seeds_mm: Float[Tensor, "n 3"],
    directions: Float[Tensor, "n 3"],
    target: Float[Tensor, "node node"],
    mask: Bool[Tensor, "x y z"] | None = None,
) -> Sensitivity:
    """Differentiate a weighted sum of edges by the fODFs.

    Parameters
    ----------
    tracking
        From the fODF to the soft connectome.
    fodf
        What is tracked.
    seeds_mm, directions, mask
        See `FODFToConnectome`; seeds without influence may be left out, see `influential`.
    target
        Weight of each edge in the sum. Of the symmetric matrix only the upper triangle is summed.

    Raises
    ------
    InputError
        If the target has not a row and a column for each node.
    """
    n_nodes = len(tracking.connectome.node_labels)
    if target.shape != (n_nodes, n_nodes):
        raise InputError(
            f"The target is {tuple(target.shape)}; there are {n_nodes} nodes.",
            where="target",
            remedy="Give a row and a column for each node.",
        )
    leaf = fodf.detach().requires_grad_()
    with torch.enable_grad():
        matrix = tracking(leaf, seeds_mm, directions, mask)
        value = (matrix * target.to(matrix)).triu().sum()
    gradient = torch.zeros_like(leaf)
    if value.requires_grad:
        (gradient,) = torch.autograd.grad(value, leaf)
    return Sensitivity(float(value.detach()), gradient)


def influential(
    connectome: SoftConnectome,
    ends_mm: Float[Tensor, "n 2 3"],
    target: Float[Tensor, "node node"],
) -> Int[Tensor, " m"]:
    """Find the streamlines that belong, however little, to an edge with a weight."""
    either = ((target != 0) | (target != 0).T).to(ends_mm.device)
    found = []
    for first in range(0, len(ends_mm), _ENDS_AT_ONCE):
        nodes = connectome.assign(ends_mm[first : first + _ENDS_AT_ONCE].detach()).nodes
        a, b = nodes[:, 0, :, None].clamp(min=0), nodes[:, 1, None, :].clamp(min=0)
        both = (nodes[:, 0, :, None] >= 0) & (nodes[:, 1, None, :] >= 0)
        found.append(torch.nonzero((either[a, b] & both).flatten(1).any(dim=1)).squeeze(1) + first)
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.int64)
