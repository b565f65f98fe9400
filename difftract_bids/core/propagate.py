"""The reference propagator: readable PyTorch, differentiable by plain autograd.

It follows the rules of ``tckgen -algorithm SD_STREAM`` (MRtrix3 3.0.3): what ends a streamline, in
which order the tests come, how vertices are counted. Vertices keep MRtrix's order too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from difftract_bids.config import TrackingConfig
from difftract_bids.core.field import UNFINISHED, FodfField
from difftract_bids.core.integrators import INTEGRATORS, StepRule
from difftract_bids.core.interpolation import Grid
from difftract_bids.core.streamlines import SeedStatus, StopReason, Streamlines, concatenate
from difftract_bids.errors import FodfError, SeedError

#: Seeds tracked side by side: enough to keep vector instructions busy, few enough for the cache.
_SEEDS_PER_CHUNK = 16_384
#: Peak searches end after two updates on average; those beyond this number wait for each other.
_QUICK_ITERATIONS = 6


def track(
    fodf: Float[Tensor, "x y z coeff"],
    seeds_mm: Float[Tensor, "n 3"],
    directions: Float[Tensor, "n 3"],
    vox2ras: Float[Tensor, "4 4"],
    config: TrackingConfig,
    mask: Bool[Tensor, "x y z"] | None = None,
) -> Streamlines:
    """Follow fODF peaks from each seed, both ways, by ``config.integrator``.

    Differentiable in ``fodf`` and ``seeds_mm`` wherever these require it: each vertex depends on
    the peaks before it, and peaks by the implicit function theorem on the fODF and on their
    position. What ends a streamline is a decision, and has no derivative.

    Parameters
    ----------
    fodf
        Even SH coefficients in MRtrix's basis, float32 or float64. Voxels of zeros are outside.
    seeds_mm
        Where to start, RAS+ millimetres.
    directions
        Where the first peak search starts, scanner axes; not necessarily of unit length.
    vox2ras
        Affine from voxels to RAS+ millimetres.
    config
        Settings; ``None`` in them means MRtrix's default.
    mask
        Where streamlines may go (nearest voxel), on the fODF's grid.

    Returns
    -------
    Streamlines
        The streamlines long enough, in the dtype and on the device of ``fodf``; possibly none.

    Raises
    ------
    FodfError
        If the fODF, its affine or the mask cannot be used.
    SeedError
        If seeds or directions have another shape, dtype or device, or are not finite; the message
        counts them.

    References
    ----------
    Tournier et al. 2012, doi:10.1002/ima.22005, section 2.3.
    """
    _check_mask(mask, fodf)
    _check_seeds(seeds_mm, directions, fodf)
    settings = config.resolve(mean_voxel_size_mm(vox2ras))
    field = FodfField.from_fodf(
        fodf,
        vox2ras,
        cutoff=_known(settings.cutoff),
        peak_tolerance=settings.peak_tolerance,
    )
    tracker = _Tracker.from_settings(field, settings, mask)
    # A graph holds all streamlines anyway, and each chunk costs it a pass over the whole image.
    keeps_graph = torch.is_grad_enabled() and (fodf.requires_grad or seeds_mm.requires_grad)
    size = max(len(seeds_mm), 1) if keeps_graph else _SEEDS_PER_CHUNK
    units = directions.detach() / torch.linalg.vector_norm(directions.detach(), dim=1)[:, None]
    chunks = zip(torch.split(seeds_mm, size), torch.split(units, size), strict=True)
    result = concatenate([tracker.run(seeds.T, starts.T) for seeds, starts in chunks])
    if keeps_graph and not result.points.requires_grad:
        # Every seed was rejected: still a part of the graph, so that a training loop goes on.
        return replace(result, points=result.points + 0 * (fodf.sum() + seeds_mm.sum()))
    return result


class StreamlinePropagator(nn.Module):
    """`track` as a module, to stand behind a network that predicts fODFs.

    Parameters
    ----------
    config
        Settings; MRtrix's defaults if left out.
    """

    def __init__(self, config: TrackingConfig | None = None) -> None:
        super().__init__()
        self.config = config or TrackingConfig()

    def forward(
        self,
        fodf: Float[Tensor, "x y z coeff"],
        seeds_mm: Float[Tensor, "n 3"],
        directions: Float[Tensor, "n 3"],
        vox2ras: Float[Tensor, "4 4"],
        mask: Bool[Tensor, "x y z"] | None = None,
    ) -> Streamlines:
        """Call `track` with the module's settings."""
        return track(fodf, seeds_mm, directions, vox2ras, self.config, mask)

    def extra_repr(self) -> str:
        """Show the settings when the module is printed."""
        return repr(self.config)


