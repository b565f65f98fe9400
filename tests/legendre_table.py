"""A direction field with MRtrix's own rounding: Legendre functions from a table, in float32.

It shows what the polynomial form, which is exact, differs from MRtrix in: nothing else. The rules
are those of MRtrix3 3.0.3, whose table has 512 samples on [0, pi], linear in the elevation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from scipy.special import assoc_legendre_p_all

from difftract_bids.core.field import Heading
from difftract_bids.core.interpolation import Grid, interpolate
from difftract_bids.core.peaks import LONGEST_STEP, POLE, SEARCH_ITERATIONS, SEARCH_TOLERANCE
from difftract_bids.core.sh import lmax_of
from difftract_bids.core.streamlines import StopReason

SAMPLES = 512
_ROOT2 = math.sqrt(2)


@dataclass(frozen=True)
class TableField:
    """Peaks of an fODF image, found with interpolated Legendre functions."""

    grid: Grid
    lmax: int
    sh: torch.Tensor
    legendre: torch.Tensor
    cutoff: float = 0.1

    @classmethod
    def from_fodf(
        cls, fodf: torch.Tensor, vox2ras: torch.Tensor, samples: int = SAMPLES
    ) -> TableField:
        lmax = lmax_of(fodf.shape[3])
        grid = Grid.from_affine(tuple(fodf.shape[:3]), vox2ras, fodf.device)
        elevation = np.linspace(0, math.pi, samples)
        values = np.zeros((lmax + 1, lmax + 1, samples))
        plain = assoc_legendre_p_all(lmax, lmax, np.cos(elevation))[0]
        for degree in range(lmax + 1):
            for m in range(degree + 1):
                ratio = math.factorial(degree - m) / math.factorial(degree + m)
                norm = math.sqrt((2 * degree + 1) / (4 * math.pi) * ratio)
                values[degree, m] = norm * plain[degree, m]
        sh = fodf.reshape(-1, fodf.shape[3])
        return cls(grid, lmax, sh, torch.from_numpy(values).to(fodf.dtype))

    @property
    def dtype(self) -> torch.dtype:
        return self.sh.dtype

    @property
    def device(self) -> torch.device:
        return self.sh.device

    def parameters(self) -> tuple[torch.Tensor, ...]:
        return (self.sh,)

    def heading(self, position_mm: torch.Tensor, start: torch.Tensor) -> Heading:
        voxel = self.grid.to_voxel(position_mm)
        occupied = (self.sh[self.grid.nearest(voxel)] != 0).any(1)
        inside = self.grid.contains(voxel) & occupied
        direction, amplitude, found = self._climb(interpolate(self.sh, voxel, self.grid), start)
        reason = torch.where(amplitude < self.cutoff, int(StopReason.BELOW_CUTOFF), 0)
        reason = torch.where(found, reason, int(StopReason.NO_PEAK))
        return Heading(direction, torch.where(inside, reason, int(StopReason.OUTSIDE_IMAGE)))

    def _climb(
        self, sh: torch.Tensor, start: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        result, amplitude = start.clone(), torch.zeros_like(start[0])
        found = torch.zeros_like(amplitude, dtype=torch.bool)
        active, here = torch.arange(start.shape[1]), start
        for _ in range(SEARCH_ITERATIONS):
            el, az = torch.acos(here[2].clamp(-1, 1)), torch.atan2(here[1], here[0])
            height, g_el, g_az, h_ee, h_ea, h_aa = self._derivatives(sh, el, az)
            slope = torch.sqrt(g_el * g_el + g_az * g_az)
            over = torch.where(slope > 0, slope, 1)
            a, e = g_az / over, g_el / over
            bend = a * a * h_aa + 2 * a * e * h_ea + e * e * h_ee
            step = torch.where(bend != 0, (a * g_az + e * g_el) / bend, 0).abs()
            step = step.clamp(max=LONGEST_STEP)
            cos_az, sin_az, cos_el, sin_el = az.cos(), az.sin(), el.cos(), el.sin()
            uphill = [e * cos_az * cos_el - a * sin_az, e * sin_az * cos_el + a * cos_az]
            here = here + step * torch.stack([*uphill, -e * sin_el])
            here = here / torch.linalg.vector_norm(here, dim=0)
            done = step < SEARCH_TOLERANCE
            arrived = active[done]
            result[:, arrived], amplitude[arrived] = here[:, done], height[done]
            found[arrived] = True
            going = torch.nonzero(~done).squeeze(1)
            if not len(going):
                break
            active, here, sh = active[going], here[:, going], sh[:, going]
        return result, amplitude, found

    def _derivatives(
        self, sh: torch.Tensor, el: torch.Tensor, az: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Evaluate amplitude, both slopes and three curvatures, without connection terms.

        Derivatives of a Legendre function are sums of its neighbours in m, and each of these comes
        from the table.
        """
        sine = torch.sin(el)
        pole = sine < POLE
        legendre = self._lookup(el)
        amplitude = sh[0] * legendre(0, 0)
        g_el, g_az, h_ee, h_ea, h_aa = (torch.zeros_like(el) for _ in range(5))
        for degree in range(2, self.lmax + 1, 2):
            for m in range(degree + 1):
                middle = degree * (degree + 1) // 2
                cos_m, sin_m = _ROOT2 * torch.cos(m * az), _ROOT2 * torch.sin(m * az)
                plus, minus = sh[middle + m], sh[middle - m]
                wave = plus * cos_m + minus * sin_m if m else plus
                turned = minus * cos_m - plus * sin_m if m else torch.zeros_like(el)
                value, first, second = _by_elevation(legendre, degree, m)
                amplitude = amplitude + wave * value
                g_el, h_ee = g_el + wave * first, h_ee + wave * second
                g_az = g_az + turned * torch.where(pole, first, m * value)
                h_ea = h_ea + torch.where(pole, 0, m * turned * first)
                h_aa = h_aa - torch.where(pole, 0, m * m * wave * value)
        over = torch.where(pole, 1, sine)
        return amplitude, g_el, g_az / over, h_ee, h_ea / over, h_aa / (over * over)

    def _lookup(self, el: torch.Tensor) -> Callable[[int, int], torch.Tensor]:
        last = self.legendre.shape[2] - 1
        place = el * (last / math.pi)
        low = place.floor().clamp(0, last - 1)
        part, low = place - low, low.long()

        @cache
        def value(degree: int, m: int) -> torch.Tensor:
            samples = self.legendre[degree, m]
            return (1 - part) * samples[low] + part * samples[low + 1]

        return value


def _by_elevation(
    legendre: Callable[[int, int], torch.Tensor], degree: int, m: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Value and two derivatives by the elevation of a normalised Legendre function."""

    def neighbour(order: int) -> torch.Tensor | float:
        if abs(order) > degree:
            return 0.0
        return (-1) ** order * legendre(degree, -order) if order < 0 else legendre(degree, order)

    def down(order: int) -> float:
        return math.sqrt(max((degree + order) * (degree - order + 1), 0))

    value = legendre(degree, m)
    first = (down(m + 1) * neighbour(m + 1) - down(m) * neighbour(m - 1)) / 2
    second = -(down(m) ** 2 + down(m + 1) ** 2) * value
    second = second + down(m) * down(m - 1) * neighbour(m - 2)
    second = second + down(m + 1) * down(m + 2) * neighbour(m + 2)
    return value, first, second / 4
