"""Tissue that streamlines have to obey, and what lies where: anatomically constrained tracking.

The rules are those of ``tckgen -act`` (MRtrix3 3.0.3), without back-tracking. Tissue is looked up
by trilinear interpolation on a grid of its own. A streamline ends where it enters cortical grey
matter, is cut back once it leaves deep grey matter, and is rejected if it enters cerebrospinal
fluid or stops within white matter.

References
----------
Smith et al. 2012, doi:10.1016/j.neuroimage.2012.06.005.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int, Int32
from torch import Tensor

from difftract_bids.core.interpolation import Grid
from difftract_bids.errors import InputError

#: Fractions that add up to less are no tissue: the image is left.
LEAST_TISSUE = 0.5
#: Grey and white matter are equal up to this: on the interface between them.
INTERFACE_TOLERANCE = 0.01
#: How far to both sides of a seed it is looked where white matter is, millimetres.
SIDE_MM = 1e-3
#: MRtrix leaves out corners of smaller weight; a float32.
SMALLEST_WEIGHT = np.float32(1e-6)
#: By how much white matter has to prevail in all corners of a cell for it to prevail within,
#: whatever the rounding.
_SURELY = 1e-3


class Kind(IntEnum):
    """What a position is to a streamline; the first of these that applies."""

    NOWHERE = 0  #: outside the image, or hardly any tissue
    FLUID = 1  #: cerebrospinal fluid
    CORTEX = 2  #: grey matter, more cortical than deep
    DEEP = 3  #: grey matter, more deep than cortical
    PASSABLE = 4  #: white matter, or pathological tissue


#: Bits of what is remembered of a streamline: the tissue looked up last was pathological; its seed
#: was in deep grey matter; it has come from there into what is not grey.
SICK = 1
SEEDED_DEEP = 2
LEFT_SEED = 4


@dataclass(frozen=True, eq=False)
class Anatomy:
    """Fractions of five types of tissue ("5TT"), and what to do at the border of grey matter.

    Attributes
    ----------
    tissues
        Fractions of cortical grey matter, deep grey matter, white matter, cerebrospinal fluid and
        pathological tissue, 0 to 1, in the space of the diffusion data. Looked up in float32. A
        voxel of zeros is outside, as is a position where one of its neighbours is not a number.
    vox2ras
        Affine of the image, voxels to RAS+ millimetres; any grid will do.
    crop_at_gmwmi
        Move an end in cortical grey matter back onto the interface of grey and white matter, see
        `difftract_bids.core.tissue_interface.crop_ends`.

    Raises
    ------
    InputError
        If the image has not five volumes or no tissue in it, or its affine is not invertible.
    """

    tissues: Float[Tensor, "x y z 5"]
    vox2ras: Float[Tensor, "4 4"]
    crop_at_gmwmi: bool = False

    def __post_init__(self) -> None:
        """Check everything before the first lookup."""
        if self.tissues.ndim != 4 or self.tissues.shape[3] != 5:
            raise InputError(
                f"The tissue image has the shape {tuple(self.tissues.shape)}.",
                where="tissues",
                remedy="Give five volumes: cortical and deep grey matter, white matter, "
                "cerebrospinal fluid and pathological tissue.",
            )
        _ = self.table
        if not bool(self.table.row.any()):
            raise InputError(
                "The tissue image is empty.",
                where="tissues",
                remedy="Give fractions from 0 to 1 that add up to about 1 within the brain.",
            )

    @cached_property
    def table(self) -> TissueTable:
        """The image in the form that lookups want, on its own device; made once."""
        return compile_tissues(self.tissues, self.vox2ras)

    def on(self, device: torch.device) -> TissueTable:
        """Give the table on a device, made once for each."""
        if device not in self._elsewhere:
            self._elsewhere[device] = self.table.to(device)
        return self._elsewhere[device]

    @cached_property
    def _elsewhere(self) -> dict[torch.device, TissueTable]:
        return {self.tissues.device: self.table}


class TissueTable(NamedTuple):
    """Tissue fractions as plain tensors, only those voxels that hold any.

    Attributes
    ----------
    table
        Fractions, one row each; row 0 is all zeros.
    row
        Which row belongs to each voxel.
    surely_white
        Cells, by their lowest corner, in all of which white matter prevails: most vertices are in
        one, and need no more than this.
    ras2vox
        Affine from RAS+ millimetres to voxel coordinates.
    smallest_voxel_mm
        Smallest distance between neighbouring voxels, millimetres.
    """

    table: Float32[Tensor, "row 5"]
    row: Int32[Tensor, "x y z"]
    surely_white: Bool[Tensor, "x y z"]
    ras2vox: Float64[Tensor, "4 4"]
    smallest_voxel_mm: float

    @property
    def grid(self) -> Grid:
        """The image's voxels."""
        x, y, z = self.row.shape
        return Grid((x, y, z), self.ras2vox)

    def to(self, device: torch.device) -> TissueTable:
        """Copy it to a device."""
        moved = (x.to(device) for x in (self.table, self.row, self.surely_white, self.ras2vox))
        table, row, surely_white, ras2vox = moved
        return TissueTable(table, row, surely_white, ras2vox, self.smallest_voxel_mm)


