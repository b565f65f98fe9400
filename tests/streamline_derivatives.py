"""Derivatives of whole streamlines against central differences, pair by pair."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from tracking_cases import Case

from difftract_bids.core import Streamlines, TrackingConfig
from difftract_bids.core.field import FodfField
from difftract_bids.core.interpolation import interpolate
from difftract_bids.core.peaks import _amplitude_and_gradient, find_peaks
from difftract_bids.core.propagate import track_field
from difftract_bids.core.rules import mean_voxel_size_mm
from difftract_bids.core.sh import n_coefficients
from difftract_bids.core.tensor_form import contract

#: Relative change of what is differentiated by. The rounding of vertices, 1e-14 mm and what grows
#: from it, over this is far below the bars; and few vertices come to another cell by it.
CHANGE = 1e-6
OUTLIER = 1e-6


@dataclass(frozen=True)
class Pair:
    """A streamline and a random direction in the space of the fODFs or of the seeds.

    Attributes
    ----------
    error
        Relative difference of the derivative from the central difference.
    sides
        The same between the differences forwards and backwards: large at a kink.
    halved
        Relative error from half the change.
    rounding
        What the rounding of vertices alone can make of the relative error.
    bounded
        How many curvatures were bounded.
    no_peak
        Whether a search ended where there is no peak, for all its iterations.
    """

    by: str
    error: float
    sides: float
    halved: float
    rounding: float
    bounded: int
    no_peak: bool

    def reason(self) -> str:
        """Tell why the difference is not the derivative."""
        if self.no_peak:
            return "a search that ended where there is no peak"
        if self.error < 4 * self.rounding:
            return "rounding of the vertices"
        if self.bounded:
            return "a peak so flat that its curvature is bounded"
        if self.halved < 0.5 * self.error:
            return "truncation, or a kink that half the change does not reach"
        if self.sides > 0.5 * self.error:
            return "a kink: the differences to both sides differ"
        return ""


class Errors(list[Pair]):
    """Errors of many pairs."""

    def percentile(self, share: float) -> float:
        return float(np.percentile([pair.error for pair in self], share))

    def median(self) -> float:
        return self.percentile(50)

    def summary(self) -> str:
        quoted = ", ".join(f"{q}%: {self.percentile(q):.1e}" for q in (50, 90, 95, 99, 100))
        return f"{len(self)} pairs, {quoted}"

    def outliers(self) -> list[Pair]:
        return [pair for pair in self if pair.error > OUTLIER]

    def explained(self) -> str:
        return "; ".join(
            f"{pair.by} {pair.error:.1e} (sides {pair.sides:.1e}, half the change "
            f"{pair.halved:.1e}): {pair.reason() or 'unexplained'}"
            for pair in self.outliers()
        )

    def unexplained(self) -> list[Pair]:
        return [pair for pair in self.outliers() if not pair.reason()]


def derivative_errors(case: Case, config: TrackingConfig, n_directions: int) -> Errors:
    """Compare the derivative of each streamline along random directions with differences.

    Only streamlines that have the same vertices at all changes are compared: where one ends is a
    decision. What is differentiated is a random projection of a streamline's vertices.
    """
    settings = config.resolve(mean_voxel_size_mm(case.vox2ras))
    field = FodfField.from_fodf(
        case.fodf, case.vox2ras, cutoff=settings.cutoff, peak_tolerance=settings.peak_tolerance
    )
    starts = case.starts

    def run(table: torch.Tensor, seeds: torch.Tensor, which=slice(None)) -> Streamlines:
        return track_field(replace(field, table=table), seeds, starts[which], settings)

    generator = torch.Generator().manual_seed(11)
    plain = run(field.table, case.seeds)
    errors = Errors()
    for by in ("fodf", "seeds"):
        steps, moved = [], []
        for _ in range(n_directions):
            step = _direction(by, case, field, generator)
            steps.append(step)
            moved.append(
                {
                    times: run(*_moved(by, field.table, case.seeds, step, times * CHANGE))
                    for times in (1, -1, 0.5, -0.5)
                }
            )
        for i, seed in enumerate(plain.seed_index.tolist()):
            errors += _of_one(by, seed, i, plain, run, field, case, steps, moved, generator)
    return errors


def _moved(by, table, seeds, step, size):
    return (table + size * step, seeds) if by == "fodf" else (table, seeds + size * step)


def _direction(by: str, case: Case, field: FodfField, generator) -> torch.Tensor:
    """A random direction: in the space of SH coefficients of the voxels that have some, or mm."""
    if by == "seeds":
        return torch.randn(case.seeds.shape, generator=generator, dtype=torch.float64).to(
            case.seeds.device
        )
    noise = torch.randn(case.fodf.shape, generator=generator, dtype=torch.float64)
    noise = noise.to(case.fodf.device)
    occupied = (case.fodf != 0).any(-1, keepdim=True)
    size = case.fodf[occupied[..., 0]].square().mean().sqrt()
    change = noise * occupied * size
    return FodfField.from_fodf(
        change, case.vox2ras, cutoff=0.0, peak_tolerance=field.peak_tolerance
    ).table


def _of_one(by, seed, i, plain, run, field, case, steps, moved, generator) -> list[Pair]:
    table = field.table.detach().requires_grad_(by == "fodf")
    one = case.seeds[seed : seed + 1].clone().requires_grad_(by == "seeds")
    result = run(table, one, slice(seed, seed + 1))
    weights = torch.randn(result.points.shape, generator=generator, dtype=torch.float64)
    weights = weights.to(result.points.device)
    (gradient,) = torch.autograd.grad(
        (weights * result.points).sum(), table if by == "fodf" else one
    )
    pairs = []
    for step, found in zip(steps, moved, strict=True):
        at = {times: _vertices_of(other, seed) for times, other in found.items()}
        if any(v is None or v.shape != result.points.shape for v in at.values()):
            continue
        value = {times: float((weights * (v - plain[i])).sum()) for times, v in at.items()}
        expected = (value[1] - value[-1]) / (2 * CHANGE)
        halved = (value[0.5] - value[-0.5]) / CHANGE
        along = step if by == "fodf" else step[seed : seed + 1]
        derivative = float((gradient * along).sum())
        scale = abs(expected)
        pairs.append(
            Pair(
                by,
                abs(derivative - expected) / scale,
                abs(value[1] + value[-1]) / CHANGE / scale,
                abs(derivative - halved) / scale,
                float((weights * result.points.detach()).norm()) * 2.2e-16 / CHANGE / scale,
                result.gradient_report.bounded,
                abs(derivative - expected) > OUTLIER * scale and _ends_at_no_peak(field, plain[i]),
            )
        )
    return pairs


def _ends_at_no_peak(field: FodfField, points: torch.Tensor) -> bool:
    """Search for peaks again along a streamline, and look at the slope where searches end."""
    for there, here in ((points[:-1], points[1:]), (points[1:], points[:-1])):
        start = torch.nn.functional.normalize(here - there, dim=1).T
        voxel = field.grid.to_voxel(here.T)
        tensor = interpolate(field.table, voxel, field.grid, field.row.reshape(-1))
        tensor = tensor[: n_coefficients(field.lmax)]
        peaks = find_peaks(tensor, start, field.lmax, field.peak_tolerance)
        matrix = contract(tensor, peaks.direction, field.lmax, 2)
        amplitude, slope = _amplitude_and_gradient(matrix, peaks.direction, field.lmax)
        if bool((peaks.found & (slope.norm(dim=0) > 1e-6 * amplitude.abs())).any()):
            return True
    return False


def _vertices_of(result: Streamlines, seed: int) -> torch.Tensor | None:
    place = int(torch.searchsorted(result.seed_index, seed))
    if place == len(result) or int(result.seed_index[place]) != seed:
        return None
    return result[place]
