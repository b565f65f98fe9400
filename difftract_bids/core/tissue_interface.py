"""The interface of grey and white matter: where it is, and ends of streamlines moved onto it.

It is where both fractions, interpolated, are equal. Searches are those of MRtrix3 3.0.3, and their
tolerances, too.

References
----------
Smith et al. 2012, doi:10.1016/j.neuroimage.2012.06.005.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from difftract_bids.core.anatomy import (
    INTERFACE_TOLERANCE,
    Anatomy,
    Tissues,
    TissueTable,
    tissues_at,
)
from difftract_bids.core.streamlines import StopReason, Streamlines

#: Distance over which differences are taken for a slope, millimetres.
_ACROSS_MM = 1e-3
#: Steps of a search, and halvings of a segment.
_ITERATIONS = 10
#: Half the tension of the curve through the last vertices.
_HALF_TENSION = 0.05


def crop_ends(streamlines: Streamlines, anatomy: Anatomy) -> Streamlines:
    """Move ends in cortical grey matter back onto the interface, as ``tckgen -crop_at_gmwmi``.

    The new end is on a Hermite curve through the last three vertices, between the last two, where
    bisection found it. How far along it is a decision, and has no derivative; with that held, the
    end is a weighted mean of these three vertices, and passes derivatives on to them.

    Parameters
    ----------
    streamlines
        Tracked with the same anatomy.
    anatomy
        The tissue.
    """
    first, last = streamlines.offsets[:-1], streamlines.offsets[1:] - 1
    in_cortex = streamlines.stop_reason == StopReason.ENTERED_CORTEX
    # As MRtrix crops the first half before it makes the second, this needs three vertices alone.
    crop_first = in_cortex[:, 0] & (streamlines.seed_vertex >= 2)
    crop_last = in_cortex[:, 1] & (last - first >= 2)
    end = torch.cat([first[crop_first], last[crop_last]])
    inwards = torch.cat([torch.ones_like(first[crop_first]), -torch.ones_like(last[crop_last])])
    if not len(end):
        return streamlines
    points = streamlines.points
    three = torch.stack([points[end + k * inwards] for k in range(3)])
    with torch.no_grad():
        weights = _weights_on_interface(anatomy.on(points.device), three.detach())
    cropped = (weights[..., None] * three).sum(0)
    return replace(streamlines, points=points.index_copy(0, end, cropped))


def _weights_on_interface(
    table: TissueTable, three: Float[Tensor, "3 n xyz"]
) -> Float[Tensor, "3 n"]:
    """Weigh the last three vertices, the last one first, so that their mean is on the interface.

    An end stays where it is unless grey matter prevails in it by more than the tolerance, and
    white matter in the vertex before.
    """
    at_end, before = (tissues_at(table, row.T, masked=False) for row in three[:2])
    between = (at_end.surplus >= INTERFACE_TOLERANCE) & (before.surplus < 0)
    low = torch.zeros_like(three[0, :, 0])
    high, best = torch.ones_like(low), torch.ones_like(low)
    going = between
    for _ in range(_ITERATIONS):
        middle = 0.5 * (low + high)
        place = (_curve(middle)[..., None] * three).sum(0)
        surplus = tissues_at(table, place.T, masked=False).surplus
        white = surplus < 0
        low = torch.where(going & white, middle, low)
        high = torch.where(going & ~white, middle, high)
        best = torch.where(going & ~white, middle, best)
        going = going & (white | (surplus >= INTERFACE_TOLERANCE))
    return _curve(best)


def _curve(mu: Float[Tensor, " n"]) -> Float[Tensor, "3 n"]:
    """Weigh the last three vertices for the place ``mu`` of the way from the second last on.

    A Hermite curve with tension goes through four points a, b, c, d; the fourth continues the
    bend of the others: d = c + (c - b) + ((c - b) - (b - a)) = 3 c - 3 b + a.
    """
    t, mu2 = _HALF_TENSION, mu * mu
    mu3 = mu2 * mu
    of_a = (0.5 - t) * (2 * mu2 - mu3 - mu)
    of_b = 1 + (1.5 + t) * mu3 - (2.5 + t) * mu2
    of_c = (2 + 2 * t) * mu2 + (0.5 - t) * mu - (1.5 + t) * mu3
    of_d = (0.5 - t) * (mu3 - mu2)
    return torch.stack([of_c + 3 * of_d, of_b - 3 * of_d, of_a + of_d])


def onto_interface(
    table: TissueTable, position_mm: Float[Tensor, "3 n"]
) -> tuple[Float[Tensor, "3 n"], Bool[Tensor, " n"]]:
    """Move positions down the difference of the fractions onto the interface, its grey side.

    Parameters
    ----------
    table
        The tissue, on the device of the positions.
    position_mm
        RAS+ millimetres, float64.

    Returns
    -------
    moved_mm, found
        Where the search ended, and whether a streamline may start there: grey matter less white
        is from 0 to the tolerance.
    """
    place = position_mm.clone()
    going = torch.arange(place.shape[1], device=place.device)
    for _ in range(_ITERATIONS):
        step = _step_to_interface(table, place[:, going])
        place[:, going] += step
        here = tissues_at(table, place[:, going], masked=False)
        far = here.surplus.abs() > INTERFACE_TOLERANCE
        going = going[here.valid & (step != 0).any(0) & far]
    here = tissues_at(table, place, masked=False)
    usable = here.valid & ~here.is_fluid() & ~here.is_sick() & (here.white > 0)
    usable &= here.surplus.abs() <= INTERFACE_TOLERANCE
    place, beyond = _to_grey_side(table, place, torch.nonzero(usable & (here.surplus < 0))[:, 0])
    return place, usable & ((here.surplus >= 0) | beyond)


def _to_grey_side(
    table: TissueTable, place: Float[Tensor, "3 n"], going: Int[Tensor, " m"]
) -> tuple[Float[Tensor, "3 n"], Bool[Tensor, " n"]]:
    """Go on in growing steps from where white matter prevails by a little."""
    place, found = place.clone(), torch.zeros_like(place[0], dtype=torch.bool)
    step = _step_to_interface(table, place[:, going])
    while len(going):
        step = 1.5 * step
        place[:, going] += step
        here = tissues_at(table, place[:, going], masked=False)
        there = here.valid & (here.surplus >= 0) & (here.surplus < INTERFACE_TOLERANCE)
        found[going] = there
        size = torch.linalg.vector_norm(step, dim=0)
        on = ~there & (size > 0) & (size < 0.5 * table.smallest_voxel_mm)
        going, step = going[on], step[:, on]
    return place, found


def slope_at(
    table: TissueTable, position_mm: Float[Tensor, "3 n"]
) -> tuple[Float[Tensor, "3 n"], Bool[Tensor, " n"]]:
    """Differentiate grey less white matter by the position, per millimetre, where it is inside."""
    slope, inside = torch.zeros_like(position_mm), torch.ones_like(position_mm[0]).bool()
    for axis in range(3):
        aside = torch.zeros(3, 1, dtype=position_mm.dtype, device=position_mm.device)
        aside[axis] = 0.5 * _ACROSS_MM
        ahead, behind = (
            tissues_at(table, position_mm + sign * aside, masked=False) for sign in (1, -1)
        )
        slope[axis] = (ahead.surplus - behind.surplus) / _ACROSS_MM
        inside &= ahead.valid & behind.valid
    return slope, inside


def _step_to_interface(
    table: TissueTable, position_mm: Float[Tensor, "3 n"]
) -> Float[Tensor, "3 n"]:
    """Make Newton's step to where the fractions are equal, half a voxel at most."""
    slope, inside = slope_at(table, position_mm)
    square = (slope * slope).sum(0)
    here: Tissues = tissues_at(table, position_mm, masked=False)
    usable = inside & (square > 0)
    step = torch.where(usable, -here.surplus / torch.where(usable, square, 1), 0) * slope
    size, longest = torch.linalg.vector_norm(step, dim=0), 0.5 * table.smallest_voxel_mm
    return step * torch.where(size > longest, longest / torch.where(size > 0, size, 1), 1)
