"""What the kernels can be asked for, and who does it on which device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from difftract_bids.config import Integrator
from difftract_bids.core.anatomy import Anatomy
from difftract_bids.core.kernels.layout import FieldArrays, RegionArrays, Rules, TissueArrays
from difftract_bids.core.kernels.step import EULER, MIDPOINT, RK4, RK4_CLASSIC
from difftract_bids.core.peaks import SEARCH_TOLERANCE
from difftract_bids.core.regions import RegionBits
from difftract_bids.core.rules import TrackingRules

_INTEGRATORS: dict[Integrator, int] = {
    "euler": EULER,
    "midpoint": MIDPOINT,
    "rk4": RK4,
    "rk4_classic": RK4_CLASSIC,
}


@dataclass(frozen=True)
class Job:
    """All that tracking depends on and that has no derivative.

    Attributes
    ----------
    lmax
        Degree of the fODFs.
    row
        Which row of their table belongs to each voxel.
    ras2vox
        Affine from RAS+ millimetres to voxel coordinates.
    rules, regions
        How to go, when to stop, where to go.
    anatomy
        Tissue to obey, if any.
    """

    lmax: int
    row: Int[Tensor, "x y z"]
    ras2vox: Float[Tensor, "4 4"]
    rules: TrackingRules
    regions: RegionBits
    anatomy: Anatomy | None = None

    def kernel_rules(self, dtype: torch.dtype) -> Rules:
        """Give the rules in the numbers that the kernels compute with."""
        real = np.float32 if dtype == torch.float32 else np.float64
        rules = self.rules
        return Rules(
            integrator=_INTEGRATORS[rules.integrator],
            step_size_mm=real(rules.step_size_mm),
            cos_max_angle=real(rules.cos_max_angle),
            cutoff=real(rules.cutoff),
            tolerance=real(rules.peak_tolerance),
            coarse=real(max(rules.peak_tolerance, SEARCH_TOLERANCE)),
            min_vertices=rules.min_vertices,
            max_vertices=rules.max_vertices,
            one_way=rules.one_way,
            stop_at_includes=rules.stop_at_includes,
            gradient_kept=real(rules.gradient_kept),
            gradient_limit=real(rules.gradient_limit),
        )


class PulledBack(NamedTuple):
    """Derivatives by what streamlines depend on.

    Attributes
    ----------
    table
        By the fODFs.
    seeds
        By the seed of each streamline.
    growth
        Length of the derivative by the seed, over the summed lengths of those by the vertices.
    bounded
        How many peaks had a curvature that had to be bounded.
    """

    table: Float[Tensor, "row width"]
    seeds: Float[Tensor, "n 3"]
    growth: Float[Tensor, " n"]
    bounded: int


class Backend(Protocol):
    """The kernels on one kind of device."""

    def trace(
        self,
        job: Job,
        table: Float[Tensor, "row width"],
        seeds_mm: Float[Tensor, "n 3"],
        starts: Float[Tensor, "n 3"],
    ) -> tuple[Float[Tensor, "p 3"], Int[Tensor, "n 5"]]:
        """Track every seed.

        Returns
        -------
        points, fates
            Vertices of the streamlines kept, one after another; of every seed, its `SeedStatus`
            and, where kept, number of vertices, place of the seed, `StopReason` at both ends.
        """
        ...

    def pull_back(
        self,
        job: Job,
        table: Float[Tensor, "row width"],
        points: Float[Tensor, "p 3"],
        offsets: Int[Tensor, " n+1"],
        seed_vertex: Int[Tensor, " n"],
        starts: Float[Tensor, "n 3"],
        cotangent: Float[Tensor, "p 3"],
    ) -> PulledBack:
        """Pass derivatives by vertices on to the fODFs and the seeds."""
        ...

    def amplitudes(
        self,
        job: Job,
        table: Float[Tensor, "row width"],
        points: Float[Tensor, "p 3"],
        offsets: Int[Tensor, " n+1"],
    ) -> Float[Tensor, " p"]:
        """Find the amplitude of the peak followed at each vertex; ∞ at both ends."""
        ...

    def pull_back_amplitudes(
        self,
        job: Job,
        table: Float[Tensor, "row width"],
        points: Float[Tensor, "p 3"],
        offsets: Int[Tensor, " n+1"],
        cotangent: Float[Tensor, " p"],
    ) -> tuple[Float[Tensor, "row width"], Float[Tensor, "p 3"]]:
        """Pass derivatives by amplitudes on to the fODFs and the vertices."""
        ...


def backend_for(table: Tensor) -> Backend:
    """Choose the backend of the device that the fODFs are on."""
    if table.device.type == "cuda":
        from difftract_bids.core.kernels.cuda import CudaBackend

        return CudaBackend()
    from difftract_bids.core.kernels.cpu import CpuBackend

    return CpuBackend()


def field_arrays(job: Job, table: object, row: object, ras2vox: object) -> FieldArrays:
    """Group the arrays of an fODF, in whatever form a target takes arrays."""
    return FieldArrays((0,) * job.lmax, table, row, ras2vox)


def region_arrays(job: Job, convert: object) -> RegionArrays:
    """Group the arrays of regions, converted for a target."""
    fields = (convert(item) if isinstance(item, Tensor) else item for item in job.regions)  # type: ignore[operator]
    return RegionArrays(*fields)


def tissue_arrays(job: Job, convert: Callable[[Tensor], Any]) -> TissueArrays:
    """Group the arrays of the tissue to obey, converted for a target; tiny ones if there is none.

    All are on the device that tracking is on.
    """
    if job.anatomy is None:
        device = job.row.device
        number = torch.zeros(1, 1, 1, dtype=torch.int32, device=device)
        flag = torch.zeros(1, 1, 1, dtype=torch.uint8, device=device)
        table = torch.zeros(1, 5, device=device)
        affine = torch.zeros(3, 4, dtype=torch.float64, device=device)
        return TissueArrays((), *map(convert, (table, number, flag, affine)))
    tissues = job.anatomy.on(job.row.device)
    flags = tissues.surely_white.view(torch.uint8)
    given = (tissues.table, tissues.row, flags, tissues.ras2vox[:3])
    return TissueArrays((0,), *map(convert, given))
