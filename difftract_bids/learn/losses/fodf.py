"""How far predicted fODFs are from those wanted, coefficient by coefficient."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from difftract_bids.errors import InputError


def fodf_loss(
    predicted: Float[Tensor, ...],
    target: Float[Tensor, ...],
    mask: Bool[Tensor, ...],
    *,
    channel_dim: int = -1,
    mean_square: float | None = None,
) -> Float[Tensor, ""]:
    """Compare SH coefficients: squared error over the mask, relative to the target's square.

    The basis is orthonormal, so that this is also the squared error of the amplitudes over the
    sphere (Parseval).

    Parameters
    ----------
    predicted, target
        SH coefficients, whatever the layout.
    mask
        Where they count: the same shape without the coefficients.
    channel_dim
        Which axis the coefficients are along: -1 for images, 1 for a batch in a network.
    mean_square
        What the mean over voxels of the summed squares of the error is divided by; the target's
        own, over the mask, if left out. Patches of one scan should share that of the scan: a
        patch of little fODF would else weigh as much as one of white matter.

    Returns
    -------
    Tensor
        0 for equal ones, 1 for a prediction of zeros. Exactly 0, with a graph, where the mask is
        empty, or the target is zero throughout and ``mean_square`` is left out.

    Raises
    ------
    InputError
        If the shapes do not fit.
    """
    given, wanted = predicted.movedim(channel_dim, -1), target.movedim(channel_dim, -1)
    if given.shape != wanted.shape or given.shape[:-1] != mask.shape or mask.dtype != torch.bool:
        raise InputError(
            f"The prediction is {tuple(predicted.shape)}, the target {tuple(target.shape)}, and "
            f"the mask {mask.dtype} {tuple(mask.shape)}.",
            where=f"fodf_loss, coefficients along axis {channel_dim}",
            remedy="Give two of the same shape, lmax included, and a torch.bool mask of that "
            "shape without the coefficients.",
        )
    # Half precision has not the range for sums of squares.
    inside = given[mask].float() if given.dtype.itemsize < 4 else given[mask]
    truth = wanted[mask].detach().to(inside)
    scale = float(truth.square().sum(1).mean()) if mean_square is None and len(truth) else None
    scale = mean_square if scale is None else scale
    if not len(truth) or not scale:
        return inside[:0].sum()
    return (inside - truth).square().sum(1).mean() / scale
