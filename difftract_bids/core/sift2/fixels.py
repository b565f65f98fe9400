"""fODFs divided into lobes: the fixels that streamlines are compared with.

Every lobe grows from its peak down to where it meets another one, or to zero. Its integral is the
density of the fibres along it. The remaining directions of a voxel are given to the nearest lobe,
so that every streamline belongs to one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from difftract_bids.core.kernels.fixels import AXIS_BITS, grow_lobes, spread_lobes
from difftract_bids.core.kernels.threads import Span, first_come, share
from difftract_bids.core.peaks import find_peaks
from difftract_bids.core.sh import lmax_of, sh_basis
from difftract_bids.core.sift2.sphere import dense_sphere
from difftract_bids.core.tensor_form import sh_to_tensor
from difftract_bids.errors import FodfError, InputError

#: Lobes whose peak is lower are noise: tcksift2's value.
PEAK_CUTOFF = 0.1
#: A peak lies up to 2.4 degrees from the nearest axis, where the amplitude is a little less.
_HEADROOM, _NEAR = 0.9, math.cos(math.radians(5))
#: More than this many lobes no fODF has.
_MOST_LOBES = 128
#: Voxels worked on at a time, some 40 MB; and those that a thread takes.
_CHUNK, _PORTION = 4096, 128


class Fixels(NamedTuple):
    """Lobes of the fODFs of an image, voxel by voxel.

    Attributes
    ----------
    density
        Integral of each lobe, its opposite included (apparent fibre density), in fODF amplitudes
        times steradian.
    importance
        Share that each has in the fit: the value of the mask at its voxel.
    first, n_fixels
        Number of each voxel's first fixel, and how many it has.
    row
        Row of ``table`` for voxels that have several fixels; -1 for others.
    table
        Which of the voxel's fixels each axis of `dense_sphere` belongs to, from 0.
    """

    density: Float[Tensor, " fixel"]
    importance: Float[Tensor, " fixel"]
    first: Int[Tensor, "x y z"]
    n_fixels: UInt8[Tensor, "x y z"]
    row: Int[Tensor, "x y z"]
    table: UInt8[Tensor, "row axis"]

    def __len__(self) -> int:
        """Count the fixels."""
        return len(self.density)


class _Lobes(NamedTuple):
    """Lobes of some voxels: how many are kept, their integrals, and the table of some voxels."""

    n_lobes: Int[np.ndarray, " voxel"]
    integral: Float[np.ndarray, " lobe"]
    table: UInt8[np.ndarray, "row axis"]


def segment_fodf(
    fodf: Float[Tensor, "x y z coeff"],
    mask: Float[Tensor, "x y z"] | None = None,
    *,
    peak_cutoff: float = PEAK_CUTOFF,
) -> Fixels:
    """Divide fODFs into lobes; not differentiable.

    Parameters
    ----------
    fodf
        SH coefficients in MRtrix's basis, scanner axes. Voxels that are zero or not finite have no
        lobes.
    mask
        Share of each voxel in the fit; voxels at 0 have no fixels. ``None``: 1 everywhere.
    peak_cutoff
        Lobes whose peak is lower are dropped.

    Raises
    ------
    FodfError
        If the number of coefficients is not that of an even degree from 2 to 12, or no voxel has
        a lobe.
    InputError
        If the mask has another shape.

    References
    ----------
    Smith et al. 2013, doi:10.1016/j.neuroimage.2012.11.049, appendix 2.
    """
    lmax = lmax_of(fodf.shape[-1])
    shape = tuple(fodf.shape[:3])
    if mask is not None and tuple(mask.shape) != shape:
        raise InputError(
            f"The mask has {tuple(mask.shape)} voxels, the fODF image {shape}.",
            remedy="Give a mask on the grid of the fODF image.",
        )
    inside = torch.isfinite(fodf).all(dim=-1) & (fodf[..., 0] > 0)
    weight = torch.ones(shape) if mask is None else mask.float()
    places = torch.nonzero((inside & (weight > 0)).reshape(-1)).squeeze(1)
    flat = fodf.detach().reshape(-1, fodf.shape[-1])
    parts = [
        _lobes_of(flat[places[start : start + _CHUNK]].float().cpu(), lmax, peak_cutoff)
        for start in range(0, len(places), _CHUNK)
    ]
    if not sum(len(part.integral) for part in parts):
        raise FodfError(
            f"No voxel of the fODF image has a lobe of amplitude {peak_cutoff:g} or more"
            f"{'' if mask is None else ' in the mask'}.",
            remedy="Check that the image holds fODFs of white matter, and that the mask is right.",
        )
    return _gathered(parts, places.cpu(), weight.cpu())


def _gathered(
    parts: list[_Lobes], places: Int[Tensor, " voxel"], weight: Float[Tensor, "x y z"]
) -> Fixels:
    """Put the lobes of all voxels together, and number them."""
    counts = torch.from_numpy(np.concatenate([part.n_lobes for part in parts])).long()
    table = torch.from_numpy(np.concatenate([part.table for part in parts]))
    first, n_fixels, row = (torch.zeros(weight.numel(), dtype=torch.int32) for _ in range(3))
    several = counts > 1
    first[places] = (counts.cumsum(0) - counts).int()
    n_fixels[places] = counts.int()
    row -= 1
    row[places[several]] = torch.arange(len(table), dtype=torch.int32)
    shape = weight.shape
    return Fixels(
        density=torch.from_numpy(np.concatenate([part.integral for part in parts])),
        importance=weight.reshape(-1)[places].double().repeat_interleave(counts),
        first=first.reshape(shape),
        n_fixels=n_fixels.reshape(shape).to(torch.uint8),
        row=row.reshape(shape),
        table=table,
    )


def _lobes_of(sh_coeffs: Float[Tensor, "voxel coeff"], lmax: int, cutoff: float) -> _Lobes:
    sphere = dense_sphere()
    amplitude = sh_coeffs @ sh_basis(sphere.axes, lmax).float().T
    n_voxels, n_axes = amplitude.shape
    lobe_of = np.empty((n_voxels, n_axes), np.int16)
    peak = np.empty((n_voxels, _MOST_LOBES), np.int16)
    integral = np.empty((n_voxels, _MOST_LOBES))
    neighbours, angles = sphere.neighbours.short().numpy(), sphere.solid_angles.numpy()
    values = amplitude.numpy()

    def grow(spans: Iterable[Span]) -> None:
        for first, last in spans:
            keys = _in_order(values[first:last])
            grow_lobes(first, values, keys, neighbours, angles, lobe_of, peak, integral)

    share(grow, first_come(n_voxels, _PORTION))
    kept = _high_enough(sh_coeffs, amplitude, torch.from_numpy(peak), lmax, cutoff).numpy()
    number = np.where(kept, kept.cumsum(axis=1) - 1, -1).astype(np.int16)
    n_lobes = kept.sum(axis=1)
    several = np.flatnonzero(n_lobes > 1)
    table = np.empty((len(several), n_axes), np.uint8)

    def spread(spans: Iterable[Span]) -> None:
        waiting = np.empty((2, n_axes), np.int16)
        for first, last in spans:
            spread_lobes(
                *(first, last, several, number, integral, neighbours, lobe_of, waiting, table)
            )

    share(spread, first_come(len(several), _PORTION))
    return _Lobes(n_lobes, integral[kept], table)


def _in_order(amplitude: Float[np.ndarray, "voxel axis"]) -> Int[np.ndarray, "voxel axis"]:
    """Sort axes by amplitude: the bits of positive numbers are in the order of the numbers."""
    bits = np.maximum(amplitude, 0).view(np.int32).astype(np.int64)
    keys: Int[np.ndarray, "voxel axis"] = (bits << AXIS_BITS) | np.arange(amplitude.shape[1])
    keys.sort(axis=1)
    return keys


def _high_enough(
    sh_coeffs: Float[Tensor, "voxel coeff"],
    amplitude: Float[Tensor, "voxel axis"],
    peak: Int[Tensor, "voxel lobe"],
    lmax: int,
    cutoff: float,
) -> Bool[Tensor, "voxel lobe"]:
    """Tell which lobes reach the cutoff, between the axes too."""
    there = peak >= 0
    height = amplitude.gather(1, peak.clamp(min=0).long())
    kept = there & (height >= cutoff)
    voxel, lobe = torch.nonzero(there & ~kept & (height >= _HEADROOM * cutoff), as_tuple=True)
    start = dense_sphere().axes[peak[voxel, lobe].long()].T.float()
    found = find_peaks(sh_to_tensor(sh_coeffs[voxel], lmax).T, start, lmax)
    near = (found.direction * start).sum(0) > _NEAR
    kept[voxel, lobe] = found.found & near & (found.amplitude >= cutoff)
    return kept
