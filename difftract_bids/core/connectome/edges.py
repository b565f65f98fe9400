"""From the nodes of streamlines to edge measures."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from difftract_bids.errors import AtlasError, InputError


def connectome(
    labels_of_ends: Int[Tensor, "n 2"],
    node_labels: Int[Tensor, " node"],
    values: Float[Tensor, " n"] | None = None,
) -> Float[Tensor, "node node"]:
    """Count the streamlines of each edge, or average a value of theirs.

    Streamlines with an end in no node are left out. A streamline between two nodes counts in
    both halves of the symmetric matrix; one from a node to itself counts once, on the diagonal.

    Parameters
    ----------
    labels_of_ends
        From `assign_ends`.
    node_labels
        The label of each row and column; a label that no streamline reaches keeps its zeros.
    values
        One number for each streamline, such as its length; its mean over the edge is returned, 0
        where there is no streamline. Without it, the count. Differentiable.

    Returns
    -------
    Tensor
        Symmetric matrix in float64.

    Raises
    ------
    AtlasError
        If two nodes have the same label, or one is 0.
    InputError
        If there are not as many values as streamlines.
    """
    _check_nodes(labels_of_ends, node_labels, values)
    n_nodes = len(node_labels)
    order = torch.argsort(node_labels)
    ranked = node_labels[order]
    place = torch.searchsorted(ranked, labels_of_ends.to(ranked.dtype)).clamp(max=n_nodes - 1)
    known = (ranked[place] == labels_of_ends).all(1)
    low, high = order[place[known]].sort(dim=1).values.unbind(1)
    edge = low * n_nodes + high
    count = _symmetric_sum(edge, torch.ones_like(edge, dtype=torch.float64), n_nodes)
    if values is None:
        return count
    total = _symmetric_sum(edge, values[known].to(torch.float64), n_nodes)
    return total / count.clamp(min=1)


def _symmetric_sum(
    edge: Int[Tensor, " m"], values: Float[Tensor, " m"], n_nodes: int
) -> Float[Tensor, "node node"]:
    upper = values.new_zeros(n_nodes * n_nodes).index_add(0, edge, values)
    upper = upper.reshape(n_nodes, n_nodes)
    return upper + upper.triu(1).T


def _check_nodes(labels_of_ends: Tensor, node_labels: Tensor, values: Tensor | None) -> None:
    distinct = len(torch.unique(node_labels)) == len(node_labels)
    if not distinct or bool((node_labels == 0).any()) or not len(node_labels):
        raise AtlasError(
            "The nodes must have labels that differ from each other and from 0.",
            where="node_labels",
            remedy="Check the atlas's label table.",
        )
    if values is not None and values.shape != labels_of_ends.shape[:1]:
        raise InputError(
            f"There are {tuple(values.shape)} values for {len(labels_of_ends)} streamlines.",
            where="values",
            remedy="Give one number for each streamline.",
        )
