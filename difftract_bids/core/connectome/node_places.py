"""Where labels stand among the nodes of a connectome."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def find_places(
    labels: Int[Tensor, "*n"], node_labels: Int[Tensor, " node"]
) -> tuple[Int[Tensor, "*n"], Bool[Tensor, "*n"]]:
    """Find the row of each label's node.

    Returns
    -------
    place, known
        The row, which means nothing where the label is of no node, and whether it is of one.
    """
    ranked, order = torch.sort(node_labels)
    rank = torch.searchsorted(ranked, labels.to(ranked.dtype)).clamp(max=len(ranked) - 1)
    return order[rank], ranked[rank] == labels