class _Lanes(NamedTuple):
    """Streamline halves on their way."""

    position_mm: Float[Tensor, "3 n"]
    direction: Float[Tensor, "3 n"]
    lane: Int[Tensor, " n"]

    def select(self, which: Int[Tensor, " k"]) -> _Lanes:
        return _Lanes(self.position_mm[:, which], self.direction[:, which], self.lane[which])

    def join(self, others: _Lanes) -> _Lanes:
        pairs = zip(self, others, strict=True)
        return _Lanes(*(torch.cat(pair, dim=-1) for pair in pairs))


@dataclass(frozen=True)
class _Halves:
    """The two halves of each seed's streamline, before they are joined.

    Half ``i`` of ``m`` seeds is lane ``i``, the opposite half lane ``m + i``.
    """

    steps: Int[Tensor, " lanes"]
    reason: Int[Tensor, " lanes"]
    vertices_mm: Float[Tensor, "3 made"]
    lane: Int[Tensor, " made"]
    number: Int[Tensor, " made"]  # 1 for the first vertex after the seed


@dataclass(frozen=True)
class _Tracker:
    field: FodfField
    rule: StepRule
    quick_rule: StepRule
    settings: TrackingConfig
    mask: Bool[Tensor, " voxel"] | None
    min_vertices: int
    max_vertices: int

    @classmethod
    def from_settings(
        cls, field: FodfField, settings: TrackingConfig, mask: Bool[Tensor, "x y z"] | None
    ) -> _Tracker:
        step = _known(settings.step_size_mm)
        cosine = math.cos(math.radians(_known(settings.max_angle_deg)))
        quick = replace(field, search_iterations=_QUICK_ITERATIONS)
        return cls(
            field=field,
            rule=StepRule(field, step, cosine),
            quick_rule=StepRule(quick, step, cosine),
            settings=settings,
            mask=None if mask is None else mask.reshape(-1),
            min_vertices=1 + _ceil_ratio(_known(settings.min_length_mm), step),
            max_vertices=3 + _ceil_ratio(_known(settings.max_length_mm), step),
        )

    def run(self, seeds_mm: Float[Tensor, "3 n"], starts: Float[Tensor, "3 n"]) -> Streamlines:
        """Track one chunk of seeds."""
        with torch.no_grad():
            heading = self.field.heading(seeds_mm.detach(), starts)
            status = _seed_status(heading.reason)
            outside = ~self._in_mask(seeds_mm.detach())
            status = torch.where(outside, int(SeedStatus.OUTSIDE_MASK), status)
        accepted = torch.nonzero(status == SeedStatus.KEPT).squeeze(1)
        origin = seeds_mm[:, accepted]
        halves = self._propagate(origin, heading.direction[:, accepted])
        return self._join(origin, halves, accepted, status)

    def _propagate(
        self, origin_mm: Float[Tensor, "3 m"], direction: Float[Tensor, "3 m"]
    ) -> _Halves:
        """Follow both halves side by side, dropping lanes as they end.

        Only the largest length ties the halves to each other, and `_join` sees to that. The few
        lanes whose peak search is long would hold up all others, so they wait for company.
        """
        m = origin_mm.shape[1]
        lanes = torch.arange(2 * m, device=origin_mm.device)
        ready = _Lanes(origin_mm.repeat(1, 2), torch.cat([direction, -direction], dim=1), lanes)
        waiting = ready.select(lanes[:0])
        steps, reason = torch.zeros_like(lanes), torch.zeros_like(lanes)
        vertices, owners, numbers = [origin_mm[:, :0]], [lanes[:0]], [steps[:0]]
        while len(ready.lane) or len(waiting.lane):
            patient = len(waiting.lane) > len(ready.lane)
            lanes_now, others = (waiting, ready) if patient else (ready, waiting)
            moved, why = self._advance(lanes_now, patient=patient)
            reason[moved.lane] = why
            going = moved.select(torch.nonzero(why == 0).squeeze(1))
            steps[going.lane] += 1
            vertices.append(going.position_mm)
            owners.append(going.lane)
            numbers.append(steps[going.lane])
            going = going.select(
                torch.nonzero(steps[going.lane] < self.max_vertices - 1).squeeze(1)
            )
            held_up = lanes_now.select(torch.nonzero(why == UNFINISHED).squeeze(1))
            ready = others.join(going) if patient else going
            waiting = held_up if patient else others.join(held_up)
        return _Halves(
            steps=steps,
            reason=reason,
            vertices_mm=torch.cat(vertices, dim=1),
            lane=torch.cat(owners),
            number=torch.cat(numbers),
        )

    def _advance(self, lanes: _Lanes, *, patient: bool) -> tuple[_Lanes, Int[Tensor, " n"]]:
        """Make one step in each lane, and tell why where one cannot."""
        rule = self.rule if patient else self.quick_rule
        step = INTEGRATORS[self.settings.integrator](rule, lanes.position_mm, lanes.direction)
        left = (step.reason == 0) & ~self._in_mask(step.position_mm.detach())
        why = torch.where(left, int(StopReason.LEFT_MASK), step.reason)
        return _Lanes(step.position_mm, step.direction, lanes.lane), why

    def _join(
        self,
        origin_mm: Float[Tensor, "3 m"],
        halves: _Halves,
        accepted: Int[Tensor, " m"],
        status: Int[Tensor, " n"],
    ) -> Streamlines:
        """Put the halves together, cut at the largest length, and reject what is too short."""
        m = len(accepted)
        first, second = halves.steps[:m], halves.steps[m:]
        # MRtrix counts vertices over both halves and tests after adding one: if the first half
        # has used the length up, the second still adds one vertex.
        room = (self.max_vertices - 1 - first).clamp(min=1)
        reason = torch.stack(
            [
                torch.where(
                    first >= self.max_vertices - 1, int(StopReason.MAX_LENGTH), halves.reason[:m]
                ),
                torch.where(second >= room, int(StopReason.MAX_LENGTH), halves.reason[m:]),
            ],
            dim=1,
        )
        second = torch.minimum(second, room)
        count = 1 + first + second
        fate = torch.where(count < self.min_vertices, int(SeedStatus.TOO_SHORT), 0)
        fate = torch.where(count == 1, int(SeedStatus.SINGLE_VERTEX), fate)
        kept = fate == SeedStatus.KEPT
        count = torch.where(kept, count, 0)
        ends = count.cumsum(0)

        # Where each vertex goes: the first half backwards, the seed, the second half.
        seed_slot = ends - count + first
        side = torch.where(halves.lane < m, -1, 1)
        owner = halves.lane % max(m, 1)
        wanted = kept[owner] & ((side < 0) | (halves.number <= second[owner]))
        slot = torch.cat([seed_slot[kept], (seed_slot[owner] + side * halves.number)[wanted]])
        candidates = torch.cat(
            [torch.nonzero(kept).squeeze(1), m + torch.nonzero(wanted).squeeze(1)]
        )
        source = torch.empty_like(slot)
        source[slot] = candidates
        points = torch.cat([origin_mm, halves.vertices_mm], dim=1)[:, source].T

        status = status.index_put((accepted,), fate)
        return Streamlines(
            points=points.contiguous(),
            offsets=torch.cat([ends.new_zeros(1), ends[kept]]),
            seed_index=accepted[kept],
            seed_vertex=first[kept],
            stop_reason=reason[kept],
            seed_status=status,
        )

    def _in_mask(self, position_mm: Float[Tensor, "3 n"]) -> Bool[Tensor, " n"]:
        if self.mask is None:
            return torch.ones_like(position_mm[0], dtype=torch.bool)
        grid: Grid = self.field.grid
        voxel = grid.to_voxel(position_mm)
        return grid.contains(voxel) & self.mask[grid.nearest(voxel)]


