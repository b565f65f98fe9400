"""Slices of a volume in three planes, the right way round and in the right proportions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from nibabel.orientations import (
    apply_orientation,
    inv_ornt_aff,
    io_orientation,
)
from numpy.typing import NDArray

from difftract_bids.reports.drawing.style import TEXT_ON_DARK, new_figure

#: Plane name -> (sliced axis, horizontal axis, vertical axis) of a volume in RAS order.
PLANES = {"axial": (2, 0, 1), "coronal": (1, 0, 2), "sagittal": (0, 1, 2)}
_ENDS = (("L", "R"), ("P", "A"), ("I", "S"))
_MARGIN_MM = 8.0


class Canonical:
    """A grid whose axes are turned to the nearest RAS+ axes; oblique tilt stays as it is.

    Parameters
    ----------
    vox2ras
        Affine of the original grid, voxels to RAS+ millimetres.
    shape
        First three dimensions of the original grid.
    """

    def __init__(self, vox2ras: Float[np.ndarray, "4 4"], shape: tuple[int, ...]) -> None:
        self._orientation = io_orientation(vox2ras)
        self.vox2ras = vox2ras @ inv_ornt_aff(self._orientation, shape[:3])
        self.voxel_sizes_mm = np.linalg.norm(self.vox2ras[:3, :3], axis=0)

    def turn(self, volume: NDArray[np.generic]) -> NDArray[np.generic]:
        """Turn a volume (x, y, z, ...) of the original grid; values and vectors are untouched."""
        return apply_orientation(volume, self._orientation)

    @property
    def rotation(self) -> Float[np.ndarray, "3 3"]:
        """Unit columns: the grid's axes in scanner axes (the identity unless oblique)."""
        return self.vox2ras[:3, :3] / self.voxel_sizes_mm

    def slice_mm(self, axis: int, index: int, box: tuple[tuple[int, int], ...]) -> float:
        """Scanner coordinate along an axis at the middle of a slice, millimetres."""
        centre = np.array([(first + last - 1) / 2 for first, last in box])
        centre[axis] = index
        return float((self.vox2ras @ [*centre, 1.0])[axis])