class Tissues(NamedTuple):
    """Fractions at some positions, float32, and where there are any; all zeros elsewhere."""

    cortex: Float[Tensor, " n"]
    deep: Float[Tensor, " n"]
    white: Float[Tensor, " n"]
    fluid: Float[Tensor, " n"]
    sick: Float[Tensor, " n"]
    valid: Bool[Tensor, " n"]

    @property
    def grey(self) -> Float[Tensor, " n"]:
        """Grey matter of both types."""
        return self.cortex + self.deep

    @property
    def surplus(self) -> Float[Tensor, " n"]:
        """Grey less white matter: 0 on the interface."""
        return self.grey - self.white

    def kind(self) -> Int[Tensor, " n"]:
        """Say what each position is to a streamline, see `Kind`."""
        grey = self.grey
        is_grey = (grey >= self.white) & (grey > self.fluid) & (grey > self.sick)
        kind = torch.where(self.cortex >= self.deep, int(Kind.CORTEX), int(Kind.DEEP))
        kind = torch.where(is_grey, kind, int(Kind.PASSABLE))
        kind = torch.where(self.is_fluid(), int(Kind.FLUID), kind)
        return torch.where(self.valid, kind, int(Kind.NOWHERE))

    def is_fluid(self) -> Bool[Tensor, " n"]:
        """Tell where there is no more of any other tissue."""
        others = torch.stack([self.cortex, self.deep, self.white, self.sick])
        return (self.fluid >= others).all(0)

    def is_sick(self) -> Bool[Tensor, " n"]:
        """Tell where pathological tissue prevails."""
        most = torch.stack([self.cortex, self.deep, self.white]).amax(0)
        return self.valid & (self.sick >= most) & (self.sick > self.fluid)

    def is_deep(self) -> Bool[Tensor, " n"]:
        """Tell where deep grey matter alone prevails."""
        most = torch.stack([self.fluid, self.sick, self.cortex]).amax(0)
        return (self.deep > most) & (self.deep >= self.white)


def compile_tissues(
    tissues: Float[Tensor, "x y z 5"], vox2ras: Float[Tensor, "4 4"]
) -> TissueTable:
    """Prepare fractions for lookups.

    Raises
    ------
    InputError
        If the affine is not invertible.
    """
    values = tissues.detach().to(torch.float32)
    grid = Grid.from_affine(tuple(values.shape[:3]), vox2ras, values.device)
    occupied = torch.nonzero((values != 0).any(3), as_tuple=True)
    numbers = torch.arange(1, len(occupied[0]) + 1, dtype=torch.int32, device=values.device)
    row = torch.zeros(values.shape[:3], dtype=torch.int32, device=values.device)
    row = row.index_put(occupied, numbers)
    table = torch.nn.functional.pad(values[occupied], (0, 0, 1, 0))
    sizes = torch.linalg.vector_norm(vox2ras.detach().double()[:3, :3], dim=0)
    white = _prevails(table)[row.long()]
    return TissueTable(table, row, _whole_cells(white), grid.ras2vox, float(sizes.min()))


def _prevails(table: Float32[Tensor, "row 5"]) -> Bool[Tensor, " row"]:
    """Tell rows from which any mean is white matter: all comparisons are linear in fractions."""
    cortex, deep, white, fluid, sick = table.T
    within = ((table >= 0) & (table <= 1)).all(1)
    most = torch.stack([cortex + deep, fluid, sick]).amax(0)
    return within & (white > most + _SURELY) & (table.sum(1) > LEAST_TISSUE + _SURELY)


