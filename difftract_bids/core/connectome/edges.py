"""From the nodes of streamlines to edge measures, at once or as streamlines come."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from difftract_bids.core.connectome.node_places import find_places
from difftract_bids.core.kernels import edges as kernels
from difftract_bids.errors import AtlasError, ConfigError, InputError

EdgeStatistic = Literal["sum", "mean", "min", "max"]
#: Two labels of each streamline; or all labels of each, and where those of each begin.
Labels = Int[Tensor, "n 2"] | tuple[Int[Tensor, " m"], Int[Tensor, " n+1"]]


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
    place, is_node = find_places(labels_of_ends, node_labels)
    known = is_node.all(1)
    low, high = place[known].sort(dim=1).values.unbind(1)
    edge = low * n_nodes + high
    count = _symmetric_sum(edge, torch.ones_like(edge, dtype=torch.float64), n_nodes)
    if values is None:
        return count
    total = _symmetric_sum(edge, values[known].to(torch.float64), n_nodes)
    return total / count.clamp(min=1)


class EdgeSums:
    """Sum up streamlines over the edges between nodes as they come, in bounded memory.

    Streamlines with an end in no node are left out. A streamline between two nodes counts in
    both halves of the symmetric matrix; one from a node to itself counts once, on the diagonal.
    A streamline with a list of nodes counts for each pair of them and for each node with itself,
    if it has at least two, as ``tck2connectome -assignment_all_voxels`` has it.

    Parameters
    ----------
    node_labels
        The label of each row and column; every one keeps its row.
    statistic
        What becomes of the values of an edge's streamlines v with weights w: ``sum`` Σwv, ``mean``
        Σwv/Σw, ``min`` and ``max``, which weights do not change.

    Attributes
    ----------
    node_labels, statistic
        As given.
    assigned, total
        Streamlines that connect nodes, of how many that were added.

    Raises
    ------
    AtlasError
        If two nodes have the same label, or one is 0.
    ConfigError
        If there is no such statistic.

    References
    ----------
    ``-stat_edge`` of MRtrix3 3.0.3's ``tck2connectome``.
    """

    def __init__(
        self, node_labels: Int[Tensor, " node"], statistic: EdgeStatistic = "sum"
    ) -> None:
        check_node_labels(node_labels)
        if statistic not in get_args(EdgeStatistic):
            raise ConfigError(
                f"There is no edge statistic {statistic!r}.",
                where="statistic",
                remedy=f"Use one of {', '.join(get_args(EdgeStatistic))}.",
            )
        self.node_labels, self.statistic = node_labels, statistic
        self.assigned = self.total = 0
        labels = node_labels.detach().cpu().numpy().astype(np.int64)
        self._order = np.argsort(labels)
        self._ranked = labels[self._order]
        n_edges = len(labels) * (len(labels) + 1) // 2
        start = {"min": np.inf, "max": -np.inf}.get(statistic, 0.0)
        self._totals = np.full(n_edges, start)
        self._counts = np.zeros(n_edges, dtype=np.int64)
        self._weights = np.zeros(n_edges if statistic == "mean" else 0)

    def add(
        self,
        labels: Labels,
        values: Float[Tensor, " n"] | None = None,
        weights: Float[Tensor, " n"] | None = None,
    ) -> None:
        """Add streamlines.

        Parameters
        ----------
        labels
            From `assign_ends`, `assign_streamlines` or `visited_labels`.
        values
            One number for each streamline, such as its length; 1 if left out. One that is not a
            number makes that of its edge one that is none.
        weights
            One number for each streamline, such as SIFT2 gives; 1 if left out.

        Raises
        ------
        InputError
            If the labels are none of these, or there are not as many numbers as streamlines.
        """
        _check_labels(labels)
        pairs = labels if isinstance(labels, Tensor) else None
        n = len(pairs) if pairs is not None else len(labels[1]) - 1
        numbers = (_numbers("values", values, n), _numbers("weights", weights, n))
        code = {"min": kernels.MIN, "max": kernels.MAX}.get(self.statistic, kernels.SUM)
        nodes = (*numbers, self._ranked, self._order, code)
        sums = (self._totals, self._counts, self._weights)
        if pairs is not None:
            self.assigned += kernels.add_pairs(_int64(pairs), *nodes, *sums)
        else:
            flat, offsets = _int64(labels[0]), _int64(labels[1])
            scratch = np.empty(np.diff(offsets).max(initial=0), dtype=np.int64)
            self.assigned += kernels.add_lists(flat, offsets, *nodes, *sums, scratch)
        self.total += n

    def matrix(self) -> Float[Tensor, "node node"]:
        """Give the statistic of every edge so far.

        Returns
        -------
        Tensor
            Symmetric matrix in float64. Edges without streamlines are 0 in a sum or a mean, and
            NaN among the smallest and largest: they have none.
        """
        totals = self._totals
        if self.statistic == "mean":
            there = self._weights != 0
            totals = np.divide(totals, self._weights, out=totals.copy(), where=there)
        elif self.statistic in ("min", "max"):
            totals = np.where(self._counts > 0, totals, np.nan)
        return self._square(totals)

    @property
    def count(self) -> Float[Tensor, "node node"]:
        """Number of streamlines of every edge, whatever their weights; symmetric, in float64."""
        return self._square(self._counts)

    def _square(self, triangle: NDArray[np.generic]) -> Float[Tensor, "node node"]:
        n_nodes = len(self._ranked)
        square = np.empty((n_nodes, n_nodes))
        kernels.to_square(triangle, square)
        return torch.from_numpy(square)


def _numbers(name: str, given: Float[Tensor, " n"] | None, n: int) -> Float[np.ndarray, " n"]:
    if given is None:
        return np.ones(1)
    if given.shape != (n,):
        raise _wrong_number(name, given, n)
    return given.detach().to(device="cpu", dtype=torch.float64).contiguous().numpy()


def _int64(labels: Int[Tensor, ...]) -> NDArray[np.int64]:
    return labels.detach().to(device="cpu", dtype=torch.int64).contiguous().numpy()


def _symmetric_sum(
    edge: Int[Tensor, " m"], values: Float[Tensor, " m"], n_nodes: int
) -> Float[Tensor, "node node"]:
    upper = values.new_zeros(n_nodes * n_nodes).index_add(0, edge, values)
    upper = upper.reshape(n_nodes, n_nodes)
    return upper + upper.triu(1).T


def _check_nodes(labels_of_ends: Tensor, node_labels: Tensor, values: Tensor | None) -> None:
    check_node_labels(node_labels)
    if values is not None and values.shape != labels_of_ends.shape[:1]:
        raise _wrong_number("values", values, len(labels_of_ends))


def check_node_labels(node_labels: Int[Tensor, " node"]) -> None:
    """Check that nodes have labels that differ from each other and from 0.

    Raises
    ------
    AtlasError
        If they have not, or there is no node.
    """
    distinct = len(torch.unique(node_labels)) == len(node_labels)
    if not distinct or bool((node_labels == 0).any()) or not len(node_labels):
        raise AtlasError(
            "The nodes must have labels that differ from each other and from 0.",
            where="node_labels",
            remedy="Check the atlas's label table.",
        )


def _wrong_number(name: str, given: Tensor, n: int) -> InputError:
    return InputError(
        f"There are {tuple(given.shape)} {name} for {n} streamlines.",
        where=name,
        remedy="Give one number for each streamline.",
    )


def _check_labels(labels: Labels) -> None:
    fits = (
        labels.ndim == 2 and labels.shape[1] == 2
        if isinstance(labels, Tensor)
        else len(labels) == 2
        and labels[0].ndim == labels[1].ndim == 1
        and len(labels[1]) > 0
        and int(labels[1][0]) == 0
        and int(labels[1][-1]) == len(labels[0])
        and not bool((labels[1].diff() < 0).any())
    )
    if not fits:
        raise InputError(
            "These are no labels of streamlines: (n, 2), or a flat list and n + 1 offsets into "
            "it that rise from 0 to its length.",
            where="labels",
            remedy="Give what assign_streamlines or visited_labels returns.",
        )
