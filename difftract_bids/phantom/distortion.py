"""Susceptibility distortion of echo-planar images, as near the frontal sinus and the ear canals.

The field is the head's own and moves with it; images are displaced along the scanner's
phase-encoding axis, which does not. Where they are stretched they darken, so that what the head
sends is kept (Jezzard and Balaban 1995, doi:10.1002/mrm.1910340111).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.ndimage import map_coordinates

from difftract_bids.phantom.head import Head

#: Where air disturbs the field: centre and extent (head axes, mm), share of the largest.
_SOURCES = (
    ((0.0, 66.0, -30.0), (20.0, 18.0, 14.0), 1.0),
    ((-48.0, -6.0, -36.0), (13.0, 17.0, 14.0), -0.7),
    ((48.0, -6.0, -36.0), (13.0, 17.0, 14.0), -0.7),
)
#: Displacements of a few millimetres over some centimetres: each turn divides what is left by 2.
_INVERSION_TURNS = 25
_AXES = "ijk"


def displacement_mm(
    head: Head,
    shape: tuple[int, int, int],
    vox2ras: Float[np.ndarray, "4 4"],
    largest_mm: float,
    phase_encoding: str,
    motion: Float[np.ndarray, "4 4"] | None = None,
) -> Float[np.ndarray, "x y z"]:
    """Say how far a head's signal is displaced along the phase-encoding voxel axis.

    Parameters
    ----------
    head
        The head.
    shape, vox2ras
        Grid of the images.
    largest_mm
        Displacement over the frontal sinus; 0.7 of it, the other way, near the ears.
    phase_encoding
        BIDS' PhaseEncodingDirection, such as ``"j-"``, which turns the displacement round.
    motion
        How the head has moved (scanner axes, millimetres), if it has.

    Returns
    -------
    numpy.ndarray
        Millimetres, positive towards larger indices: what belongs at a voxel lies so far on.
    """
    at_rest = vox2ras if motion is None else np.linalg.inv(motion) @ vox2ras
    to_head = head.vox2head(at_rest)
    axes = [np.arange(size).reshape([-1 if n == m else 1 for m in range(3)])
            for n, size in enumerate(shape)]  # fmt: skip
    x, y, z = (sum(to_head[r, c] * axes[c] for c in range(3)) + to_head[r, 3] for r in range(3))
    field = np.zeros(shape)
    for centre, extent, share in _SOURCES:
        scaled = ((p - c) / e for p, c, e in zip((x, y, z), centre, extent, strict=True))
        field += share * np.exp(-0.5 * sum(s**2 for s in scaled))
    sign = -1.0 if phase_encoding.endswith("-") else 1.0
    return sign * largest_mm * field


def distort(
    volume: Float[np.ndarray, "x y z"],
    displacement: Float[np.ndarray, "x y z"],
    phase_encoding: str,
    voxel_size_mm: float,
) -> Float[np.ndarray, "x y z"]:
    """Displace a volume along its phase-encoding axis; the sum along that axis is kept.

    Parameters
    ----------
    volume
        Undistorted, without noise.
    displacement
        Of :func:`displacement_mm`.
    phase_encoding
        BIDS' PhaseEncodingDirection; only its axis is read.
    voxel_size_mm
        Along that axis.
    """
    axis = _AXES.index(phase_encoding[0])
    if not displacement.any():
        return volume
    shift = np.moveaxis(displacement / voxel_size_mm, axis, -1)
    image = np.moveaxis(volume, axis, -1)
    arrived = np.indices(shift.shape, dtype=np.float64)
    target = arrived[-1].copy()
    for _ in range(_INVERSION_TURNS):  # where does it come from: x + d(x) = here
        arrived[-1] = target - map_coordinates(shift, arrived, order=1, mode="nearest")
    stretch = 1.0 + map_coordinates(np.gradient(shift, axis=-1), arrived, order=1, mode="nearest")
    moved = map_coordinates(image, arrived, order=3, mode="constant") / stretch
    return np.moveaxis(np.maximum(moved, 0.0), -1, axis)
