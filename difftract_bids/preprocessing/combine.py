"""One diffusion series of several that were acquired on the same grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from dipy.segment.threshold import otsu
from jaxtyping import Float

from difftract_bids.io.gradients import GradientTable, join_gradients
from difftract_bids.io.images import Volume
from difftract_bids.preprocessing.reference import b0_reference

#: Parts further apart in brightness than this were not acquired alike.
_PLAUSIBLE = (0.5, 2.0)


@dataclass(frozen=True)
class Combined:
    """A series made of parts.

    Attributes
    ----------
    dwi
        All volumes, on the grid of the first part.
    gradients
        Their table.
    scales
        What the intensities of each part were multiplied by.
    notes
        What the user should know.
    """

    dwi: Volume
    gradients: GradientTable
    scales: tuple[float, ...]
    notes: tuple[str, ...]


def concatenate_parts(
    parts: Sequence[tuple[Volume, GradientTable]], names: Sequence[str] | None = None
) -> Combined:
    """Put parts one after the other, as bright as the first at b=0.

    Scanners set their gain anew for each series. The factor is the ratio of the median b=0
    intensities in the head (above Otsu's threshold of the first part's mean b=0 image).
    All parts are given the affine of the first; where their grids lie apart, which is a matter of
    millimetres, the head's apparent movement is left to the correction of motion.

    Parameters
    ----------
    parts
        Image and gradient table of each; the numbers of voxels are the same.
    names
        What notes call them.

    Raises
    ------
    GradientError
        If all together have no b=0 volume, or fewer than six directions.
    """
    named = list(names) if names is not None else [f"part {n}" for n in range(1, len(parts) + 1)]
    (first, _), *_ = parts
    gradients = join_gradients([(table, image.vox2ras) for image, table in parts])
    references = [
        b0_reference(image.data, table) if table.b0_mask.any() else None for image, table in parts
    ]
    scales, notes = _scales(references, named)
    shape = (*first.data.shape[:3], sum(image.data.shape[3] for image, _ in parts))
    data = np.empty(shape, np.float32)
    begin = 0
    for (image, _), scale in zip(parts, scales, strict=True):
        end = begin + image.data.shape[3]
        np.multiply(image.data, np.float32(scale), out=data[..., begin:end])
        begin = end
    return Combined(Volume(data, first.vox2ras), gradients, tuple(scales), tuple(notes))


def _scales(
    references: Sequence[Float[np.ndarray, "x y z"] | None], names: Sequence[str]
) -> tuple[list[float], list[str]]:
    """Compare each mean b=0 image with the first there is."""
    notes = [
        f"{name} has no b=0 volume: its intensities were left as they are."
        for name, reference in zip(names, references, strict=True)
        if reference is None
    ]
    model = next((reference for reference in references if reference is not None), None)
    if model is None:
        return [1.0] * len(references), notes
    head = model > otsu(model) if np.ptp(model) > 0 else np.ones(model.shape, bool)
    target = float(np.median(model[head]))
    scales = []
    for name, reference in zip(names, references, strict=True):
        level = float(np.median(reference[head])) if reference is not None else target
        scale = target / level if level > 0 and target > 0 else 1.0
        scales.append(scale)
        if reference is not None and reference is not model:
            is_far = not _PLAUSIBLE[0] <= scale <= _PLAUSIBLE[1]
            doubt = " That is much: check that they were acquired alike." if is_far else ""
            notes.append(f"The intensities of {name} were multiplied by {scale:.3f}.{doubt}")
    return scales, notes