def _seed_status(reason: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Say of a seed what a heading says of a position."""
    same = {
        StopReason.OUTSIDE_IMAGE: SeedStatus.OUTSIDE_IMAGE,
        StopReason.NO_PEAK: SeedStatus.NO_PEAK,
        StopReason.BELOW_CUTOFF: SeedStatus.BELOW_CUTOFF,
    }
    status = torch.full_like(reason, int(SeedStatus.KEPT))
    for why, seed_status in same.items():
        status = torch.where(reason == why, int(seed_status), status)
    return status


def _ceil_ratio(length_mm: float, step_size_mm: float) -> int:
    """Count steps as MRtrix does, in float32, where 100 / 0.1 is exactly 1000."""
    return math.ceil(np.float32(length_mm) / np.float32(step_size_mm))


def mean_voxel_size_mm(vox2ras: Tensor) -> float:
    """Cube root of the voxel volume; 1 for an affine that `Grid` will refuse."""
    if vox2ras.shape != (4, 4):
        return 1.0
    sizes = torch.linalg.vector_norm(vox2ras.detach().double()[:3, :3], dim=0)
    size = float(sizes.prod()) ** (1 / 3)
    return size if math.isfinite(size) and size > 0 else 1.0


def _known(value: float | None) -> float:
    if value is None:  # pragma: no cover - resolve() fills every None
        message = "settings were not resolved"
        raise ValueError(message)
    return value


def _check_mask(mask: Tensor | None, fodf: Tensor) -> None:
    if mask is None:
        return
    if mask.shape != fodf.shape[:3] or mask.dtype != torch.bool or mask.device != fodf.device:
        raise FodfError(
            f"The mask is {mask.dtype} {tuple(mask.shape)} on {mask.device}; it must be "
            f"torch.bool {tuple(fodf.shape[:3])} on {fodf.device}, like the fODF.",
            where="mask",
            remedy="Resample it to the fODF's grid and compare it with zero.",
        )


def _check_seeds(seeds_mm: Tensor, directions: Tensor, fodf: Tensor) -> None:
    for name, given in (("seeds_mm", seeds_mm), ("directions", directions)):
        if given.ndim != 2 or given.shape[1] != 3 or len(given) != len(seeds_mm):
            raise SeedError(
                f"{name} has the shape {tuple(given.shape)}; one row of three numbers for each "
                "seed is needed.",
                where=name,
                remedy="Give as many directions as seeds, each as (x, y, z).",
            )
        if given.dtype != fodf.dtype or given.device != fodf.device:
            raise SeedError(
                f"{name} is {given.dtype} on {given.device}, the fODF {fodf.dtype} on "
                f"{fodf.device}.",
                where=name,
                remedy=f"Convert it: {name}.to(fodf).",
            )
        bad = int((~torch.isfinite(given.detach())).any(1).sum())
        if bad:
            raise SeedError(
                f"{bad} of {len(given)} rows of {name} are not finite.",
                where=name,
                remedy="Leave them out.",
            )
    zero = int((directions.detach() == 0).all(1).sum())
    if zero:
        raise SeedError(
            f"{zero} of {len(directions)} directions are zero.",
            where="directions",
            remedy="A peak search needs somewhere to start: give any unit vector.",
        )
