"""Two images of one brain, a row each: four large slices, two axial, a coronal and a sagittal."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from difftract_bids.reports.drawing.mosaic import (
    PLANES,
    Canonical,
    Panel,
    annotate,
    bounding_box,
    grown,
)
from difftract_bids.reports.drawing.style import TEXT_ON_DARK, new_figure

#: Planes, and how far through the brain: temporal lobes, lateral ventricles, beside the midline.
_SLICES = (("axial", 0.33), ("axial", 0.58), ("coronal", 0.5), ("sagittal", 0.46))
_WIDTH_IN, _GAP_IN, _HEAD_IN = 14.0, 0.05, 0.28


class Rows:
    """A figure of two rows of slices, of one scale.

    Left is on the left (neurological convention).

    Parameters
    ----------
    mask
        Brain; it says which slices are drawn, and how much of them.
    vox2ras
        Its voxels to RAS+ millimetres.
    titles
        One above each row.
    """

    def __init__(
        self,
        mask: Bool[np.ndarray, "x y z"],
        vox2ras: Float[np.ndarray, "4 4"],
        titles: tuple[str, str],
    ) -> None:
        self.grid = Canonical(vox2ras, mask.shape)
        turned = self.grid.turn(mask).astype(bool)
        inner = bounding_box(turned)
        self.box = grown(inner, turned.shape, self.grid.voxel_sizes_mm)
        self.figure, rows = self._layout(titles)
        self.upper, self.lower = (
            [self._panel(axes, inner, number) for number, axes in enumerate(row)] for row in rows
        )

    def __iter__(self) -> Iterator[list[Panel]]:
        return iter((self.upper, self.lower))

    def _layout(self, titles: tuple[str, str]) -> tuple[Figure, list[list[Axes]]]:
        sizes_mm = np.diff(self.box, axis=1)[:, 0] * self.grid.voxel_sizes_mm
        shapes_mm = [(sizes_mm[PLANES[p][1]], sizes_mm[PLANES[p][2]]) for p, _ in _SLICES]
        free_in = _WIDTH_IN - _GAP_IN * (len(_SLICES) + 1)
        inches = free_in / sum(width for width, _ in shapes_mm)
        row_in = inches * max(height for _, height in shapes_mm)
        total_in = 2 * (row_in + _HEAD_IN)
        figure = new_figure(_WIDTH_IN, total_in, dark=True)
        rows: list[list[Axes]] = []
        for number, title in enumerate(titles):
            middle = 1 - number / 2 - _HEAD_IN / 2 / total_in
            figure.text(
                0.5, middle, title, color=TEXT_ON_DARK, fontsize=10, ha="center", va="center"
            )
            left, floor = _GAP_IN, (1 - number) * (row_in + _HEAD_IN)
            rows.append([])
            for across, up in shapes_mm:
                width, height = inches * across, inches * up
                bottom = floor + (row_in - height) / 2
                frame = (left / _WIDTH_IN, bottom / total_in, width / _WIDTH_IN, height / total_in)
                rows[-1].append(figure.add_axes(frame))
                left += width + _GAP_IN
        return figure, rows

    def _panel(self, axes: Axes, inner: tuple[tuple[int, int], ...], number: int) -> Panel:
        plane, share = _SLICES[number]
        axis, *_ = PLANES[plane]
        first, last = inner[axis]
        panel = Panel(
            axes,
            plane,
            round(first + share * (last - 1 - first)),
            self.box,
            self.grid.voxel_sizes_mm,
        )
        position_mm = self.grid.slice_mm(axis, panel.index, self.box)
        annotate(axes, plane, f"{'xyz'[axis]} = {position_mm:.0f} mm")
        return panel
