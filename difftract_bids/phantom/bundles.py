"""Streamlines that fill a bundle's tube, and the fibre populations of each voxel they make."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter1d

from difftract_bids.phantom.geometry import Bundle, Geometry

_GOLDEN_ANGLE_RAD = np.pi * (3.0 - np.sqrt(5.0))
#: A bundle widens over this length at its cortical ends.
_FAN_MM = 26.0
#: Neighbouring sampling lines and points of a tube are this fraction of a voxel apart.
_SAMPLING = 0.2


@dataclass(frozen=True)
class Tube:
    """Streamlines of one bundle, sampled at common arc positions of its centre line.

    Attributes
    ----------
    points_mm
        Positions (head axes, millimetres).
    inside
        Which points belong to the streamline: outside the range it would leave the cortex.
    area_mm2
        Cross-section that one streamline stands for at each position along the tube.
    """

    points_mm: Float[np.ndarray, "line point 3"]
    inside: Bool[np.ndarray, "line point"]
    area_mm2: Float[np.ndarray, " point"]

    def streamlines(self) -> list[Float[np.ndarray, "point 3"]]:
        """List the streamlines, cut to what is inside."""
        return [
            line[keep].astype(np.float32)
            for line, keep in zip(self.points_mm, self.inside, strict=True)
        ]


@dataclass(frozen=True)
class Fixels:
    """Fibre populations: one row per bundle and voxel that it touches.

    Attributes
    ----------
    voxel
        Flat (C-order) index of the voxel.
    bundle
        Which bundle.
    fraction
        Share of the voxel that the bundle fills; in a crossing the shares sum to at most 1.
    direction
        Unit vector, head axes.
    """

    voxel: Int[np.ndarray, " fixel"]
    bundle: Int[np.ndarray, " fixel"]
    fraction: Float[np.ndarray, " fixel"]
    direction: Float[np.ndarray, "fixel 3"]


def make_tube(
    geometry: Geometry,
    bundle: Bundle,
    weight: float,
    *,
    n_lines: int | None = None,
    step_mm: float = 1.0,
) -> Tube:
    """Fill a bundle's tube evenly with streamlines.

    The waist's cross-section is ``weight / streamlines_per_mm2``; the streamlines keep their place
    in the cross-section, so that they diverge where the tube widens.

    Parameters
    ----------
    geometry
        The head.
    bundle
        Its path and its ends.
    weight
        True number of streamlines.
    n_lines
        Number of lines to make, if another than the weight (rounded).
    step_mm
        Distance between points on the centre line, millimetres.
    """
    waist_mm2 = weight / geometry.streamlines_per_mm2
    widest_mm = np.sqrt(waist_mm2 / np.pi) * max(bundle.fan)
    centre, arc = _centre_line(bundle.path_mm, step_mm, widest_mm)
    tangent = np.gradient(centre, arc, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    first, second = _parallel_frame(tangent)
    n_lines = n_lines or max(round(weight), 1)
    scale = _widening(arc, bundle.fan)
    rank = np.arange(n_lines)
    radius = np.sqrt(waist_mm2 / np.pi * (rank + 0.5) / n_lines)
    angle = rank * _GOLDEN_ANGLE_RAD
    across = radius[:, None, None] * (
        np.cos(angle)[:, None, None] * first + np.sin(angle)[:, None, None] * second
    )
    points = centre + scale[:, None] * across
    return Tube(
        points_mm=points,
        inside=_inside(geometry, bundle, points),
        area_mm2=waist_mm2 / n_lines * scale**2,
    )


def _centre_line(
    path_mm: Float[np.ndarray, "k 3"], step_mm: float, radius_mm: float
) -> tuple[Float[np.ndarray, "point 3"], Float[np.ndarray, " point"]]:
    """Draw a spline along the path, its bends eased so that a tube of this radius does not fold.

    Smoothing by a Gaussian of deviation s turns a right angle into a bend of radius 1.6 s.
    """
    # Centripetal parameters keep the spline from overshooting between uneven points
    # (Yuksel et al. 2011, doi:10.1016/j.cad.2010.08.008).
    knots = np.cumsum([0.0, *np.sqrt(np.linalg.norm(np.diff(path_mm, axis=0), axis=1))])
    line, arc = _evenly(CubicSpline(knots, path_mm)(np.linspace(0.0, knots[-1], 2000)), 0.25)
    # Reflecting the line through its ends keeps them where they are.
    before, after = 2 * line[0] - line[:0:-1], 2 * line[-1] - line[-2::-1]
    deviation = radius_mm / arc[1]
    eased = gaussian_filter1d(np.concatenate([before, line, after]), deviation, axis=0)
    return _evenly(eased[len(before) : len(before) + len(line)], step_mm)


def _evenly(
    line_mm: Float[np.ndarray, "m 3"], step_mm: float
) -> tuple[Float[np.ndarray, "point 3"], Float[np.ndarray, " point"]]:
    arc = np.cumsum([0.0, *np.linalg.norm(np.diff(line_mm, axis=0), axis=1)])
    even = np.linspace(0.0, arc[-1], int(np.ceil(arc[-1] / step_mm)) + 1)
    return np.stack([np.interp(even, arc, axis) for axis in line_mm.T], axis=1), even


def _parallel_frame(
    tangent: Float[np.ndarray, "point 3"],
) -> tuple[Float[np.ndarray, "point 3"], Float[np.ndarray, "point 3"]]:
    """Two normals carried along the line without twist."""
    normal = np.zeros_like(tangent)
    carried = np.cross(tangent[0], np.eye(3)[np.argmin(np.abs(tangent[0]))])
    for index, along in enumerate(tangent):
        carried = carried - (carried @ along) * along
        carried = carried / np.linalg.norm(carried)
        normal[index] = carried
    return normal, np.cross(tangent, normal)


def _widening(
    arc_mm: Float[np.ndarray, " point"], fan: tuple[float, float]
) -> Float[np.ndarray, " point"]:
    def ramp(distance_mm: Float[np.ndarray, " point"]) -> Float[np.ndarray, " point"]:
        near = np.clip(1.0 - distance_mm / _FAN_MM, 0.0, 1.0)
        return near * near * (3.0 - 2.0 * near)

    return 1.0 + (fan[0] - 1.0) * ramp(arc_mm) + (fan[1] - 1.0) * ramp(arc_mm[-1] - arc_mm)


def _inside(
    geometry: Geometry, bundle: Bundle, points_mm: Float[np.ndarray, "line point 3"]
) -> Bool[np.ndarray, "line point"]:
    """Cut cortical ends in the middle of the cortex: keep the run of points around the middle."""
    deep = geometry.depth_mm(points_mm) >= geometry.cortex_mm / 2
    half = deep.shape[1] // 2
    keep = np.ones_like(deep)
    if geometry.parcel(bundle.nodes[0]).kind == "cortex":
        keep[:, :half] = np.logical_and.accumulate(deep[:, :half][:, ::-1], axis=1)[:, ::-1]
    if geometry.parcel(bundle.nodes[1]).kind == "cortex":
        keep[:, half:] = np.logical_and.accumulate(deep[:, half:], axis=1)
    return keep


def map_fixels(
    geometry: Geometry,
    weights: Float[np.ndarray, " bundle"],
    shape: tuple[int, int, int],
    vox2head: Float[np.ndarray, "4 4"],
) -> Fixels:
    """Find the bundles of each voxel, the share that each fills and its mean direction there.

    Each sampled piece of a tube carries its own volume (length times cross-section), so that the
    share is the partial volume of the tube. Where tubes overlap they share the voxel: a crossing.
    """
    head2vox = np.linalg.inv(vox2head)
    voxel_mm3 = abs(np.linalg.det(vox2head[:3, :3]))
    spacing_mm = _SAMPLING * voxel_mm3 ** (1 / 3)
    parts = []
    for index, (bundle, weight) in enumerate(zip(geometry.bundles, weights, strict=True)):
        waist_mm2 = weight / geometry.streamlines_per_mm2
        n_lines = max(round(waist_mm2 / spacing_mm**2), 1)
        tube = make_tube(geometry, bundle, weight, n_lines=n_lines, step_mm=spacing_mm)
        voxel, share, direction = _rasterise(tube, shape, head2vox)
        parts.append((voxel, np.full(len(voxel), index), share / voxel_mm3, direction))
    voxel, owner, share, direction = (np.concatenate(part) for part in zip(*parts, strict=True))
    total = np.bincount(voxel, weights=share, minlength=int(np.prod(shape)))
    return Fixels(voxel, owner, share / np.maximum(total[voxel], 1.0), direction)


def _rasterise(
    tube: Tube, shape: tuple[int, int, int], head2vox: Float[np.ndarray, "4 4"]
) -> tuple[Int[np.ndarray, " fixel"], Float[np.ndarray, " fixel"], Float[np.ndarray, "fixel 3"]]:
    middle = (tube.points_mm[:, 1:] + tube.points_mm[:, :-1]) / 2
    piece = np.diff(tube.points_mm, axis=1)
    volume_mm3 = np.linalg.norm(piece, axis=2) * (tube.area_mm2[1:] + tube.area_mm2[:-1]) / 2
    ijk = np.rint(middle @ head2vox[:3, :3].T + head2vox[:3, 3]).astype(np.intp)
    keep = tube.inside[:, 1:] & tube.inside[:, :-1]
    keep &= ((ijk >= 0) & (ijk < np.array(shape))).all(axis=2)
    flat = np.ravel_multi_index(tuple(ijk[keep].T), shape)
    voxel, place = np.unique(flat, return_inverse=True)
    volume = np.bincount(place, weights=volume_mm3[keep])
    unit = piece[keep] / np.linalg.norm(piece[keep], axis=1, keepdims=True)
    mean = np.stack(
        [np.bincount(place, weights=volume_mm3[keep] * axis) for axis in unit.T], axis=1
    )
    return voxel, volume, mean / np.linalg.norm(mean, axis=1, keepdims=True)
