"""The reference propagator: readable PyTorch, differentiable by plain autograd.

It follows the rules of ``tckgen`` (MRtrix3 3.0.3): what ends a streamline, in which order the
tests come, how vertices are counted, one half after the other. The kernels are tested against it,
and fields that they do not know are followed by it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from difftract_bids.core.damping import Damping
from difftract_bids.core.field import DirectionField
from difftract_bids.core.integrators import INTEGRATORS, StepRule
from difftract_bids.core.regions import EXCLUDED, IN_MASK, RegionBits, bits_at
from difftract_bids.core.rules import TrackingRules
from difftract_bids.core.streamlines import SeedStatus, StopReason, Streamlines, concatenate

#: Seeds tracked side by side: enough to keep vector instructions busy, few enough for the cache.
_SEEDS_PER_CHUNK = 16_384
_ENTERED_EXCLUDE = int(StopReason.ENTERED_EXCLUDE)


def track_by_reference(
    field: DirectionField,
    seeds_mm: Float[Tensor, "n 3"],
    starts: Float[Tensor, "n 3"],
    rules: TrackingRules,
    regions: RegionBits,
) -> Streamlines:
    """Track seeds in chunks; see `difftract_bids.core.propagate.track_field`."""
    inputs = (seeds_mm, *field.parameters())
    keeps_graph = torch.is_grad_enabled() and any(given.requires_grad for given in inputs)
    # A graph holds all streamlines anyway, and each chunk costs it a pass over the whole image.
    size = max(len(seeds_mm), 1) if keeps_graph else _SEEDS_PER_CHUNK
    tracker = _Tracker(field, rules, regions)
    chunks = zip(torch.split(seeds_mm, size), torch.split(starts, size), strict=True)
    return concatenate([tracker.run(seeds.T, directions.T) for seeds, directions in chunks])


@dataclass(frozen=True)
class _State:
    """What the halves of each streamline leave behind."""

    vertices: Int[Tensor, " m"]
    visited: Int[Tensor, " m"]  # bits of the regions
    reason: Int[Tensor, "m 2"]


@dataclass(frozen=True)
class _Half:
    """New vertices, in the order in which they were made, and whose they are."""

    vertices_mm: Float[Tensor, "3 made"]
    owner: Int[Tensor, " made"]
    number: Int[Tensor, " made"]  # 1 for the first one after the seed


@dataclass(frozen=True)
class _Tracker:
    field: DirectionField
    rules: TrackingRules
    regions: RegionBits

    def run(self, seeds_mm: Float[Tensor, "3 n"], starts: Float[Tensor, "3 n"]) -> Streamlines:
        """Track one chunk of seeds."""
        with torch.no_grad():
            heading = self.field.heading(seeds_mm.detach(), starts)
            bits = bits_at(self.regions, seeds_mm)
            # A heading's reasons are a seed's too, with the same numbers.
            status = torch.where(bits & EXCLUDED != 0, int(SeedStatus.EXCLUDED), heading.reason)
            status = torch.where(bits & IN_MASK == 0, int(SeedStatus.OUTSIDE_MASK), status)
        accepted = torch.nonzero(status == SeedStatus.KEPT).squeeze(1)
        origin, direction = seeds_mm[:, accepted], heading.direction[:, accepted]
        ones = torch.ones_like(accepted)
        state = _State(ones, bits[accepted], torch.zeros_like(ones)[:, None].repeat(1, 2))
        halves = [self._follow(origin, direction, state, 0)]
        if not self.rules.one_way:
            halves.append(self._follow(origin, -direction, state, 1))
        return self._join(origin, halves, state, accepted, status)

    def _follow(
        self,
        position: Float[Tensor, "3 m"],
        direction: Float[Tensor, "3 m"],
        state: _State,
        half: int,
    ) -> _Half:
        """Go one way from every seed that is not rejected yet, dropping those that end."""
        step_rule = StepRule(self.field, self.rules.step_size_mm, self.rules.cos_max_angle)
        lane = torch.nonzero((state.reason != _ENTERED_EXCLUDE).all(1)).squeeze(1)
        position, direction = position[:, lane], direction[:, lane]
        damping = Damping(self.rules, len(state.vertices))
        _, position = damping.apart(position, lane)
        made, owners, numbers = [position[:, :0]], [lane[:0]], [lane[:0]]
        number = 0
        while len(lane):
            number += 1
            step = INTEGRATORS[self.rules.integrator](step_rule, position, direction)
            bits = bits_at(self.regions, step.position_mm)
            why = torch.where(bits & EXCLUDED != 0, _ENTERED_EXCLUDE, 0)
            why = torch.where(bits & IN_MASK == 0, int(StopReason.LEFT_MASK), why)
            why = torch.where(step.reason != 0, step.reason, why)
            state.reason[lane, half] = why
            going = torch.nonzero(why == 0).squeeze(1)
            lane, position = lane[going], step.position_mm[:, going]
            state.vertices[lane] += 1
            state.visited[lane] |= bits[going]
            vertex, position = damping.apart(position, lane)
            made.append(vertex)
            owners.append(lane)
            numbers.append(torch.full_like(lane, number))
            why = self._reason_after(state, lane)
            state.reason[lane, half] = why
            going_on = torch.nonzero(why == 0).squeeze(1)
            lane, position = lane[going_on], position[:, going_on]
            direction = step.direction[:, going][:, going_on]
        return _Half(torch.cat(made, dim=1), torch.cat(owners), torch.cat(numbers))

    def _reason_after(self, state: _State, lane: Int[Tensor, " k"]) -> Int[Tensor, " k"]:
        """Test what is tested after a vertex was added; both halves' vertices count."""
        full = state.vertices[lane] >= self.rules.max_vertices
        why = torch.where(full, int(StopReason.MAX_LENGTH), 0)
        if not self.rules.stop_at_includes:
            return why
        needed = self.regions.needed
        return torch.where(
            state.visited[lane] & needed == needed, int(StopReason.ALL_INCLUDED), why
        )

    def _join(
        self,
        origin_mm: Float[Tensor, "3 m"],
        halves: list[_Half],
        state: _State,
        accepted: Int[Tensor, " m"],
        status: Int[Tensor, " n"],
    ) -> Streamlines:
        """Put the halves together, the first one backwards, and leave the rejected ones out."""
        fate = self._fate(state)
        kept = fate == SeedStatus.KEPT
        count = torch.where(kept, state.vertices, 0)
        ends = count.cumsum(0)
        lengths = torch.zeros_like(count).index_add(
            0, halves[0].owner, torch.ones_like(halves[0].owner)
        )
        seed_vertex = torch.zeros_like(lengths) if self.rules.one_way else lengths
        seed_slot = ends - count + seed_vertex
        signs = (1,) if self.rules.one_way else (-1, 1)
        slots, sources = [seed_slot[kept]], [origin_mm[:, kept]]
        for sign, half in zip(signs, halves, strict=True):
            wanted = kept[half.owner]
            slots.append((seed_slot[half.owner] + sign * half.number)[wanted])
            sources.append(half.vertices_mm[:, wanted])
        order = torch.cat(slots).argsort()
        reason = state.reason.flip(1) if self.rules.one_way else state.reason
        return Streamlines(
            points=torch.cat(sources, dim=1)[:, order].T.contiguous(),
            offsets=torch.cat([ends.new_zeros(1), ends[kept]]),
            seed_index=accepted[kept],
            seed_vertex=seed_vertex[kept],
            stop_reason=reason[kept],
            seed_status=status.index_put((accepted,), fate),
        )

    def _fate(self, state: _State) -> Int[Tensor, " m"]:
        """Say what becomes of each streamline, the last rule that applies first in MRtrix."""
        needed = self.regions.needed
        too_short = state.vertices < self.rules.min_vertices
        fate = torch.zeros_like(state.vertices)
        for applies, why in (
            (state.visited & needed != needed, SeedStatus.MISSED_INCLUDE),
            (too_short, SeedStatus.TOO_SHORT),
            (too_short & (state.vertices == 1), SeedStatus.SINGLE_VERTEX),
            ((state.reason == _ENTERED_EXCLUDE).any(1), SeedStatus.EXCLUDED),
        ):
            fate = torch.where(applies, int(why), fate)
        return fate
