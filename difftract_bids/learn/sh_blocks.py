"""Images of SH coefficients, several series behind one another, turned as one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from difftract_bids.core.sh import n_coefficients
from difftract_bids.core.sh_rotation import sh_rotation
from difftract_bids.errors import InputError

#: A matrix that can be a key, row by row.
Matrix = tuple[tuple[float, ...], ...]
_HALF = (torch.float16, torch.bfloat16)


def turn_channels(
    image: Float[Tensor, "channel x y z"], turn: Matrix, lmax_per_block: Sequence[int]
) -> Float[Tensor, "channel x y z"]:
    """Turn the functions in each voxel, where they stand.

    Parameters
    ----------
    image
        Series of SH coefficients, one after the other along the first axis; differentiable. Half
        precision gives single precision.
    turn
        Orthogonal matrix, row by row: a lobe along ``d`` lies along ``turn @ d`` afterwards.
    lmax_per_block
        Maximum degree of each series.

    Raises
    ------
    InputError
        If the channels are not those of the series.
    """
    sizes = [n_coefficients(lmax) for lmax in lmax_per_block]
    if sum(sizes) != len(image):
        raise InputError(
            f"The image has {len(image)} channels, series of lmax {tuple(lmax_per_block)} have "
            f"{sum(sizes)}.",
            where="first axis of the image",
            remedy="Give the maximum degree of each series of SH coefficients in it.",
        )
    if len(set(lmax_per_block)) == 1:  # one product for all: most images are of this kind
        return _turned(
            image.reshape(len(sizes), sizes[0], *image.shape[1:]), turn, lmax_per_block[0]
        ).flatten(0, 1)
    parts = zip(torch.split(image, sizes), lmax_per_block, strict=True)
    return torch.cat([_turned(part[None], turn, lmax)[0] for part, lmax in parts])


def _turned(
    image: Float[Tensor, "block coeff x y z"], turn: Matrix, lmax: int
) -> Float[Tensor, "block coeff x y z"]:
    if image.dtype in _HALF:
        image = image.float()
    matrix = _matrix(turn, lmax).to(image)
    # Mixed precision is for convolutions: turned in half of it, functions lose their third digit.
    with torch.autocast(image.device.type, enabled=False):
        return (matrix @ image.flatten(2)).view_as(image)


@lru_cache(maxsize=1024)
def _matrix(turn: Matrix, lmax: int) -> Tensor:
    return sh_rotation(torch.tensor(turn, dtype=torch.float64), lmax)
