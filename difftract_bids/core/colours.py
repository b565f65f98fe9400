"""Anisotropy coloured by the direction of the fibres."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def colour_fa(
    fa: Float[np.ndarray, "x y z"], v1: Float[np.ndarray, "x y z 3"]
) -> Float[np.ndarray, "x y z 3"]:
    """Colour fractional anisotropy: red left-right, green front-back, blue up-down.

    Parameters
    ----------
    fa
        Fractional anisotropy; held within 0 to 1, black where it is not finite.
    v1
        First eigenvector, unit vectors in scanner axes (RAS+, not voxel axes), whose sign has no
        meaning; zero where there is none.

    Returns
    -------
    Float[np.ndarray, "x y z 3"]
        float32; red, green and blue, 0 to 1: |v1| times FA.

    References
    ----------
    Pajevic and Pierpaoli 1999, doi:10.1002/(SICI)1522-2594(199909)42:3<526::AID-MRM15>3.0.CO;2-J.
    """
    light = np.clip(np.nan_to_num(fa, posinf=0.0, neginf=0.0), 0.0, 1.0)
    colours = np.abs(np.nan_to_num(v1, posinf=0.0, neginf=0.0)) * light[..., None]
    return colours.astype(np.float32)
