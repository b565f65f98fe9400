"""Which parcels streamlines belong to, by all rules of MRtrix3's ``tck2connectome``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from difftract_bids.config.connectome import AssignmentMode
from difftract_bids.core.connectome.checks import (
    check_ends,
    check_finite,
    check_parcellation,
    check_streamlines,
    not_finite,
)
from difftract_bids.core.connectome.label_image import (
    LabelImage,
    search_order,
    turn,
    turned_to_ras,
)
from difftract_bids.core.interpolation import Grid, apply_affine
from difftract_bids.core.kernels import assignment as kernels
from difftract_bids.core.kernels.threads import Span, first_come, share
from difftract_bids.errors import ConfigError

__all__ = [
    "DEFAULT_DISTANCE_MM",
    "AssignmentMode",
    "assign_ends",
    "assign_streamlines",
    "search_in_torch",
    "visited_labels",
]

#: Distances where none is given, millimetres; in a reverse search 0 is no limit.
DEFAULT_DISTANCE_MM: dict[str, float] = {
    "radial_search": 4.0,
    "reverse_search": 0.0,
    "forward_search": 3.0,
}
#: Ends, or streamlines, that a thread takes at a time.
_PORTION = 1024


def assign_ends(
    ends_mm: Float[Tensor, "n 2 3"],
    parcellation: Int[Tensor, "x y z"],
    vox2ras: Float[Tensor, "4 4"],
    radius_mm: float = 4.0,
) -> Int[Tensor, "n 2"]:
    """Give each streamline end the label of the nearest labelled voxel centre within a radius.

    Of centres equally near the first in the search's order wins: nearest offset from the end's own
    voxel first, then lowest z, y, x, with axes turned to RAS however the image is stored.

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
        Labels, 0 where no labelled centre is near, such as outside the image.

    Raises
    ------
    InputError
        If shapes or types do not fit, ends are not finite, or the affine cannot be inverted.

    References
    ----------
    The default ("radial search") of MRtrix3 3.0.3's ``tck2connectome``; Smith et al. 2015,
    doi:10.1016/j.neuroimage.2014.10.004.
    """
    check_ends(ends_mm, parcellation)
    if parcellation.is_cuda:
        return search_in_torch(ends_mm, parcellation, vox2ras, radius_mm)
    ends = ends_mm.detach().reshape(-1, 3).to(dtype=torch.float64, device="cpu").contiguous()
    found = _radial_search(ends.numpy(), turned_to_ras(parcellation, vox2ras), radius_mm)
    return torch.from_numpy(found).to(parcellation.dtype).reshape(-1, 2)


def assign_streamlines(
    points_mm: Float[Tensor, "p 3"],
    offsets: Int[Tensor, " n+1"],
    parcellation: Int[Tensor, "x y z"],
    vox2ras: Float[Tensor, "4 4"],
    mode: AssignmentMode = "radial_search",
    distance_mm: float | None = None,
) -> Int[Tensor, "n 2"]:
    """Give each end of each streamline a label, by one of ``tck2connectome``'s rules.

    Parameters
    ----------
    points_mm
        Vertices, RAS+ millimetres, all streamlines one after the other. Distances along them are
        summed in their own type, float32 as MRtrix does.
    offsets
        Streamline ``i`` is ``points_mm[offsets[i]:offsets[i + 1]]``. One without vertices has no
        labels.
    parcellation
        Labels; 0 is none. Any other integers may occur.
    vox2ras
        Affine of the parcellation, voxels to RAS+ millimetres.
    mode
        ``radial_search``: as `assign_ends`. ``end_voxels``: the voxel that holds the end.
        ``reverse_search``: from the end inwards, the first vertex in a labelled voxel, at most to
        the middle; of two vertices, and of one, only the first is looked at. ``forward_search``:
        from the end's voxel outwards through neighbouring voxels, within 45 degrees of where the
        streamline was heading, the voxel that comes first; one vertex has no heading, and its
        own voxel alone counts.
    distance_mm
        ``radial_search``: centres nearer than this count. ``reverse_search``: how far to go along
        the streamline, 0 without limit. ``forward_search``: how far ahead, half of that at 45
        degrees. ``end_voxels`` needs none. Default 4 mm, without limit, 3 mm.

    Returns
    -------
    Tensor
        Labels of the first and the last end, 0 where there is none.

    Raises
    ------
    InputError
        If shapes or types do not fit, vertices are not finite, or the affine cannot be inverted.
    ConfigError
        If there is no such mode with two labels to a streamline, or the distance is impossible.

    References
    ----------
    MRtrix3 3.0.3's ``tck2connectome``; Smith et al. 2015, doi:10.1016/j.neuroimage.2014.10.004.
    """
    limit_mm = _distance_mm(mode, distance_mm)
    check_streamlines(points_mm, offsets)
    check_parcellation(parcellation)
    if mode in ("radial_search", "end_voxels"):
        return _assign_by_ends(points_mm, offsets, parcellation, vox2ras, mode, limit_mm)
    check_finite(points_mm, offsets)
    points, starts = _arrays(points_mm, offsets)
    where = turned_to_ras(parcellation, vox2ras)
    labels = np.zeros((len(starts) - 1, 2), dtype=where.image.dtype)
    search = _reverse_search if mode == "reverse_search" else _forward_search
    search(points, starts, where, limit_mm, labels)
    return torch.from_numpy(labels).to(device=parcellation.device, dtype=parcellation.dtype)


def visited_labels(
    points_mm: Float[Tensor, "p 3"],
    offsets: Int[Tensor, " n+1"],
    parcellation: Int[Tensor, "x y z"],
    vox2ras: Float[Tensor, "4 4"],
) -> tuple[Int[Tensor, " m"], Int[Tensor, " n+1"]]:
    """List the labels of the voxels that each streamline has a vertex in ("all voxels").

    Only vertices are looked at, as in MRtrix: a streamline whose vertices are further apart than
    voxels misses some.

    Parameters
    ----------
    points_mm, offsets, parcellation, vox2ras
        As for `assign_streamlines`.

    Returns
    -------
    labels, offsets
        The distinct labels of streamline ``i``, ascending and without 0, are
        ``labels[offsets[i]:offsets[i + 1]]``.

    Raises
    ------
    InputError
        If shapes or types do not fit, vertices are not finite, or the affine cannot be inverted.

    References
    ----------
    ``-assignment_all_voxels`` of MRtrix3 3.0.3's ``tck2connectome``.
    """
    check_streamlines(points_mm, offsets)
    check_parcellation(parcellation)
    check_finite(points_mm, offsets)
    points, starts = _arrays(points_mm, offsets)
    where = turned_to_ras(parcellation, vox2ras)
    # No streamline has more labels than vertices: each has room where its vertices are.
    labels = np.empty(len(points), dtype=where.image.dtype)
    counts = np.zeros(len(starts) - 1, dtype=np.int64)
    given = (points, starts, tuple(where), labels, counts)
    _in_portions(len(counts), lambda span: kernels.visit(*span, *given))
    ends = np.concatenate([[0], np.cumsum(counts)])
    shift = np.repeat(starts[:-1] - ends[:-1], counts)
    found = labels[np.arange(ends[-1]) + shift]
    device = parcellation.device
    return (
        torch.from_numpy(found).to(device=device, dtype=parcellation.dtype),
        torch.from_numpy(ends).to(device),
    )


def search_in_torch(
    ends_mm: Float[Tensor, "n 2 3"],
    parcellation: Int[Tensor, "x y z"],
    vox2ras: Float[Tensor, "4 4"],
    radius_mm: float = 4.0,
) -> Int[Tensor, "n 2"]:
    """Do what `assign_ends` does, all ends at once: the kernel's reference, and the form for CUDA.

    Parameters
    ----------
    ends_mm, parcellation, vox2ras, radius_mm
        As for `assign_ends`, which checks them.
    """
    order, flipped, turned = turn(vox2ras, tuple(parcellation.shape))
    image = parcellation.permute(order).flip(flipped)
    affine = torch.from_numpy(turned).to(parcellation.device)
    grid = Grid.from_affine(tuple(image.shape), affine, image.device)
    position = ends_mm.detach().reshape(-1, 3).T.to(torch.float64)
    voxel = grid.to_voxel(position)
    own = torch.sign(voxel) * torch.floor(voxel.abs() + 0.5)
    size = torch.tensor(grid.shape, device=own.device)[:, None]
    labels = torch.zeros(position.shape[1], dtype=image.dtype, device=own.device)
    nearest = torch.full_like(position[0], radius_mm)
    shifts, reach_mm, half_mm = search_order(turned, radius_mm)
    steps = torch.from_numpy(shifts).to(device=own.device, dtype=torch.float64)
    waiting = torch.arange(position.shape[1], device=own.device)
    for step, distance_from_own in zip(steps, reach_mm.tolist(), strict=True):
        # Centres further down the list cannot be nearer than what has been found.
        waiting = waiting[distance_from_own <= nearest[waiting] + half_mm]
        if not len(waiting):
            break
        around = own[:, waiting] + step[:, None]
        centre = apply_affine(affine, around)
        distance = torch.linalg.vector_norm(position[:, waiting] - centre, dim=0)
        index = around.long()
        valid = ((index >= 0) & (index < size)).all(0) & (distance < nearest[waiting])
        i, j, k = index[:, valid]
        label = image[i, j, k]
        found = label != 0
        winners = waiting[valid][found]
        labels[winners] = label[found]
        nearest[winners] = distance[valid][found]
    return labels.reshape(-1, 2)


def _distance_mm(mode: AssignmentMode, distance_mm: float | None) -> float:
    known = get_args(AssignmentMode)
    if mode not in known or mode == "all_voxels":
        raise ConfigError(
            f"There is no assignment of two labels to a streamline by {mode!r}.",
            where="mode",
            remedy=f"Use one of {', '.join(known[:-1])}; for all_voxels call visited_labels.",
        )
    limit_mm = DEFAULT_DISTANCE_MM.get(mode, 0.0) if distance_mm is None else distance_mm
    if not (math.isfinite(limit_mm) and limit_mm >= 0):
        raise ConfigError(
            f"The distance {limit_mm} mm is negative or not finite.",
            where="distance_mm",
            remedy="Give millimetres; 0 in a reverse search is no limit.",
        )
    return limit_mm


def _assign_by_ends(
    points_mm: Float[Tensor, "p 3"],
    offsets: Int[Tensor, " n+1"],
    parcellation: Int[Tensor, "x y z"],
    vox2ras: Float[Tensor, "4 4"],
    mode: AssignmentMode,
    limit_mm: float,
) -> Int[Tensor, "n 2"]:
    """Assign by ends alone: nothing else of the streamlines is touched."""
    points, starts = points_mm.detach().cpu().numpy(), offsets.cpu().numpy()
    filled = np.flatnonzero(starts[1:] > starts[:-1])
    pair = np.stack([starts[:-1][filled], starts[1:][filled] - 1], axis=1)
    ends_mm = points[pair.ravel()].astype(np.float64)
    finite = np.isfinite(ends_mm).all(axis=1).reshape(-1, 2).all(axis=1)
    if not finite.all():
        raise not_finite(filled[~finite], len(starts) - 1)
    where = turned_to_ras(parcellation, vox2ras)
    if mode == "radial_search":
        found = _radial_search(ends_mm, where, limit_mm)
    else:
        found = np.zeros(len(ends_mm), dtype=where.image.dtype)
        given = (ends_mm, tuple(where), found)
        _in_portions(len(found), lambda span: kernels.end_voxels(*span, *given))
    labels = np.zeros((len(starts) - 1, 2), dtype=where.image.dtype)
    labels[filled] = found.reshape(-1, 2)
    return torch.from_numpy(labels).to(device=parcellation.device, dtype=parcellation.dtype)


def _radial_search(
    ends: Float[np.ndarray, "m 3"], where: LabelImage, radius_mm: float
) -> Int[np.ndarray, " m"]:
    found = np.zeros(len(ends), dtype=where.image.dtype)
    given = (ends, tuple(where), *search_order(where.vox2ras, radius_mm), float(radius_mm), found)
    _in_portions(len(ends), lambda span: kernels.radial_search(*span, *given))
    return found


def _reverse_search(
    points: Float[np.ndarray, "p 3"],
    offsets: Int[np.ndarray, " n+1"],
    where: LabelImage,
    limit_mm: float,
    labels: Int[np.ndarray, "n 2"],
) -> None:
    given = (points, offsets, tuple(where), float(limit_mm), labels)
    _in_portions(len(labels), lambda span: kernels.reverse_search(*span, *given))


def _forward_search(
    points: Float[np.ndarray, "p 3"],
    offsets: Int[np.ndarray, " n+1"],
    where: LabelImage,
    limit_mm: float,
    labels: Int[np.ndarray, "n 2"],
) -> None:
    # Voxels that a millimetre can span along each axis, and the half voxels at both ends.
    reach = np.ceil(limit_mm * np.linalg.norm(where.ras2vox[:, :3], axis=1)) + 2
    box = np.minimum(2 * reach + 1, where.layout[:3]).astype(np.int64)
    n_voxels = int(box.prod())

    def work_on(spans: Iterable[Span]) -> None:
        scratch = np.full(n_voxels, -1), np.empty(n_voxels), np.empty(n_voxels, np.int64)
        given = (points, offsets, tuple(where), box, float(limit_mm), *scratch, labels)
        for span in spans:
            kernels.forward_search(*span, *given)

    share(work_on, first_come(len(labels), _PORTION))


def _in_portions(n: int, do: Callable[[Span], None]) -> None:
    def work_on(spans: Iterable[Span]) -> None:
        for span in spans:
            do(span)

    share(work_on, first_come(n, _PORTION))


def _arrays(
    points_mm: Float[Tensor, "p 3"], offsets: Int[Tensor, " n+1"]
) -> tuple[Float[np.ndarray, "p 3"], Int[np.ndarray, " n+1"]]:
    """Give the kernels what they read: vertices in float32 or float64, offsets in int64."""
    dtype = torch.float64 if points_mm.dtype == torch.float64 else torch.float32
    points = points_mm.detach().to(dtype=dtype, device="cpu").contiguous()
    return points.numpy(), offsets.to(dtype=torch.int64, device="cpu").contiguous().numpy()
