"""The receive coils' sensitivity: a smooth field that multiplies the images."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from nibabel.affines import apply_affine

#: The field varies over about this length.
_SCALE_MM = 70.0


def bias_field(
    shape: tuple[int, ...], vox2ras: Float[np.ndarray, "4 4"], strength: float
) -> Float[np.ndarray, "x y z"]:
    """Evaluate a field that is fixed to the scanner, as coils are.

    Parameters
    ----------
    shape, vox2ras
        The images' grid.
    strength
        Of the field's logarithm; its standard deviation over a head is about 0.6 of it.
    """
    index = np.stack(np.meshgrid(*map(np.arange, shape[:3]), indexing="ij"), axis=-1)
    x, y, z = np.moveaxis(apply_affine(vox2ras, index) / _SCALE_MM, -1, 0)
    exponent = 0.6 * x - 0.8 * y + 0.5 * z + 0.6 * x * y - 0.5 * (z**2 + x**2)
    return np.exp(strength * exponent)
