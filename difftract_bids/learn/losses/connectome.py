"""How far a connectome is from the one wanted: its edges, their logarithms, their pattern."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from difftract_bids.errors import InputError
from difftract_bids.learn.losses.matrix import relative_square


def relative_loss(
    found: Float[Tensor, "node node"], target: Float[Tensor, "node node"]
) -> Float[Tensor, ""]:
    """Compare edges: Σ (found − target)² / Σ target², each edge once, the diagonal too.

    Strong edges rule it. 0 for equal matrices, 1 for a found one of zeros; both must be of the
    same scale, such as counts from the same seeds.

    Raises
    ------
    InputError
        If the matrices are not square ones of the same nodes.
    """
    return relative_square(*_edges(found, target, diagonal=True))


def log_count_loss(
    found: Float[Tensor, "node node"], target: Float[Tensor, "node node"]
) -> Float[Tensor, ""]:
    """Compare logarithms of edges: Σ (log(1 + found) − log(1 + target))² / Σ log(1 + target)².

    Counts of streamlines span orders of magnitude; here weak edges count too. Edges below 0,
    which no connectome of streamlines has, count as 0.

    Raises
    ------
    InputError
        See `relative_loss`.
    """
    edges, wanted = _edges(found, target, diagonal=True)
    return relative_square(edges.clamp(min=0).log1p(), wanted.clamp(min=0).log1p())


def correlation_loss(
    found: Float[Tensor, "node node"], target: Float[Tensor, "node node"]
) -> Float[Tensor, ""]:
    """Compare patterns: 1 − Pearson's correlation over the edges between different nodes.

    Whatever the scale of either. 0 for a multiple (and a shift) of the target, 2 for its
    negative; 1, without a slope, where one of them is constant and so has no pattern; 0 where
    both are.

    Raises
    ------
    InputError
        See `relative_loss`.
    """
    edges, wanted = _edges(found, target, diagonal=False)
    if not edges.numel():
        return edges.sum()
    varies = edges.detach().amax() > edges.detach().amin(), wanted.amax() > wanted.amin()
    if not (varies[0] and varies[1]):
        return edges[:0].sum() + float(varies[0] or varies[1])
    # Divided first by their largest, so that no square of small numbers becomes 0.
    given, truth = edges / edges.detach().abs().amax(), wanted / wanted.abs().amax()
    given, truth = given - given.mean(), truth - truth.mean()
    norms = torch.linalg.vector_norm(given) * torch.linalg.vector_norm(truth)
    return 1 - (given * truth).sum() / norms


def _edges(
    found: Tensor, target: Tensor, *, diagonal: bool
) -> tuple[Float[Tensor, " edge"], Float[Tensor, " edge"]]:
    """Take the upper triangles."""
    square = found.ndim == 2 and found.shape[0] == found.shape[1]
    if not square or found.shape != target.shape:
        raise InputError(
            f"The connectome is {tuple(found.shape)}, the one wanted {tuple(target.shape)}.",
            where="connectome",
            remedy="Give two matrices of the same nodes, in the same order.",
        )
    every: Bool[Tensor, "node node"] = torch.ones_like(found, dtype=torch.bool)
    upper = every.triu(0 if diagonal else 1)
    return found[upper], target.detach().to(found)[upper]
