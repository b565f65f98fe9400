"""fODFs as solid shapes: the surface that lies as far from a voxel's centre as its amplitude."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from difftract_bids.core.sh import lmax_of, sh_basis
from difftract_bids.reports.drawing.mosaic import PLANES, Panel
from difftract_bids.reports.drawing.style import direction_colors

#: Samples along and across each pixel of the picture; along the line of sight it is one.
_FINER = 2
#: Voxels looked at together: some 100 MB.
_CHUNK = 16
#: The light comes from above, from the left and from the viewer; much of it from everywhere.
_LIGHT = np.array([-0.35, 0.5, 0.79]) / np.linalg.norm([-0.35, 0.5, 0.79])
_AMBIENT, _DIFFUSE, _SHINE = 0.35, 0.65, 0.25
#: Smaller shapes are specks: left out below this share of a voxel.
_SMALLEST = 0.04


def view_axes(plane: str) -> Float[np.ndarray, "3 3"]:
    """Say where a plane is looked at from: its rows point right, up and at the viewer.

    In the axes of a grid that is turned to RAS+: axial slices are seen from above, coronal ones
    from behind and sagittal ones from the right, as the other pictures of the report have them.
    """
    _, across, up = PLANES[plane]
    right, upwards = np.eye(3)[across], np.eye(3)[up]
    return np.stack([right, upwards, np.cross(right, upwards)])


def draw_glyphs(
    panel: Panel,
    sh_coeffs: Float[np.ndarray, "v h coeff"],
    there: Bool[np.ndarray, "v h"],
    background: Float[np.ndarray, "v h"],
    rotation: Float[np.ndarray, "3 3"],
    *,
    full: float,
    pixels: int = 48,
) -> None:
    """Draw the fODFs of a panel's slice as solid shapes on a grey picture.

    Parameters
    ----------
    panel
        Where to draw.
    sh_coeffs
        fODFs of its slice in MRtrix's basis, scanner axes.
    there
        Voxels that have a shape.
    background
        Grey of each voxel, 0 to 1.
    rotation
        Unit columns: the grid's axes in scanner axes.
    full
        Amplitude that reaches the border of its voxel. Larger shapes are made smaller, as they
        would cover their neighbours.
    pixels
        Of the picture, to the shorter side of a voxel.
    """
    _, *plane_axes = PLANES[panel.plane]
    sizes_mm = panel.voxel_sizes_mm[plane_axes]
    columns, rows = np.round(pixels * sizes_mm / sizes_mm.min()).astype(int)
    cells = np.repeat(background[:, None, :, None], rows, axis=1)
    cells = np.repeat(cells, columns, axis=3)
    picture = np.repeat(cells[..., None], 3, axis=-1).astype(np.float32)
    first_row, first_column = (rows - pixels) // 2, (columns - pixels) // 2
    tile = (slice(first_row, first_row + pixels), slice(first_column, first_column + pixels))
    viewer = view_axes(panel.plane) @ rotation.T
    painted = glyphs(sh_coeffs[there], viewer, full=full, pixels=pixels)
    for (row, column), color, cover in zip(np.argwhere(there), *painted, strict=True):
        below = picture[row, tile[0], column, tile[1]]
        picture[row, tile[0], column, tile[1]] = color + (1 - cover[..., None]) * below
    height, width = rows * len(background), columns * background.shape[1]
    panel.show(np.round(255 * picture.reshape(height, width, 3)).astype(np.uint8))


def glyphs(
    sh_coeffs: Float[np.ndarray, "n coeff"],
    viewer: Float[np.ndarray, "3 3"],
    *,
    full: float,
    pixels: int = 48,
) -> tuple[Float[np.ndarray, "n pixel pixel 3"], Float[np.ndarray, "n pixel pixel"]]:
    """Paint fODFs as solid shapes, coloured by direction and lit; negative lobes are not there.

    Along the line of sight of each pixel the first point is looked for that lies within the shape:
    as far from the centre as the amplitude in its direction, or nearer. These points have the same
    directions in every voxel, so that all amplitudes are one product of matrices.

    Parameters
    ----------
    sh_coeffs
        fODFs in MRtrix's basis.
    viewer
        Rows point right, up and at the viewer, in the axes of the fODFs.
    full
        Amplitude that is as long as half of the picture is wide; larger shapes are made smaller.
    pixels
        Side of the picture.

    Returns
    -------
    colors
        0 to 1, times the cover; first row at the bottom.
    cover
        Share of each pixel that is covered.

    Raises
    ------
    FodfError
        If the number of coefficients is not that of an even degree from 2 to 12.
    """
    rays = _Rays.of(pixels)
    directions = torch.from_numpy((rays.directions @ viewer).astype(np.float32))
    basis = sh_basis(directions, lmax_of(sh_coeffs.shape[-1])).numpy()
    finite = np.nan_to_num(sh_coeffs, nan=0.0, posinf=0.0, neginf=0.0).astype(np.float32)
    colors = np.zeros((len(finite), pixels, pixels, 3), np.float32)
    cover = np.zeros((len(finite), pixels, pixels), np.float32)
    for start in range(0, len(finite), _CHUNK):
        part = slice(start, start + _CHUNK)
        amplitude = finite[part] @ basis.T / full
        largest = amplitude.max(axis=1, keepdims=True)
        amplitude *= (largest >= _SMALLEST) / np.maximum(largest, 1)
        places, points, normals = _first_hits(rays.spread(amplitude - rays.radius), rays)
        lit = np.zeros((len(amplitude), *rays.pixels, 4), np.float32)
        lit[places] = _lit(points, normals, viewer)
        blocks = lit.reshape(len(amplitude), pixels, _FINER, pixels, _FINER, 4)
        mean = blocks.mean(axis=(2, 4))
        colors[part], cover[part] = mean[..., :3], mean[..., 3]
    return colors, cover


class _Rays(NamedTuple):
    """Points on the lines of sight, in units of half a picture; origin at the voxel's centre.

    Only those before the centre, within the sphere that no shape leaves and a sample around it:
    behind the centre an fODF is what it is before it, turned by half a circle.

    Attributes
    ----------
    inside
        Which points of the box (depth away from the centre, up, right) those are.
    directions, radius
        Of each: unit vector (right, up, at the viewer), and distance from the centre.
    across, depth
        Coordinates along the sides of the box.
    """

    inside: Bool[np.ndarray, "depth up right"]
    directions: Float[np.ndarray, "point 3"]
    radius: Float[np.ndarray, " point"]
    across: Float[np.ndarray, " right"]
    depth: Float[np.ndarray, " depth"]

    @classmethod
    def of(cls, pixels: int) -> _Rays:
        side = pixels * _FINER
        across = (np.arange(side) + 0.5) * 2 / side - 1
        step = 2 / pixels
        depth = (np.arange(pixels // 2 + 2) + 0.5) * step
        w, v, u = np.meshgrid(depth, across, across, indexing="ij")
        radius = np.sqrt(u**2 + v**2 + w**2)
        inside = radius < 1 + 1.8 * step
        points = np.stack([u[inside], v[inside], w[inside]], axis=1)
        return cls(inside, points / radius[inside, None], radius[inside], across, depth)

    @property
    def pixels(self) -> tuple[int, int]:
        return self.inside.shape[1], self.inside.shape[2]

    def spread(self, values: Float[np.ndarray, "n point"]) -> NDArray[np.float32]:
        """Put values in their places along the whole lines of sight, the nearest first."""
        n_depths = len(self.depth)
        box = np.full((len(values), 2 * n_depths, *self.pixels), -1, np.float32)
        before = box[:, n_depths - 1 :: -1]
        before[:, self.inside] = values
        box[:, n_depths:] = before[:, :, ::-1, ::-1]
        return box


_Hits = tuple[
    tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]],
    NDArray[np.float64],
    NDArray[np.float64],
]


def _first_hits(depths: Float[np.ndarray, "n depth up right"], rays: _Rays) -> _Hits:
    """Find where lines of sight meet the surface, where values turn positive.

    Returns
    -------
    places
        Shape, row and column of each line that meets one.
    points, normals
        Where, and which way the surface faces there: right, up, at the viewer.
    """
    positive = depths > 0
    first = positive.argmax(axis=1)
    shape, row, column = np.nonzero(np.take_along_axis(positive, first[:, None], axis=1)[:, 0])
    number = first[shape, row, column]
    earlier = np.maximum(number - 1, 0)
    here, there = depths[shape, number, row, column], depths[shape, earlier, row, column]
    # Between the samples values are taken for linear.
    share = np.where(here > there, here / np.where(here > there, here - there, 1), 0)
    along = np.concatenate([rays.depth[::-1], -rays.depth])
    step = rays.depth[1] - rays.depth[0]
    points = np.stack(
        [rays.across[column], rays.across[row], along[number] + share * step], axis=1
    )
    last = len(rays.across) - 1
    slopes = []
    for by_row, by_column in ((0, 1), (1, 0)):
        high = np.minimum(row + by_row, last), np.minimum(column + by_column, last)
        low = np.maximum(row - by_row, 0), np.maximum(column - by_column, 0)
        rise = [depths[shape, k, *high] - depths[shape, k, *low] for k in (number, earlier)]
        slopes.append((rise[0] + share * (rise[1] - rise[0])) / (2 * 2 / len(rays.across)))
    # Values grow inwards, and normals point outwards.
    normals = np.stack([-slopes[0], -slopes[1], (here - there) / step], axis=1)
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return (shape, row, column), points, normals / np.where(length > 0, length, 1)


def _lit(
    points: Float[np.ndarray, "m 3"],
    normals: Float[np.ndarray, "m 3"],
    viewer: Float[np.ndarray, "3 3"],
) -> NDArray[np.float64]:
    """Colour points by their direction, as bright as the light makes them; RGBA."""
    colors = direction_colors(points @ viewer)
    colors /= np.maximum(colors.max(axis=1, keepdims=True), 1e-6)
    facing = np.clip(normals @ _LIGHT, 0, 1)[:, None]
    bright = colors * (_AMBIENT + _DIFFUSE * facing) + _SHINE * facing**12
    return np.append(np.clip(bright, 0, 1), np.ones((len(points), 1)), axis=1)
