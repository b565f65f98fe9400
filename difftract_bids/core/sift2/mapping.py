"""Which fixels each streamline runs through, and how far: a sparse matrix, row by row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Self

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from difftract_bids.core.kernels.mapping import (
    FixelArrays,
    count_visits,
    map_to_fixels,
    mapping_workspace,
)
from difftract_bids.core.kernels.threads import Span, first_come, share
from difftract_bids.core.sift2.fixels import Fixels
from difftract_bids.core.sift2.sphere import dense_sphere
from difftract_bids.errors import InputError

#: Streamlines that a thread takes at a time.
_PORTION = 64


class Visits(NamedTuple):
    """Fixels of streamlines: those of number i are at ``offsets[i]`` to ``offsets[i + 1]``.

    Attributes
    ----------
    fixel
        Number of the fixel.
    length_mm
        How far the streamline runs through it, millimetres.
    offsets
        Where the list of each streamline starts, and the last one ends.
    """

    fixel: Int[Tensor, " visit"]
    length_mm: Float[Tensor, " visit"]
    offsets: Int[Tensor, " n+1"]

    @property
    def n_streamlines(self) -> int:
        """Number of streamlines, those without any fixel among them."""
        return len(self.offsets) - 1

    def to(self, device: torch.device | str) -> Visits:
        """Copy to a device, on which a fit is then made."""
        return Visits(*(part.to(device) for part in self))

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Visits:
        """Put the streamlines of several batches one after the other."""
        counts = [part.offsets.diff() for part in parts]
        start = torch.zeros(1, dtype=torch.int64)
        return Visits(
            torch.cat([part.fixel for part in parts]) if parts else start[:0].int(),
            torch.cat([part.length_mm for part in parts]) if parts else start[:0].float(),
            torch.cat([start, *counts]).cumsum(0),
        )


def map_streamlines(
    points_mm: Float[Tensor, "p 3"],
    offsets: Int[Tensor, " n+1"],
    fixels: Fixels,
    vox2ras: Float[Tensor, "4 4"],
) -> Visits:
    """Find the fixels along streamlines.

    Segments are straight and cut exactly at the faces of voxels; they may be longer than a voxel.
    In each voxel a streamline belongs to one fixel, by its direction from where it enters to where
    it leaves. Eight bytes are kept for each streamline and fixel.

    Parameters
    ----------
    points_mm, offsets
        Streamlines in RAS+ millimetres: number i has the vertices ``offsets[i]`` up to
        ``offsets[i + 1]``.
    fixels
        See `segment_fodf`.
    vox2ras
        Affine of the fODF image.

    Raises
    ------
    InputError
        If a vertex is not finite.

    References
    ----------
    Smith et al. 2013, doi:10.1016/j.neuroimage.2012.11.049, section "Mapping streamlines".
    """
    points = np.ascontiguousarray(points_mm.detach().cpu().numpy())
    if not np.isfinite(points).all():
        n_bad = int((~np.isfinite(points).all(axis=1)).sum())
        raise InputError(
            f"{n_bad} of {len(points)} vertices are not finite.",
            where="tractogram",
            remedy="Track again, or leave the damaged streamlines out.",
        )
    starts = np.ascontiguousarray(offsets.cpu().numpy(), dtype=np.int64)
    n, arrays = len(starts) - 1, _arrays(fixels, vox2ras)
    n_visits, n_found = np.zeros((2, n), np.int64)

    def count(spans: Iterable[Span]) -> None:
        for first, last in spans:
            count_visits(first, last, arrays, points, starts, n_visits)

    share(count, first_come(n, _PORTION))
    room = np.concatenate([[0], n_visits.cumsum()])
    fixel_of, length_of = np.empty(room[-1], np.int32), np.empty(room[-1], np.float32)

    def walk(spans: Iterable[Span]) -> None:
        work = mapping_workspace()
        for first, last in spans:
            map_to_fixels(
                *(first, last, arrays, points, starts, room, work, fixel_of, length_of, n_found)
            )

    share(walk, first_come(n, _PORTION))
    ends = n_found.cumsum()
    filled = np.arange(ends[-1] if n else 0) + np.repeat(room[:-1] - (ends - n_found), n_found)
    return Visits(
        torch.from_numpy(fixel_of[filled]),
        torch.from_numpy(length_of[filled]),
        torch.from_numpy(np.concatenate([[0], ends])),
    )


def _arrays(fixels: Fixels, vox2ras: Float[Tensor, "4 4"]) -> FixelArrays:
    affine = vox2ras.double().cpu()
    sphere = dense_sphere()
    return FixelArrays(
        fixels.first.numpy(),
        fixels.n_fixels.numpy(),
        fixels.row.numpy(),
        fixels.table.numpy(),
        sphere.axes.numpy(),
        sphere.neighbours.numpy(),
        sphere.nearest.numpy(),
        np.ascontiguousarray(torch.linalg.inv(affine)[:3].numpy()),
        np.ascontiguousarray(affine[:3, :3].numpy()),
    )
