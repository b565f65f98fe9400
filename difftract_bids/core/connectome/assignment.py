"""Which parcel a streamline end belongs to."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from difftract_bids.core.interpolation import Grid, apply_affine
from difftract_bids.errors import InputError


def assign_ends(
    ends_mm: Float[Tensor, "n 2 3"],
    parcellation: Int[Tensor, "x y z"],
    vox2ras: Float[Tensor, "4 4"],
    radius_mm: float = 4.0,
) -> Int[Tensor, "n 2"]:
    """Give each streamline end the label of the nearest labelled voxel centre within a radius.

    Of centres equally near the first in the search's order wins: nearest offset from the end's own
    voxel first, then lowest z, y, x.

    Parameters
    ----------
    ends_mm
        First and last vertices, RAS+ millimetres.
    parcellation
        Labels; 0 is none. Any other integers may occur.
    vox2ras
        Affine of the parcellation, voxels to RAS+ millimetres.
    radius_mm
        Only centres strictly nearer than this count, millimetres.

    Returns
    -------
    Tensor
        Labels, 0 where no labelled centre is near.

    Raises
    ------
    InputError
        If shapes or types do not fit, ends are not finite, or the affine cannot be inverted.

    References
    ----------
    The default ("radial search") of MRtrix3 3.0.3's ``tck2connectome``; Smith et al. 2015,
    doi:10.1016/j.neuroimage.2014.09.034.
    """
    _check_ends(ends_mm, parcellation)
    affine = vox2ras.to(device=parcellation.device, dtype=torch.float64)
    grid = Grid.from_affine(tuple(parcellation.shape), affine, parcellation.device)
    position = ends_mm.detach().reshape(-1, 3).T.to(torch.float64)
    own = torch.floor(grid.to_voxel(position) + 0.5)
    size = torch.tensor(grid.shape, device=own.device)[:, None]
    labels = torch.zeros(position.shape[1], dtype=parcellation.dtype, device=own.device)
    nearest = torch.full_like(position[0], radius_mm)
    offsets, offset_mm, half_diagonal = _search_order(affine, radius_mm)
    waiting = torch.arange(position.shape[1], device=own.device)
    for offset, distance_from_own in zip(offsets, offset_mm.tolist(), strict=True):
        # Centres further down the list cannot be nearer than what has been found.
        waiting = waiting[distance_from_own <= nearest[waiting] + half_diagonal]
        if not len(waiting):
            break
        voxel = own[:, waiting] + offset[:, None]
        centre = apply_affine(affine, voxel)
        distance = torch.linalg.vector_norm(position[:, waiting] - centre, dim=0)
        index = voxel.long()
        valid = ((index >= 0) & (index < size)).all(0) & (distance < nearest[waiting])
        i, j, k = index[:, valid]
        label = parcellation[i, j, k]
        found = label != 0
        winners = waiting[valid][found]
        labels[winners] = label[found]
        nearest[winners] = distance[valid][found]
    return labels.reshape(-1, 2)


def _search_order(
    affine: Float[Tensor, "4 4"], radius_mm: float
) -> tuple[Float[Tensor, "k 3"], Float[Tensor, " k"], float]:
    """List voxel offsets that can matter, nearest first, with their length and half a diagonal."""
    sizes = torch.linalg.vector_norm(affine[:3, :3], dim=0)
    half_diagonal = float(torch.linalg.vector_norm(sizes) / 2)
    reach = radius_mm + half_diagonal
    axes = [
        torch.arange(-extent, extent + 1, dtype=torch.float64, device=affine.device)
        for extent in (math.ceil(reach / size) for size in sizes.tolist())
    ]
    z, y, x = torch.meshgrid(*reversed(axes), indexing="ij")
    offsets = torch.stack([x.ravel(), y.ravel(), z.ravel()], dim=1)
    length = torch.linalg.vector_norm(offsets * sizes, dim=1)
    order = torch.argsort(length, stable=True)
    order = order[length[order] <= reach]
    return offsets[order], length[order], half_diagonal


def _check_ends(ends_mm: Tensor, parcellation: Tensor) -> None:
    if ends_mm.ndim != 3 or ends_mm.shape[1:] != (2, 3):
        raise InputError(
            f"The ends have the shape {tuple(ends_mm.shape)}; (streamline, 2, 3) is needed.",
            where="ends_mm",
            remedy="Give what Streamlines.ends() returns.",
        )
    bad = int((~torch.isfinite(ends_mm.detach())).any(2).any(1).sum())
    if bad:
        raise InputError(
            f"{bad} of {len(ends_mm)} streamlines have an end that is not finite.",
            where="ends_mm",
            remedy="Leave them out.",
        )
    if parcellation.ndim != 3 or parcellation.is_floating_point() or parcellation.is_complex():
        raise InputError(
            f"The parcellation is {parcellation.dtype} {tuple(parcellation.shape)}; a "
            "three-dimensional image of integers is needed.",
            where="parcellation",
            remedy="Round its labels: parcellation.round().long().",
        )
