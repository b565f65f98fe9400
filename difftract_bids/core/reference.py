"""The reference propagator: readable PyTorch, differentiable by plain autograd.

It follows the rules of ``tckgen`` (MRtrix3 3.0.3): what ends a streamline, in which order the
tests come, how vertices are counted, one half after the other. The kernels are tested against it,
and fields that they do not know are followed by it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from difftract_bids.core.anatomical_rules import TissueRules
from difftract_bids.core.anatomy import Anatomy, TissueTable, judge_seeds
from difftract_bids.core.damping import Damping
from difftract_bids.core.field import DirectionField
from difftract_bids.core.integrators import INTEGRATORS, StepRule
from difftract_bids.core.regions import EXCLUDED, IN_MASK, RegionBits, bits_at
from difftract_bids.core.rules import TrackingRules
from difftract_bids.core.streamlines import SeedStatus, StopReason, Streamlines, concatenate

#: Seeds tracked side by side: enough to keep vector instructions busy, few enough for the cache.
_SEEDS_PER_CHUNK = 16_384
_ENTERED_EXCLUDE = int(StopReason.ENTERED_EXCLUDE)
_ENTERED_CORTEX = int(StopReason.ENTERED_CORTEX)
_LEFT_DEEP_GREY = int(StopReason.LEFT_DEEP_GREY)


def track_by_reference(
    field: DirectionField,
    seeds_mm: Float[Tensor, "n 3"],
    starts: Float[Tensor, "n 3"],
    rules: TrackingRules,
    regions: RegionBits,
    anatomy: Anatomy | None = None,
) -> Streamlines:
    """Track seeds in chunks; see `difftract_bids.core.propagate.track_field`."""
    inputs = (seeds_mm, *field.parameters())
    keeps_graph = torch.is_grad_enabled() and any(given.requires_grad for given in inputs)
    # A graph holds all streamlines anyway, and each chunk costs it a pass over the whole image.
    size = max(len(seeds_mm), 1) if keeps_graph else _SEEDS_PER_CHUNK
    tissues = None if anatomy is None else anatomy.on(field.device)
    tracker = _Tracker(field, rules, regions, tissues)
    chunks = zip(torch.split(seeds_mm, size), torch.split(starts, size), strict=True)
    return concatenate([tracker.run(seeds.T, directions.T) for seeds, directions in chunks])


@dataclass(frozen=True)
class _State:
    """What the halves of each streamline leave behind."""

    vertices: Int[Tensor, " m"]
    visited: Int[Tensor, " m"]  # bits of the regions
    reason: Int[Tensor, "m 2"]
    rejected: Int[Tensor, " m"]  # `SeedStatus` for which an end rejects it
    one_way: Bool[Tensor, " m"]
    tissue: TissueRules


@dataclass(frozen=True)
class _Half:
    """New vertices, in the order in which they were made, and whose they are."""

    vertices_mm: Float[Tensor, "3 made"]
    owner: Int[Tensor, " made"]
    number: Int[Tensor, " made"]  # 1 for the first one after the seed

    def up_to(self, last: Int[Tensor, " m"]) -> _Half:
        """Leave the vertices out that come after the last one of each streamline."""
        kept = torch.nonzero(self.number <= last[self.owner]).squeeze(1)
        return _Half(self.vertices_mm[:, kept], self.owner[kept], self.number[kept])


@dataclass(frozen=True)
class _Tracker:
    field: DirectionField
    rules: TrackingRules
    regions: RegionBits
    tissues: TissueTable | None

    def run(self, seeds_mm: Float[Tensor, "3 n"], starts: Float[Tensor, "3 n"]) -> Streamlines:
        """Track one chunk of seeds."""
        with torch.no_grad():
            heading = self.field.heading(seeds_mm.detach(), starts)
            bits = bits_at(self.regions, seeds_mm)
            # A heading's reasons are a seed's too, with the same numbers.
            status, direction = heading.reason, heading.direction
            one_way = torch.full_like(status, self.rules.one_way, dtype=torch.bool)
            known = torch.zeros_like(status)
            if self.tissues is not None:
                seed = judge_seeds(self.tissues, seeds_mm, direction)
                turned = seed.one_way & ~one_way
                direction = torch.where(turned, seed.direction, direction)
                one_way, known = one_way | turned, seed.remembered
                unsuitable = int(SeedStatus.UNSUITABLE_TISSUE)
                status = torch.where(seed.suitable, status, unsuitable)
            status = torch.where(bits & EXCLUDED != 0, int(SeedStatus.EXCLUDED), status)
            status = torch.where(bits & IN_MASK == 0, int(SeedStatus.OUTSIDE_MASK), status)
        accepted = torch.nonzero(status == SeedStatus.KEPT).squeeze(1)
        origin, direction = seeds_mm[:, accepted], direction[:, accepted]
        ones = torch.ones_like(accepted)
        state = _State(
            vertices=ones,
            visited=bits[accepted],
            reason=torch.zeros_like(ones)[:, None].repeat(1, 2),
            rejected=torch.zeros_like(ones),
            one_way=one_way[accepted],
            tissue=TissueRules(self.tissues, known[accepted]),
        )
        halves = [self._follow(origin, direction, state, 0)]
        if not self.rules.one_way:
            halves.append(self._follow(origin, -direction, state, 1))
        return self._join(origin, halves, state, accepted, status)

    def _follow(
        self,
        origin: Float[Tensor, "3 m"],
        direction: Float[Tensor, "3 m"],
        state: _State,
        half: int,
    ) -> _Half:
        """Go one way from every seed that is not rejected yet, dropping those that end."""
        step_rule = StepRule(self.field, self.rules.step_size_mm, self.rules.cos_max_angle)
        state.tissue.start_half()
        goes = (state.rejected == 0) & ~(state.one_way & (half == 1))
        lane = torch.nonzero(goes).squeeze(1)
        position, direction = origin[:, lane], direction[:, lane]
        damping = Damping(self.rules, len(state.vertices))
        _, position = damping.apart(position, lane)
        made, owners, numbers = [position[:, :0]], [lane[:0]], [lane[:0]]
        number = 0
        while len(lane):
            number += 1
            step = INTEGRATORS[self.rules.integrator](step_rule, position, direction)
            bits = bits_at(self.regions, step.position_mm)
            why = state.tissue.after_step(lane, step.position_mm, step.reason)
            excluded = (why == 0) & (bits & EXCLUDED != 0)
            left_mask = (why == 0) & (bits & IN_MASK == 0)
            why = torch.where(excluded, _ENTERED_EXCLUDE, why)
            why = torch.where(left_mask, int(StopReason.LEFT_MASK), why)
            state.reason[lane, half] = why
            added = torch.nonzero((why == 0) | (why == _ENTERED_CORTEX)).squeeze(1)
            lane, position = lane[added], step.position_mm[:, added]
            state.vertices[lane] += 1
            vertex, position = damping.apart(position, lane)
            made.append(vertex)
            owners.append(lane)
            numbers.append(torch.full_like(lane, number))
            going = torch.nonzero(why[added] == 0).squeeze(1)
            lane, position = lane[going], position[:, going]
            state.visited[lane] |= bits[added][going]
            why = self._reason_after(state, lane)
            state.reason[lane, half] = why
            going_on = torch.nonzero(why == 0).squeeze(1)
            lane, position = lane[going_on], position[:, going_on]
            direction = step.direction[:, added][:, going][:, going_on]
        result = _Half(torch.cat(made, dim=1), torch.cat(owners), torch.cat(numbers))
        ends = state.tissue.rejects(state.reason[:, half])
        state.rejected.copy_(torch.where(state.rejected == 0, ends, state.rejected))
        return self._cut_back(result, origin, state, half)

    def _cut_back(
        self, made: _Half, origin: Float[Tensor, "3 m"], state: _State, half: int
    ) -> _Half:
        """Cut those that left deep grey matter back to their weakest vertex in it."""
        cut = state.reason[:, half] == _LEFT_DEEP_GREY
        strength = getattr(self.field, "strength", None)
        if strength is None or not bool(cut.any()):
            return made
        lane, number = made.owner, made.number
        count = torch.zeros_like(state.vertices).index_add(0, lane, torch.ones_like(lane))
        deep = cut[lane] & (number > (count - state.tissue.depth)[lane])
        some = torch.nonzero(deep).squeeze(1)
        with torch.no_grad():
            order = torch.argsort(lane * (len(lane) + 1) + number)
            place = torch.empty_like(order)
            place[order] = torch.arange(len(order), device=order.device)
            before = made.vertices_mm[:, order[(place[some] - 1).clamp(min=0)]]
            before = torch.where(number[some] == 1, origin[:, lane[some]], before)
            here = made.vertices_mm[:, some]
            along = here - before
            along = along / torch.sqrt((along * along).sum(0))
            found = strength(here, along)
        mine, number = lane[some], number[some]
        least = found.new_full((len(cut),), torch.inf).scatter_reduce(0, mine, found, "amin")
        # The first of them where there are several.
        number = torch.where(found == least[mine], number, len(lane) + 1)
        last = torch.full_like(count, len(lane) + 1).scatter_reduce(0, mine, number, "amin")
        state.vertices.copy_(state.vertices - torch.where(cut, count - last, 0))
        return made.up_to(last)

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
        seed_vertex = torch.where(state.one_way, 0, lengths)
        seed_slot = ends - count + seed_vertex
        signs = (torch.where(state.one_way, 1, -1), torch.ones_like(lengths))
        slots, sources = [seed_slot[kept]], [origin_mm[:, kept]]
        for sign, half in zip(signs, halves, strict=False):
            wanted = kept[half.owner]
            slots.append((seed_slot[half.owner] + sign[half.owner] * half.number)[wanted])
            sources.append(half.vertices_mm[:, wanted])
        order = torch.cat(slots).argsort()
        reason = torch.where(state.one_way[:, None], state.reason.flip(1), state.reason)
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
            (state.tissue.never_left(), SeedStatus.STAYED_IN_DEEP_GREY),
            (too_short, SeedStatus.TOO_SHORT),
            (too_short & (state.vertices == 1), SeedStatus.SINGLE_VERTEX),
        ):
            fate = torch.where(applies, int(why), fate)
        return torch.where(state.rejected != 0, state.rejected, fate)
