"""How SH coefficients change when the function they describe is turned."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from difftract_bids.core.deconvolution.directions import constraint_directions
from difftract_bids.core.sh import sh_basis, sh_degrees_and_orders
from difftract_bids.errors import InputError

#: How far the columns of a matrix may be from unit length and right angles.
_ORTHOGONAL = 1e-6


def sh_rotation(rotation: Float[Tensor, "3 3"], lmax: int) -> Float[Tensor, "coeff coeff"]:
    """Give the matrix that turns a function, in MRtrix3's basis of even degrees.

    With ``c`` the coefficients of ``f(d)``, ``sh_rotation(R, lmax) @ c`` are those of
    ``f(Rᵀ d)``: a lobe along ``d`` lies along ``R d`` afterwards. A turn keeps each degree to
    itself, so each is found by least squares over directions that outnumber its orders, exactly
    but for rounding. A reflection is as good as a rotation, for an even function.

    Parameters
    ----------
    rotation
        Orthogonal matrix, proper or not.
    lmax
        Maximum degree, even.

    Returns
    -------
    Tensor
        Orthogonal, block-diagonal by degree, float64, on the CPU.

    Raises
    ------
    InputError
        If the matrix is not orthogonal.

    References
    ----------
    Green 2003, "Spherical harmonic lighting: the gritty details", section "Rotating spherical
    harmonics" (that the matrix is block-diagonal); the least squares are elementary.
    """
    turn = rotation.detach().double().cpu()
    apart = (turn.T @ turn - torch.eye(3, dtype=torch.float64)).abs().max().item()
    if not apart < _ORTHOGONAL:
        raise InputError(
            f"The matrix is not orthogonal: its columns are off by {apart:.3g}.",
            where="rotation",
            remedy="Give a rotation or a reflection; divide out voxel sizes first.",
        )
    directions = constraint_directions()
    before = sh_basis(directions @ turn, lmax)  # row vectors: this is Rᵀ d for each d
    after = sh_basis(directions, lmax)
    degrees = torch.tensor([degree for degree, _ in sh_degrees_and_orders(lmax)])
    blocks = [
        torch.linalg.lstsq(after[:, degrees == degree], before[:, degrees == degree]).solution
        for degree in range(0, lmax + 1, 2)
    ]
    return _block_diagonal(blocks)


def _block_diagonal(blocks: list[Tensor]) -> Tensor:
    size = sum(len(block) for block in blocks)
    whole, first = torch.zeros(size, size, dtype=torch.float64), 0
    for block in blocks:
        beyond = first + len(block)
        whole[first:beyond, first:beyond] = block
        first = beyond
    return whole
