"""What the connectome asks of its inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from difftract_bids.errors import InputError


def check_parcellation(parcellation: Tensor) -> None:
    """Check that a parcellation is a three-dimensional image of integers.

    Raises
    ------
    InputError
        If it is not.
    """
    if parcellation.ndim != 3 or parcellation.is_floating_point() or parcellation.is_complex():
        raise InputError(
            f"The parcellation is {parcellation.dtype} {tuple(parcellation.shape)}; a "
            "three-dimensional image of integers is needed.",
            where="parcellation",
            remedy="Round its labels: parcellation.round().long().",
        )


def check_streamlines(points_mm: Tensor, offsets: Tensor) -> None:
    """Check that vertices and offsets are streamlines; empty ones are.

    Raises
    ------
    InputError
        If shapes are others, or the offsets do not rise from 0 to the number of vertices.
    """
    shaped = points_mm.ndim == 2 and points_mm.shape[1] == 3 and offsets.ndim == 1
    if not shaped or not points_mm.is_floating_point() or offsets.is_floating_point():
        raise InputError(
            f"Vertices are {points_mm.dtype} {tuple(points_mm.shape)} and offsets "
            f"{offsets.dtype} {tuple(offsets.shape)}; floating (p, 3) and integer (n + 1) are "
            "needed.",
            where="points_mm, offsets",
            remedy="Give Streamlines.points and Streamlines.offsets.",
        )
    fits = len(offsets) > 0 and int(offsets[0]) == 0 and int(offsets[-1]) == len(points_mm)
    if not fits or bool((offsets.diff() < 0).any()):
        raise InputError(
            f"The offsets do not rise from 0 to the {len(points_mm)} vertices.",
            where="offsets",
            remedy="Streamline i is points_mm[offsets[i]:offsets[i + 1]].",
        )


def check_finite(points_mm: Tensor, offsets: Tensor) -> None:
    """Check that every vertex is finite.

    Raises
    ------
    InputError
        If not; the message counts streamlines and names the first.
    """
    points = points_mm.detach()
    # NumPy's is ten times faster than PyTorch's.
    if torch.isfinite(points).all() if points.is_cuda else np.isfinite(points.numpy()).all():
        return
    bad = torch.nonzero(~torch.isfinite(points).all(1)).squeeze(1)
    lines = torch.unique(torch.searchsorted(offsets.contiguous(), bad, right=True)) - 1
    raise not_finite(lines, len(offsets) - 1)


def not_finite(lines: Int[Tensor, " m"] | NDArray[np.integer[Any]], n: int) -> InputError:
    """Make the error that counts streamlines and names the first."""
    return InputError(
        f"{len(lines)} of {n} streamlines have a vertex that is not finite; the first is number "
        f"{int(lines[0])}, counted from 0.",
        where="points_mm",
        remedy="Leave them out.",
    )


def check_ends(ends_mm: Tensor, parcellation: Tensor) -> None:
    """Check that ends are pairs of finite positions, and the parcellation one.

    Raises
    ------
    InputError
        If not; ends that are not finite are counted.
    """
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
    check_parcellation(parcellation)
