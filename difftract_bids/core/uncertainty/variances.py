"""From the gradients of edges by fODFs to their variances, in bounded memory."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from difftract_bids.core.field import FodfField
from difftract_bids.core.kernels.groups import SparseRows
from difftract_bids.core.sh import n_coefficients
from difftract_bids.core.tensor_form import sh_to_tensor
from difftract_bids.core.voxelwise import VoxelwiseFit

#: Voxels whose covariances are in memory together, some 100 MB with all that they come from.
_VOXELS_AT_ONCE = 1024
#: Pairs of an edge and a voxel that are summed up together.
_PAIRS_AT_ONCE = 4096
_MEGABYTE = 1 << 20


class EdgeGradients(NamedTuple):
    """Gradients of some edges by rows of a field's table.

    Attributes
    ----------
    edge
        Which edges, ascending; the last of one may be the first of the next.
    sums
        Gradient of each.
    """

    edge: Int[Tensor, " n"]
    sums: list[SparseRows]


class VarianceSum:
    """Sums up variances of edges, which come in ascending order.

    Parameters
    ----------
    fit, sigma
        See `edge_standard_deviations`.
    field
        What the gradients are by.
    memory_mb
        Gradients to keep before they are summed up, megabytes.
    n_edges
        Edges are numbered below this.
    """

    def __init__(
        self,
        fit: VoxelwiseFit,
        sigma: Float[Tensor, "x y z"],
        field: FodfField,
        memory_mb: float,
        n_edges: int,
    ) -> None:
        self.fit, self.sigma = fit, sigma.double().flatten()
        self.n_coefficients = n_coefficients(field.lmax)
        unit = torch.eye(self.n_coefficients, dtype=torch.float64)
        self.to_sh = sh_to_tensor(unit, field.lmax).T
        self.voxel_of_row = torch.cat(
            [torch.zeros(1, dtype=torch.int64), torch.nonzero(field.row.flatten()).squeeze(1)]
        )
        self.most_pairs = int(memory_mb * _MEGABYTE / (field.dtype.itemsize * len(unit)))
        self.parts: list[_Pairs] = []
        self.total = torch.zeros(n_edges, dtype=torch.float64)

    def add(self, gradients: EdgeGradients) -> None:
        """Take gradients of further edges."""
        if sum(len(part.edge) for part in self.parts) > self.most_pairs:
            self._sum_up_below(int(gradients.edge[0]))  # that one may be going on
        for edge, found in zip(gradients.edge, gradients.sums, strict=True):
            inside = found.row > 0  # the first row is of all voxels without an fODF
            rows = torch.from_numpy(found.row[inside])
            values = torch.from_numpy(found.value[inside, : self.n_coefficients])
            in_sh = values @ self.to_sh.to(values.dtype)
            self.parts.append(_Pairs(edge.expand(len(rows)), rows, in_sh))

    def variances(self) -> Float[Tensor, " n_edges"]:
        """Give the variance of every edge."""
        self._sum_up_below(len(self.total))
        return self.total

    def _sum_up_below(self, end: int) -> None:
        """Turn the pairs of edges below ``end`` into variances, voxels some at a time."""
        if not self.parts:
            return
        pairs = _Pairs(*(torch.cat(column) for column in zip(*self.parts, strict=True)))
        whole = pairs.edge < end
        self.parts = [pairs.at(~whole)]
        pairs = pairs.at(whole).added_up()
        rows, which = torch.unique(pairs.row, return_inverse=True)
        order = torch.argsort(which)
        bounds = torch.searchsorted(which[order], torch.arange(0, len(rows) + 1)).tolist()
        for first in range(0, len(rows), _VOXELS_AT_ONCE):
            last = min(first + _VOXELS_AT_ONCE, len(rows))
            covariance = self._covariance(self.voxel_of_row[rows[first:last]])
            for at in range(bounds[first], bounds[last], _PAIRS_AT_ONCE):
                some = order[at : min(at + _PAIRS_AT_ONCE, bounds[last])]
                value = pairs.value[some].double()[:, :, None]
                spread = covariance[which[some] - first] @ value
                self.total.index_add_(0, pairs.edge[some], (value * spread).sum(dim=(1, 2)))

    def _covariance(self, voxel: Int[Tensor, " n"]) -> Float[Tensor, "n coeff coeff"]:
        return self.fit.covariance(voxel) * self.sigma[voxel, None, None] ** 2


class _Pairs(NamedTuple):
    """Gradients of edges by the coefficients of one fODF each."""

    edge: Int[Tensor, " n"]
    row: Int[Tensor, " n"]
    value: Float[Tensor, "n coeff"]

    def at(self, where: Tensor) -> _Pairs:
        """Take some of them."""
        return _Pairs(*(column[where] for column in self))

    def added_up(self) -> _Pairs:
        """Add those of the same edge and row, which came in several parts."""
        if not len(self.edge):
            return self
        n_rows = int(self.row.max()) + 1
        key, place = torch.unique(self.edge * n_rows + self.row, return_inverse=True)
        total = self.value.new_zeros(len(key), self.value.shape[1]).index_add_(
            0, place, self.value
        )
        return _Pairs(key // n_rows, key % n_rows, total)
