"""How close to its threshold a stop was that two programs decided differently."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from parity import Pair, common_part_agrees, whole_agrees

from difftract_bids.config import TrackingConfig
from difftract_bids.core.field import FodfField, Heading
from difftract_bids.core.integrators import INTEGRATORS, StepRule
from difftract_bids.core.interpolation import interpolate
from difftract_bids.core.peaks import (
    SEARCH_ITERATIONS,
    SEARCH_TOLERANCE,
    _line_search,
    find_peaks,
)
from difftract_bids.core.rules import TrackingRules
from difftract_bids.core.sh import n_coefficients
from difftract_bids.core.tensor_form import contract

#: A search that takes more updates than this wanders: the mean is 1.8, the cap 50.
LONG_SEARCH = 20


class Decision(NamedTuple):
    """Where the shorter of two streamlines stopped, in our run and in float64.

    Attributes
    ----------
    amplitude
        Peak amplitude less the cutoff; of several peaks in a step, the one nearest to it.
    cosine
        Cosine of the angle turned, less the cosine of the largest angle.
    updates
        Of the longest peak search of the step.
    last_update_rad
        The last one of that search: below 1e-4 it had converged, else it was at its cap.
    to_edge_mm
        To the nearest face of the voxel that decides whether a position is inside.
    """

    amplitude: float
    cosine: float
    updates: int
    last_update_rad: float
    to_edge_mm: float

    def kind(self) -> str:
        """Name what was closest to tipping over."""
        if self.updates > LONG_SEARCH:
            return "search"
        margins = {
            "amplitude": abs(self.amplitude),
            "angle": abs(self.cosine),
            "edge": self.to_edge_mm,
        }
        return min(margins, key=margins.__getitem__)

    def margin(self) -> float:
        """Distance of what decided from its threshold; of a search, radians."""
        return {
            "search": abs(self.last_update_rad - SEARCH_TOLERANCE),
            "amplitude": abs(self.amplitude),
            "angle": abs(self.cosine),
            "edge": self.to_edge_mm,
        }[self.kind()]


def decisions(
    pairs: list[Pair],
    starts: torch.Tensor,
    fodf: torch.Tensor,
    vox2ras: torch.Tensor,
    config: TrackingConfig,
) -> list[Decision]:
    """Look into every stop of pairs that agree as far as both go, but not in where they end.

    Parameters
    ----------
    pairs
        None of ours lost: track without a smallest length.
    starts
        Direction of each pair's seed.
    """
    places, befores = [], []
    for pair, start in zip(pairs, starts.numpy(), strict=True):
        if whole_agrees(pair) or not common_part_agrees(pair):
            continue
        for sign, (ours, theirs) in zip((1, -1), pair.halves(), strict=True):
            n = min(len(ours), len(theirs))
            if len(ours) != len(theirs):
                places.append(ours[n - 1])
                befores.append(ours[n - 1] - ours[n - 2] if n > 1 else sign * start)
    if not places:
        return []
    position, before = (
        torch.from_numpy(np.array(rows, dtype=np.float64)).T for rows in (places, befores)
    )
    return _look(fodf, vox2ras, config, position, before / before.norm(dim=0))


def table(found: list[Decision]) -> str:
    """Median, 95th percentile and maximum of the distances, one line a kind."""
    lines = ["decided by    n    median       95%       max"]
    for kind in ("amplitude", "angle", "edge", "search"):
        margins = [decision.margin() for decision in found if decision.kind() == kind]
        if margins:
            numbers = (np.median(margins), np.percentile(margins, 95), max(margins))
            lines.append(f"{kind:<9} {len(margins):5d} " + " ".join(f"{x:9.2e}" for x in numbers))
    capped = sum(decision.updates == SEARCH_ITERATIONS for decision in found)
    return "\n".join([*lines, f"searches at their cap of {SEARCH_ITERATIONS}: {capped}"])


@dataclass
class _Watched:
    """A field that takes note of what its headings were decided by."""

    field: FodfField
    amplitudes: list[torch.Tensor] = field(default_factory=list)
    directions: list[torch.Tensor] = field(default_factory=list)
    updates: list[torch.Tensor] = field(default_factory=list)
    last_updates_rad: list[torch.Tensor] = field(default_factory=list)
    edges_mm: list[torch.Tensor] = field(default_factory=list)

    def heading(self, position_mm: torch.Tensor, start: torch.Tensor) -> Heading:
        lmax, grid = self.field.lmax, self.field.grid
        voxel = grid.to_voxel(position_mm)
        rows = interpolate(self.field.table, voxel, grid, self.field.row.reshape(-1))
        tensor = rows[: n_coefficients(lmax)]
        updates, last_rad = _search(tensor, start, lmax)
        self.updates.append(updates)
        self.last_updates_rad.append(last_rad)
        self.amplitudes.append(find_peaks(tensor, start, lmax).amplitude - self.field.cutoff)
        beyond = (voxel + 0.5 - (voxel + 0.5).round()).abs()
        self.edges_mm.append((beyond / grid.ras2vox[:3, :3].norm(dim=1)[:, None]).amin(0))
        result = self.field.heading(position_mm, start)
        self.directions.append(result.direction)
        return result


def _search(
    tensor: torch.Tensor, start: torch.Tensor, lmax: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Count the updates of each search, and measure the last one, radians."""
    here, going = start, torch.ones_like(start[0], dtype=torch.bool)
    updates, last_rad = torch.zeros_like(going, dtype=torch.long), torch.zeros_like(start[0])
    for _ in range(SEARCH_ITERATIONS):
        _, uphill, step = _line_search(contract(tensor, here, lmax, 2), here, lmax)
        last_rad = torch.where(going, step, last_rad)
        updates += going
        here = torch.nn.functional.normalize(here + step * uphill, dim=0)
        going &= step >= SEARCH_TOLERANCE
    return updates, last_rad


def _look(
    fodf: torch.Tensor,
    vox2ras: torch.Tensor,
    config: TrackingConfig,
    position: torch.Tensor,
    before: torch.Tensor,
) -> list[Decision]:
    fodf = fodf.double()
    known = TrackingRules.from_config(
        config, float(vox2ras[:3, :3].norm(dim=0).prod()) ** (1 / 3), stop_at_includes=False
    )
    watched = _Watched(
        FodfField.from_fodf(fodf, vox2ras.double(), cutoff=known.cutoff, peak_tolerance=1e-4)
    )
    rule = StepRule(watched, known.step_size_mm, known.cos_max_angle)
    INTEGRATORS[config.integrator](rule, position, before)
    came = before if config.integrator == "euler" else watched.directions[0]
    cosine = (came * watched.directions[-1]).sum(0) - known.cos_max_angle
    amplitudes = torch.stack(watched.amplitudes)
    nearest = amplitudes.abs().argmin(0, keepdim=True)
    updates = torch.stack(watched.updates)
    longest = updates.argmax(0, keepdim=True)
    columns = (
        amplitudes.gather(0, nearest)[0].tolist(),
        cosine.tolist(),
        updates.gather(0, longest)[0].tolist(),
        torch.stack(watched.last_updates_rad).gather(0, longest)[0].tolist(),
        torch.stack(watched.edges_mm).amin(0).tolist(),
    )
    return [Decision(*row) for row in zip(*columns, strict=True)]
