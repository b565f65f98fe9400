"""Settings made ready for tracking: nothing left open, lengths counted in vertices."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from difftract_bids.config import Integrator, TrackingConfig
from difftract_bids.errors import ConfigError


@dataclass(frozen=True)
class TrackingRules:
    """How to go and when to stop.

    Attributes
    ----------
    integrator, step_size_mm
        Which rule makes a step, and how long it is.
    cos_max_angle
        Cosine of the largest angle between steps.
    cutoff, peak_tolerance
        Of the direction field.
    min_vertices, max_vertices
        Of a streamline: fewer reject it, and so many end a half.
    one_way
        Only the seed's own direction is followed.
    stop_at_includes
        A half ends once every region to visit is visited.
    gradient_kept
        Share of a derivative that is left after each step on its way back; 1 is exact.
    gradient_limit
        Largest length of a derivative on its way back, in units of the summed lengths of those
        that went in; infinite is exact.
    """

    integrator: Integrator
    step_size_mm: float
    cos_max_angle: float
    cutoff: float
    peak_tolerance: float
    min_vertices: int
    max_vertices: int
    one_way: bool
    stop_at_includes: bool
    gradient_kept: float = 1.0
    gradient_limit: float = math.inf

    @classmethod
    def from_config(
        cls,
        config: TrackingConfig,
        voxel_size_mm: float | None,
        *,
        stop_at_includes: bool,
        act: bool = False,
    ) -> TrackingRules:
        """Fill in MRtrix's defaults.

        Parameters
        ----------
        config
            Settings.
        voxel_size_mm
            Cube root of the voxel volume, or ``None`` where there are no voxels.
        stop_at_includes
            From the regions.
        act
            Whether streamlines obey tissue, which has defaults of its own.

        Raises
        ------
        ConfigError
            If there are no voxels, and a length is left open.
        """
        if voxel_size_mm is None:
            lengths = ("step_size_mm", "min_length_mm", "max_length_mm")
            missing = [name for name in lengths if getattr(config, name) is None]
            if missing:
                raise ConfigError(
                    f"{' and '.join(missing)} would follow from the voxel size, and this field "
                    "has no voxels.",
                    where="TrackingConfig",
                    remedy="Give every length in millimetres.",
                )
        known = config.resolve(1.0 if voxel_size_mm is None else voxel_size_mm, act=act)
        step = _given(known.step_size_mm)
        return cls(
            integrator=known.integrator,
            step_size_mm=step,
            cos_max_angle=math.cos(math.radians(_given(known.max_angle_deg))),
            cutoff=_given(known.cutoff),
            peak_tolerance=known.peak_tolerance,
            min_vertices=1 + _ceil_ratio(_given(known.min_length_mm), step),
            max_vertices=3 + _ceil_ratio(_given(known.max_length_mm), step),
            one_way=known.one_way,
            stop_at_includes=stop_at_includes,
            gradient_kept=math.exp(-step / (known.gradient_window_mm or math.inf)),
            gradient_limit=known.gradient_growth_limit or math.inf,
        )

    @property
    def damps_gradients(self) -> bool:
        """Whether derivatives are not passed on whole."""
        return self.gradient_kept < 1.0 or math.isfinite(self.gradient_limit)


def mean_voxel_size_mm(vox2ras: Float[Tensor, "4 4"]) -> float:
    """Cube root of the voxel volume; 1 for an affine that `Grid` will refuse."""
    if vox2ras.shape != (4, 4):
        return 1.0
    columns = vox2ras.detach().double()[:3, :3]
    size = float(columns.square().sum(0).sqrt().prod()) ** (1 / 3)
    return size if math.isfinite(size) and size > 0 else 1.0


def _ceil_ratio(length_mm: float, step_size_mm: float) -> int:
    """Count steps as MRtrix does, in float32, where 100 / 0.1 is exactly 1000."""
    return math.ceil(np.float32(length_mm) / np.float32(step_size_mm))


def _given(value: float | None) -> float:
    if value is None:  # pragma: no cover - resolve() fills every None
        message = "settings were not resolved"
        raise ValueError(message)
    return value