def _whole_cells(voxels: Bool[Tensor, "x y z"]) -> Bool[Tensor, "x y z"]:
    """Tell cells by their lowest corner all of whose corners are marked; the last is its own."""
    for axis in range(3):
        n = voxels.shape[axis]
        following = torch.cat([voxels.narrow(axis, 1, n - 1), voxels.narrow(axis, n - 1, 1)], axis)
        voxels = voxels & following
    return voxels.contiguous()


def tissues_at(
    table: TissueTable, position_mm: Float[Tensor, "3 n"], *, masked: bool = True
) -> Tissues:
    """Look fractions up; no derivative comes from them.

    Parameters
    ----------
    table
        On the device of the positions.
    position_mm
        RAS+ millimetres.
    masked
        A position whose nearest voxel is empty is outside, too.
    """
    grid, row = table.grid, table.row.reshape(-1)
    with torch.no_grad():
        voxel = grid.to_voxel(position_mm.detach()).nan_to_num(nan=-9.0)
        inside = grid.contains(voxel)
        if masked:
            inside = inside & (row[grid.nearest(voxel)] > 0)
        values = _interpolated(table, voxel)
        valid = inside & ~torch.isnan(values).any(0)
        cortex, deep, white, fluid, sick = torch.where(valid, values.clamp(0, 1), 0)
        enough = (cortex + deep) + white + fluid + sick >= LEAST_TISSUE
        return Tissues(cortex, deep, white, fluid, sick, valid & enough)


def _interpolated(table: TissueTable, voxel: Float[Tensor, "3 n"]) -> Float32[Tensor, "5 n"]:
    """Interpolate in float32, operation by operation as MRtrix does.

    On the interface of grey and white matter, where seeds are put, the last digit decides.
    """
    index, fraction, _ = table.grid.corners(voxel)
    x, y, z = torch.stack([1 - fraction, fraction], dim=1).float()
    weights = [x[i] * (y[j] * z[k]) for i, j, k in product((0, 1), repeat=3)]
    rows = table.row.reshape(-1)[index].long()
    terms = [
        torch.where(weight >= float(SMALLEST_WEIGHT), weight, 0) * table.table[rows[:, corner]].T
        for corner, weight in enumerate(weights)
    ]
    along_z = [terms[i] + terms[i + 1] for i in (0, 2, 4, 6)]
    return (along_z[0] + along_z[1]) + (along_z[2] + along_z[3])


class SeedTissue(NamedTuple):
    """What tissue makes of seeds.

    Attributes
    ----------
    suitable
        Where a streamline may start.
    remembered
        Bits that are to be remembered.
    one_way
        Starts in grey matter, at its border: only the way to white matter is to be gone.
    direction
        Unit vectors to start along, turned towards white matter there.
    """

    suitable: Bool[Tensor, " n"]
    remembered: Int[Tensor, " n"]
    one_way: Bool[Tensor, " n"]
    direction: Float[Tensor, "3 n"]


def judge_seeds(
    table: TissueTable,
    seeds_mm: Float[Tensor, "3 n"],
    direction: Float[Tensor, "3 n"],
) -> SeedTissue:
    """Say where seeds may be, and which of them start at the interface.

    Parameters
    ----------
    table
        The tissue.
    seeds_mm, direction
        Where and in which direction streamlines are about to start, RAS+ millimetres.
    """
    here = tissues_at(table, seeds_mm)
    deep = here.is_deep()
    refused = here.is_fluid() | (here.white == 0) | (here.surplus >= INTERFACE_TOLERANCE)
    one_way = ~deep & (here.grey > here.white) & (here.cortex > here.deep)
    ahead = tissues_at(table, seeds_mm + SIDE_MM * direction)
    behind = tissues_at(table, seeds_mm - SIDE_MM * direction)
    turned = one_way & (ahead.surplus > behind.surplus)
    return SeedTissue(
        here.valid & (deep | ~refused),
        torch.where(deep, SEEDED_DEEP, 0) | torch.where(here.is_sick(), SICK, 0),
        one_way,
        torch.where(turned, -direction, direction),
    )
