"""All peaks of fODFs: the largest few of each, where tracking needs only the one it is following.

Amplitudes on a dense set of directions show which of them are higher than their neighbours; from
there each climbs to its peak by the search that tracking uses, and climbs that end at one place
count once.
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from difftract_bids.core.peaks import find_peaks
from difftract_bids.core.sh import lmax_of, sh_basis
from difftract_bids.core.tensor_form import sh_to_tensor

#: Directions on the hemisphere, 4.5 degrees apart, and how many neighbours one must exceed. With
#: all eight a shallow peak on the shoulder of a large one would be overlooked; with four, some
#: climbs start from ridges and end at a peak that is known already.
_N_DIRECTIONS, _N_NEIGHBOURS = 1000, 4
#: Where the orientation-dependent part is this small beside the rest, it is rounding.
_ISOTROPIC = 1e-5
#: Only directions with this share of the threshold are climbed from: the nearest one is within 4
#: degrees of the peak, and not much lower.
_HEADROOM = 0.8
#: Voxels worked on at a time: some 60 MB.
_CHUNK = 2048


class _Candidates(NamedTuple):
    """Peaks found, several per voxel, in no order."""

    voxel: Int[Tensor, " m"]
    direction: Float[Tensor, "3 m"]
    amplitude: Float[Tensor, " m"]


def all_peaks(
    sh_coeffs: Float[Tensor, "n coeff"],
    n_peaks: int = 3,
    *,
    cutoff: float = 0.0,
    relative_cutoff: float = 0.0,
    separation_deg: float = 15.0,
) -> Float[Tensor, "n peak 3"]:
    """Find the largest peaks of each fODF; not differentiable (`find_peaks` is, peak by peak).

    Parameters
    ----------
    sh_coeffs
        fODFs in MRtrix's basis, scanner axes.
    n_peaks
        Peaks to keep of each.
    cutoff
        Peaks must exceed this amplitude; at least 0.
    relative_cutoff
        Peaks must reach this share of the voxel's largest.
    separation_deg
        Of two peaks closer than this the smaller is dropped, degrees.

    Returns
    -------
    Float[Tensor, "n peak 3"]
        Unit direction times amplitude, largest first, zero where there are no more peaks. A peak's
        sign has no meaning. Zeros for fODFs that are isotropic or not finite.

    Raises
    ------
    FodfError
        If the number of coefficients is not that of an even degree from 2 to 12.

    References
    ----------
    Jeurissen et al. 2013, doi:10.1002/hbm.22099 (peaks by Newton's method from many directions).
    """
    lmax = lmax_of(sh_coeffs.shape[-1])
    peaks = sh_coeffs.new_zeros(len(sh_coeffs), n_peaks, 3)
    with torch.no_grad():
        for start in range(0, len(sh_coeffs), _CHUNK):
            chunk = sh_coeffs[start : start + _CHUNK]
            shaped = torch.nonzero(_has_shape(chunk)).squeeze(1)
            found = _climb(chunk[shaped], lmax, max(cutoff, 0.0), relative_cutoff)
            peaks[start + shaped] = _largest(found, len(shaped), n_peaks, separation_deg)
    if relative_cutoff:
        amplitude = torch.linalg.vector_norm(peaks, dim=-1, keepdim=True)
        peaks *= amplitude >= relative_cutoff * amplitude[:, :1]
    return peaks


def _has_shape(sh_coeffs: Float[Tensor, "n coeff"]) -> Bool[Tensor, " n"]:
    """Tell which fODFs are finite and depend on the direction."""
    directed = torch.linalg.vector_norm(sh_coeffs[:, 1:], dim=1)
    return torch.isfinite(sh_coeffs).all(dim=1) & (directed > _ISOTROPIC * sh_coeffs[:, 0].abs())


def _climb(
    sh_coeffs: Float[Tensor, "n coeff"], lmax: int, cutoff: float, relative_cutoff: float
) -> _Candidates:
    """Climb to a peak from every direction that is higher than its neighbours."""
    directions, basis, neighbours = _lattice(lmax, sh_coeffs.dtype, sh_coeffs.device)
    amplitude = basis @ sh_coeffs.T
    threshold = relative_cutoff * amplitude.amax(0) if len(sh_coeffs) else amplitude.new_zeros(0)
    highest = amplitude > _HEADROOM * threshold.clamp(min=cutoff)
    for column in neighbours.T:
        # Of equally high neighbours the one that comes first gives way: a ring keeps a peak.
        ahead = (column > torch.arange(len(column), device=column.device))[:, None]
        beside = amplitude[column]
        highest &= torch.where(ahead, amplitude > beside, amplitude >= beside)
    which, voxel = torch.nonzero(highest, as_tuple=True)
    tensor = sh_to_tensor(sh_coeffs, lmax).T[:, voxel]
    peaks = find_peaks(tensor, directions[which].T.contiguous(), lmax)
    keep = peaks.found & (peaks.amplitude > cutoff)
    return _Candidates(voxel[keep], peaks.direction[:, keep], peaks.amplitude[keep])


def _largest(
    found: _Candidates, n_voxels: int, n_peaks: int, separation_deg: float
) -> Float[Tensor, "n peak 3"]:
    """Sort each voxel's peaks by amplitude and keep the first few that are apart."""
    order = torch.argsort(found.amplitude, descending=True, stable=True)
    order = order[torch.argsort(found.voxel[order], stable=True)]
    voxel, direction = found.voxel[order], found.direction[:, order]
    count = torch.bincount(voxel, minlength=n_voxels)
    rank = torch.arange(len(voxel), device=voxel.device) - (count.cumsum(0) - count)[voxel]
    near = math.cos(math.radians(separation_deg))
    kept = direction.new_zeros(n_voxels, n_peaks, 3)
    amplitudes = direction.new_zeros(n_voxels, n_peaks)
    filled = torch.zeros_like(count)
    for place in range(int(count.max()) if len(voxel) else 0):
        this = torch.nonzero(rank == place).squeeze(1)
        here, way = voxel[this], direction[:, this].T
        apart = ((kept[here] @ way[:, :, None]).abs().squeeze(2) <= near).all(dim=1)
        new = apart & (filled[here] < n_peaks)
        here = here[new]
        kept[here, filled[here]] = way[new]
        amplitudes[here, filled[here]] = found.amplitude[order][this[new]]
        filled[here] += 1
    return kept * amplitudes[..., None]


@cache
def _lattice(
    lmax: int, dtype: torch.dtype, device: torch.device
) -> tuple[
    Float[Tensor, "direction 3"], Float[Tensor, "direction coeff"], Int[Tensor, "direction k"]
]:
    """Spread directions over a hemisphere (a Fibonacci lattice), and list the nearest of each.

    A direction and its opposite are one.
    """
    index = torch.arange(_N_DIRECTIONS, dtype=torch.float64)
    z = (index + 0.5) / _N_DIRECTIONS
    angle = math.pi * (1 + math.sqrt(5)) * index
    radius = torch.sqrt(1 - z * z)
    directions = torch.stack([radius * torch.cos(angle), radius * torch.sin(angle), z], dim=1)
    likeness = (directions @ directions.T).abs().fill_diagonal_(0)
    neighbours = likeness.topk(_N_NEIGHBOURS, dim=1).indices
    basis = sh_basis(directions, lmax)
    return directions.to(device, dtype), basis.to(device, dtype), neighbours.to(device)