@dataclass(frozen=True)
class Panel:
    """One slice on one pair of axes.

    Attributes
    ----------
    axes
        Where to draw; its units are millimetres along the grid's axes.
    plane
        ``axial``, ``coronal`` or ``sagittal``.
    index
        Slice number along the sliced axis of the turned grid.
    box
        First and last-plus-one voxel shown, per axis.
    voxel_sizes_mm
        Of the turned grid.
    """

    axes: Axes
    plane: str
    index: int
    box: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    voxel_sizes_mm: Float[np.ndarray, " 3"]

    def take(self, volume: NDArray[np.generic]) -> NDArray[np.generic]:
        """Cut this slice from a turned volume: (vertical, horizontal, ...)."""
        axis, *_ = PLANES[self.plane]
        cut = tuple(self.index if i == axis else slice(*self.box[i]) for i in range(3))
        return np.swapaxes(volume[cut], 0, 1)

    @property
    def extent_mm(self) -> tuple[float, float, float, float]:
        """Left, right, bottom and top edge, millimetres."""
        _, horizontal, vertical = PLANES[self.plane]
        edges: list[float] = []
        for axis in (horizontal, vertical):
            first, last = self.box[axis]
            size = float(self.voxel_sizes_mm[axis])
            edges += [(first - 0.5) * size, (last - 0.5) * size]
        return edges[0], edges[1], edges[2], edges[3]

    def show(
        self,
        picture: NDArray[np.generic],
        *,
        cmap: str | None = None,
        vmin: float | None = None,
        vmax: float | None = None,
    ) -> None:
        """Draw a slice of this panel's field of view, at any resolution; RGB needs no window."""
        self.axes.imshow(
            picture,
            origin="lower",
            extent=self.extent_mm,
            interpolation="none",
            cmap=cmap,
            vmin=vmin,
            vmax=vmax,
        )

    def centres_mm(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Voxel centres along the horizontal and the vertical axis, millimetres."""
        _, horizontal, vertical = PLANES[self.plane]
        across, up = (
            np.arange(*self.box[axis]) * self.voxel_sizes_mm[axis]
            for axis in (horizontal, vertical)
        )
        return across, up


class Mosaic:
    """Equally spaced slices of a brain, one row per plane, with sides and coordinates written.

    Left is on the left (neurological convention).

    Parameters
    ----------
    mask
        Brain; slices are spread over it, and the field of view is its box and a margin.
    vox2ras
        Voxels to RAS+ millimetres.
    n_slices
        Panels in a row.
    """

    def __init__(
        self,
        mask: Bool[np.ndarray, "x y z"],
        vox2ras: Float[np.ndarray, "4 4"],
        *,
        n_slices: int = 7,
        width_in: float = 14.0,
    ) -> None:
        self.grid = Canonical(vox2ras, mask.shape)
        turned = self.grid.turn(mask).astype(bool)
        inner = bounding_box(turned)
        self.box = grown(inner, turned.shape, self.grid.voxel_sizes_mm)
        self.figure, rows = self._layout(n_slices, width_in)
        self.panels = [
            Panel(axes, plane, index, self.box, self.grid.voxel_sizes_mm)
            for plane, row in zip(PLANES, rows, strict=True)
            for axes, index in zip(row, _spread(inner[PLANES[plane][0]], n_slices), strict=True)
        ]
        for number, panel in enumerate(self.panels):
            self._annotate(panel, sides=number % n_slices == 0)

    def __iter__(self) -> Iterator[Panel]:
        return iter(self.panels)

    def _layout(self, n_slices: int, width_in: float) -> tuple[Figure, list[list[Axes]]]:
        size_mm = [(last - first) for first, last in self.box] * self.grid.voxel_sizes_mm
        gap = 0.04  # inches between panels
        cell = (width_in - gap * (n_slices + 1)) / n_slices
        heights = [cell * size_mm[up] / size_mm[across] for _, across, up in PLANES.values()]
        total = sum(heights) + gap * (len(heights) + 1)
        figure = new_figure(width_in, total, dark=True)
        rows: list[list[Axes]] = []
        top = total
        for height in heights:
            top -= height + gap
            rows.append(
                [
                    figure.add_axes(
                        (
                            (gap + i * (cell + gap)) / width_in,
                            top / total,
                            cell / width_in,
                            height / total,
                        )
                    )
                    for i in range(n_slices)
                ]
            )
        return figure, rows

    def _annotate(self, panel: Panel, *, sides: bool) -> None:
        axis, *_ = PLANES[panel.plane]
        position_mm = self.grid.slice_mm(axis, panel.index, self.box)
        annotate(panel.axes, panel.plane, f"{'xyz'[axis]} = {position_mm:.0f} mm", sides=sides)


def annotate(axes: Axes, plane: str, text: str, *, sides: bool = True) -> None:
    """Write the sides (L R, P A, I S) and a text into a panel, and take its frame away."""
    _, horizontal, vertical = PLANES[plane]
    axes.set_axis_off()
    style: dict[str, Any] = {"transform": axes.transAxes, "color": TEXT_ON_DARK, "fontsize": 8}
    axes.text(0.98, 0.015, text, ha="right", va="bottom", **{**style, "fontsize": 7})
    if not sides:
        return
    (left, right), (low, high) = _ENDS[horizontal], _ENDS[vertical]
    bold = {**style, "fontweight": "bold"}
    axes.text(0.015, 0.5, left, ha="left", va="center", **bold)
    axes.text(0.985, 0.5, right, ha="right", va="center", **bold)
    axes.text(0.5, 0.985, high, ha="center", va="top", **bold)
    axes.text(0.5, 0.015, low, ha="center", va="bottom", **bold)


def grey_window(
    volume: NDArray[np.generic], mask: Bool[np.ndarray, "x y z"], *, headroom: float = 1.0
) -> dict[str, Any]:
    """Choose black and white of a grey picture from the brain, not from what surrounds it.

    Give ``headroom`` above 1 where what is bright makes up much of the brain, as white matter does
    in a T1w: lines could not be told from it, nor its own shades.
    """
    inside = np.asarray(volume, dtype=np.float64)[mask.astype(bool)]
    inside = inside[np.isfinite(inside)]
    high = headroom * float(np.percentile(inside, 99.5)) if inside.size else 1.0
    return {"cmap": "gray", "vmin": 0.0, "vmax": high if high > 0 else 1.0}


def bounding_box(
    mask: Bool[np.ndarray, "x y z"],
) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """First and last-plus-one voxel of a mask along each axis; all of it if the mask is empty."""
    if not mask.any():
        x, y, z = mask.shape
        return (0, x), (0, y), (0, z)
    where = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    x, y, z = ((int(hit[0]), int(hit[-1]) + 1) for hit in where)
    return x, y, z


def grown(
    box: tuple[tuple[int, int], ...], shape: tuple[int, ...], sizes_mm: Float[np.ndarray, " 3"]
) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Grow a box by a margin of a few millimetres, within the image."""
    x, y, z = (
        (
            max(0, first - round(_MARGIN_MM / float(size))),
            min(n, last + round(_MARGIN_MM / float(size))),
        )
        for (first, last), n, size in zip(box, shape, sizes_mm, strict=True)
    )
    return x, y, z


def _spread(limits: tuple[int, int], n_slices: int) -> list[int]:
    first, last = limits
    # The outermost tenth shows the rim of the brain only.
    return [
        round(i)
        for i in np.linspace(
            first + 0.1 * (last - first), last - 1 - 0.1 * (last - first), n_slices
        )
    ]
