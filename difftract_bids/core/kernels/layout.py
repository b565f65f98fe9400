"""What the kernels are given: plain arrays and numbers, grouped by what they describe."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int


class FieldArrays(NamedTuple):
    """An fODF image, only those voxels that hold anything.

    Attributes
    ----------
    order
        A tuple of ``lmax`` zeros: its length is known to the compiler, which a number is not.
    table
        fODFs in the tensor form, one row each, filled up with zeros; row 0 is all zeros.
    row
        Which row belongs to each voxel.
    ras2vox
        Affine from RAS+ millimetres to voxel coordinates, without its last row.
    """

    order: tuple[int, ...]
    table: Float[Any, "row width"]
    row: Int[Any, "x y z"]
    ras2vox: Float[Any, "3 4"]


class Rules(NamedTuple):
    """How to go and when to stop; real numbers are of the table's type."""

    integrator: int
    step_size_mm: np.floating[Any]
    cos_max_angle: np.floating[Any]
    cutoff: np.floating[Any]
    tolerance: np.floating[Any]
    coarse: np.floating[Any]  # what MRtrix's search is to reach, before Newton's method
    min_vertices: int
    max_vertices: int
    one_way: bool
    stop_at_includes: bool
    gradient_kept: np.floating[Any]
    gradient_limit: np.floating[Any]


class RegionArrays(NamedTuple):
    """Regions as bits; see `difftract_bids.core.regions.RegionBits`."""

    ras2vox: Float[Any, "grid 3 4"]
    shape: Int[Any, "grid 3"]
    first: Int[Any, " grid"]
    bits: Int[Any, " voxels"]
    spheres: Float[Any, "s 4"]
    sphere_bits: Int[Any, " s"]
    needed: int
    always: int


class TissueArrays(NamedTuple):
    """Tissue that streamlines obey; see `difftract_bids.core.anatomy.TissueTable`.

    Attributes
    ----------
    obeyed
        A tuple of one zero, or of none where no tissue is given: its length is known to the
        compiler, which then leaves out all that has to do with tissue.
    table
        Fractions, one row each; row 0 is all zeros.
    row
        Which row belongs to each voxel.
    surely_white
        Cells in all of which white matter prevails.
    ras2vox
        Affine from RAS+ millimetres to voxel coordinates, without its last row.
    """

    obeyed: tuple[int, ...]
    table: Float[Any, "row 5"]
    row: Int[Any, "x y z"]
    surely_white: Int[Any, "x y z"]
    ras2vox: Float[Any, "3 4"]


class Workspace(NamedTuple):
    """Memory of one thread.

    Attributes
    ----------
    tensor
        The fODF at the position looked up last.
    cotangent
        Derivatives by each component, in a backward pass.
    fraction
        Position within the cell, and 1 along each axis where it varies, else 0.
    cell
        Lowest corner of the cell whose rows are at hand.
    rows
        Rows of its eight corners.
    """

    tensor: Float[Any, " width"]
    cotangent: Float[Any, " width"]
    fraction: Float[Any, " 6"]
    cell: Int[Any, " 3"]
    rows: Int[Any, " 8"]
